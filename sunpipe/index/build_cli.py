"""``sunpipe index build``, ``info``, ``verify``. FAISS is imported when it is used."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sunpipe.config import load_config
from sunpipe.errors import EXIT_FAILURE, UsageError
from sunpipe.settings import Config
from sunpipe.stage import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    Result,
    SetOption,
    emit,
    run_stage,
)

app = typer.Typer(add_completion=False, no_args_is_help=True,
                  help="FAISS index of the real archive: build, search, info, verify.")  # fmt: skip


class Metric(StrEnum):
    """How far apart two vectors are."""

    cosine = "cosine"
    euclidean = "euclidean"


FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Index folder.")]


@app.command()
def build(
    config: ConfigOption = None,
    set_: SetOption = None,
    embeddings: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder made by sunpipe embed.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Index folder.")] = None,
    metric: Annotated[Metric | None, typer.Option(help="Default: [index] metric.")] = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Build an exact index from embeddings: of a configuration, or of two folders."""
    from sunpipe.paths import Layout

    def folders(cfg: Config) -> tuple[Path, Path, str]:
        layout = Layout.current()
        return (embeddings or layout.embeddings(cfg.name), out or layout.index(cfg.name),
                metric or cfg.index.metric)  # fmt: skip

    def work(cfg: Config) -> Result:
        from sunpipe.index.build import build as run

        return run(*folders(cfg))

    def plan(cfg: Config) -> Result:
        source, target, measure = folders(cfg)
        return {"embeddings": str(source), "out": str(target), "metric": measure}

    if config is None:  # two folders, which need not lie in the data root: it is left alone
        if embeddings is None or out is None:
            raise UsageError("index build needs --config, or both --embeddings and --out")
        emit((plan if dry_run else work)(load_config(None, set_ or ())), json_)
        return
    run_stage("index", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
              sections=("index",), plan=plan)  # fmt: skip


@app.command()
def info(folder: FolderArgument, json_: JsonOption = False) -> None:
    """Say what an index holds: kind, size, recall, encoder, digests."""
    from sunpipe.index.build import summary
    from sunpipe.index.store import read_info

    emit(summary(folder, read_info(folder)), json_)


@app.command()
def verify(folder: FolderArgument, json_: JsonOption = False) -> None:
    """Check digests and counts, and that vectors find themselves."""
    from sunpipe.index.build import verify as run

    result = run(folder)
    emit(result, json_)
    if not result["ok"]:
        raise typer.Exit(EXIT_FAILURE)
