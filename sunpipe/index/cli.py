"""``sunpipe index``: build, search, info, verify. FAISS is imported when it is used."""

from __future__ import annotations

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

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
    log,
    run_stage,
)

app = typer.Typer(add_completion=False, no_args_is_help=True,
                  help="FAISS index of the real archive: build, search, info, verify.")  # fmt: skip


class Metric(StrEnum):
    """How far apart two vectors are."""

    cosine = "cosine"
    euclidean = "euclidean"


class Per(StrEnum):
    """What one answer stands for."""

    record = "record"
    tile = "tile"


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


def _kind(fits: Any, record: str | None, seed: int | None, run: str | None) -> str:
    given = [name for name, value in (("--fits", fits), ("--record", record), ("--seed", seed))
             if value is not None]  # fmt: skip
    if len(given) != 1:
        raise UsageError("index search takes one of --fits BR BT BP, --record ID, --seed N"
                         + (f", not {' and '.join(given)}" if given else ""))  # fmt: skip
    if (run is not None) != (seed is not None):
        raise UsageError("--seed and --run go together: a seed is one of a generator's run")
    return given[0]


@app.command()
def search(
    folder: FolderArgument,
    fits: Annotated[
        tuple[Path, Path, Path] | None,
        typer.Option(metavar="BR BT BP", help="Three segments of a SHARP."),
    ] = None,
    record: Annotated[
        str | None, typer.Option(metavar="ID", help="A JSOC record-set string of the index.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="A generated patch.")] = None,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="With --seed: run folder or experiment name.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Run of the encoder; default: the one the index names."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Answers wanted.")] = 10,
    where: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="For example: TOTUSJH > 2000")
    ] = None,
    include_self: Annotated[
        bool, typer.Option("--include-self", help="Let the query's own record answer.")
    ] = False,
    per: Annotated[
        Per, typer.Option(help="One answer per record (its best tile), or tiles.")
    ] = Per.record,
    json_: JsonOption = False,
) -> None:
    """Find the real observations nearest to a SHARP, a record, or a generated patch."""
    kind = _kind(fits, record, seed, run)
    from sunpipe.index.search import record_query
    from sunpipe.index.search import search as find
    from sunpipe.index.store import load_index

    started = time.perf_counter()
    index = load_index(folder)
    if kind == "--record":
        query = record_query(index, str(record))
    else:
        from sunpipe.embed import query as torch_query  # torch is loaded only here

        if fits is not None:
            query = torch_query.fits_query(index.info, fits, encoder, index=folder)
        else:
            query = torch_query.seed_query(
                index.info, int(seed or 0), str(run), encoder, index=folder
            )
    hits = find(index, query, k, where, include_self, per.value)
    asked = {**query.about, "k": k, "where": where, "per": per.value, "include_self": include_self}
    result = {"query": asked, "hits": hits, "seconds": round(time.perf_counter() - started, 4)}
    if not hits:
        log("no observation in the index may answer this query"
            + (f" under --where {where!r}" if where else ""))  # fmt: skip
    if json_:
        emit(result, True)
    else:
        _print_hits(result)


def _print_hits(result: dict[str, Any]) -> None:
    print(f"query: {json.dumps(result['query'])}")
    print(f"{'distance':>9}  {'record':<50} {'tile':>11}  NOAA")
    for found in result["hits"]:
        tile = f"{found['tile'][0]},{found['tile'][1]}"
        print(f"{found['distance']:9.5f}  {found['record']:<50} {tile:>11}  {found['noaa_ars']}")
    print(f"seconds: {result['seconds']}")


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
