"""``sunpipe index build``, ``add``, ``merge``, ``info``, ``verify``. FAISS is imported at work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sunpipe.config import load_config
from sunpipe.errors import EXIT_FAILURE, UsageError
from sunpipe.index_settings import IndexSettings
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
from sunpipe.stop import interrupting

app = typer.Typer(
    add_completion=False, no_args_is_help=True,
    help="FAISS index of the real archive: build, add, merge, search, info, verify.",
)  # fmt: skip


class Metric(StrEnum):
    """How far apart two vectors are."""

    cosine = "cosine"
    euclidean = "euclidean"


class Kind(StrEnum):
    """How vectors are found again."""

    auto = "auto"
    flat = "flat"
    ivf = "ivf"
    fastscan = "fastscan"


FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Index folder.")]
EmbeddingsOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder made by sunpipe embed.")
]
PartOption = Annotated[
    str | None, typer.Option("--part", metavar="I/N", help="Only the I-th of N shares (from 1).")
]
OutOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Index folder.")]
MetricOption = Annotated[Metric | None, typer.Option(help="Default: [index] metric.")]
KindOption = Annotated[
    Kind | None,
    typer.Option(help="Default: [index] kind. auto measures and says why; flat is exact."),
]


@dataclass(frozen=True)
class Asked:
    """Folders and settings of a build, from options and configuration."""

    embeddings: Path
    out: Path
    settings: IndexSettings

    @property
    def plain(self) -> Result:
        """For ``--dry-run``."""
        return {"embeddings": str(self.embeddings), "out": str(self.out),
                "metric": self.settings.metric, "kind": self.settings.kind}  # fmt: skip


def _asked(
    cfg: Config, embeddings: Path | None, out: Path | None, metric: Metric | None,
    kind: Kind | None,
) -> Asked:  # fmt: skip
    from sunpipe.paths import Layout

    layout = Layout.current()
    settings = cfg.index
    if metric is not None:
        settings = replace(settings, metric=metric.value)
    if kind is not None:
        settings = replace(settings, kind=kind.value)
    return Asked(embeddings or layout.embeddings(cfg.name), out or layout.index(cfg.name), settings)


def _run(
    name: str, work: Callable[[Asked], Result], ask: Callable[[Config], Asked], alone: bool,
    *, config: Path | None, set_: list[str] | None, dry_run: bool, json_: bool,
    part: str | None = None, noted: bool = True,
) -> None:  # fmt: skip
    """Run as a stage of a configuration; or on two folders, whatever the data root."""
    if config is not None:
        run_stage("index", lambda cfg: work(ask(cfg)), config=config, overrides=set_,
                  dry_run=dry_run, as_json=json_, sections=("index",),
                  plan=lambda cfg: ask(cfg).plain, part=part, noted=noted)  # fmt: skip
        return
    if not alone:
        raise UsageError(f"index {name} needs --config, or both --embeddings and --out")
    asked = ask(load_config(None, set_ or ()))
    if dry_run:
        emit(asked.plain, json_)
        return
    with interrupting():
        emit(work(asked), json_)


@app.command()
def build(
    config: ConfigOption = None,
    set_: SetOption = None,
    embeddings: EmbeddingsOption = None,
    out: OutOption = None,
    metric: MetricOption = None,
    kind: KindOption = None,
    part: PartOption = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Build an index from embeddings: of a configuration, or of two folders."""

    def work(asked: Asked) -> Result:
        from sunpipe.index.build import build as run

        return run(asked.embeddings, asked.out, asked.settings.metric, asked.settings, part)

    _run("build", work, lambda cfg: _asked(cfg, embeddings, out, metric, kind),
         embeddings is not None and out is not None,
         config=config, set_=set_, dry_run=dry_run, json_=json_, part=part,
         noted=not any((embeddings, out, metric, kind)))  # fmt: skip


@app.command()
def merge(
    config: ConfigOption = None,
    set_: SetOption = None,
    embeddings: EmbeddingsOption = None,
    out: OutOption = None,
    metric: MetricOption = None,
    kind: KindOption = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Publish an index whose parts are all built (the last part does so by itself)."""

    def work(asked: Asked) -> Result:
        from sunpipe.index.build import merge as run

        return run(asked.embeddings, asked.out, asked.settings.metric, asked.settings)

    _run("merge", work, lambda cfg: _asked(cfg, embeddings, out, metric, kind),
         embeddings is not None and out is not None,
         config=config, set_=set_, dry_run=dry_run, json_=json_,
         noted=not any((embeddings, out, metric, kind)))  # fmt: skip


@app.command()
def add(
    folder: FolderArgument,
    embeddings: Annotated[Path, typer.Option(metavar="DIR", help="Folder made by sunpipe embed.")],
    json_: JsonOption = False,
) -> None:
    """Add the patches of another embedding that the index does not hold yet."""
    from sunpipe.index.grow import grow

    with interrupting():
        emit(grow(folder, embeddings), json_)


@app.command()
def info(folder: FolderArgument, json_: JsonOption = False) -> None:
    """Say what an index holds: kind, size, recall, encoder, digests."""
    from sunpipe.index.describe import summary
    from sunpipe.index.store import read_info

    emit(summary(folder, read_info(folder)), json_)


@app.command()
def verify(folder: FolderArgument, json_: JsonOption = False) -> None:
    """Check digests and counts, and that vectors find themselves."""
    from sunpipe.index.describe import verify as run

    result = run(folder)
    emit(result, json_)
    if not result["ok"]:
        raise typer.Exit(EXIT_FAILURE)
