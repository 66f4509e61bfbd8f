"""``sunpipe index search``; the other commands stand in `sunpipe.index.build_cli`."""

from __future__ import annotations

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sunpipe.errors import UsageError
from sunpipe.index.build_cli import FolderArgument, app
from sunpipe.stage import JsonOption, emit, log


class Per(StrEnum):
    """What one answer stands for."""

    record = "record"
    tile = "tile"


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
