"""``sunpipe index search``; the other commands stand in `sunpipe.index.build_cli`."""

from __future__ import annotations

import os
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sunpipe.errors import UsageError
from sunpipe.index.build_cli import FolderArgument, app
from sunpipe.stage import JsonOption, emit, log

if TYPE_CHECKING:
    from sunpipe.index.search import Query
    from sunpipe.index.store import Index

ASKED = "--fits BR BT BP, --record ID, --seed N, --latent FILE, --like COLUMN=VALUE"


class Folded(StrEnum):
    """What counts as one answer."""

    harp = "harp"
    record = "record"
    none = "none"


def _check(kinds: dict[str, Any], needs: dict[str, tuple[Any, tuple[str, ...]]], limited: bool,
           order: str | None) -> str | None:  # fmt: skip
    """The one kind of question that was given, None for numbers only."""
    given = [name for name, value in kinds.items() if value is not None]
    if len(given) > 1 or (not given and not limited and order is None):
        raise UsageError(f"index search takes one of {ASKED}; or conditions alone (--where,"
                         " --within, --after, --before)"
                         + (f"; not {' and '.join(given)}" if given else ""))  # fmt: skip
    kind = given[0] if given else None
    if kind == "--seed" and needs["--run"][0] is None:
        raise UsageError("--seed and --run go together: a seed is one of a generator's run")
    for option, (value, with_) in needs.items():
        if value is not None and kind not in with_:
            raise UsageError(f"{option} goes with {' or '.join(with_)}"
                             + (": a seed is one of a generator's run" if option == "--run" else "")
                             )  # fmt: skip
    if order is not None and kind is not None:
        raise UsageError("--order goes with conditions alone; a question has an order of its own")
    return kind


def _check_file(option: str, path: Path | None) -> None:
    """Refuse a file that cannot be written, before anything is searched."""
    if path is None:
        return
    folder = path.parent
    if path.is_dir():
        raise UsageError(f"{option} {path}: this is a folder; give a file in it")
    if not folder.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {path}: {folder} cannot be written to")


def _write(path: Path | None, made: str) -> None:
    from sunpipe.files import write_text

    if path is not None:
        write_text(path, made)
        log(f"written: {path}")


def _query(
    index: Index, kind: str | None, fits: tuple[Path, Path, Path] | None, record: str | None,
    seed: int | None, latent: Path | None, frame: int | None, run: str | None, psi: float,
    encoder: str | None,
) -> Query | None:  # fmt: skip
    if kind == "--record":
        from sunpipe.index.search import record_query

        return record_query(index, str(record))
    if kind in (None, "--like"):
        return None
    from sunpipe.embed import latent_query, query  # torch is loaded only here

    folder = index.folder
    if fits is not None:
        return query.fits_query(index.info, fits, encoder, index=folder)
    if latent is not None:
        return latent_query.latent_query(index.info, latent, frame, run, encoder, index=folder)
    return query.seed_query(index.info, int(seed or 0), str(run), encoder, psi, index=folder)


@app.command()
def search(
    folder: FolderArgument,
    fits: Annotated[
        tuple[Path, Path, Path] | None,
        typer.Option(metavar="BR BT BP",
                     help="Near to the Br, Bt, Bp of a SHARP, in an index of such channels only."),
    ] = None,
    record: Annotated[
        str | None, typer.Option(metavar="ID", help="Near to a JSOC record of the index.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Near to a generated patch.")] = None,
    latent: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Near to the patch of a latent: walk.h5, inversion.h5."),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(metavar="COLUMN=VALUE,...", help="Near in numbers: TOTUSJH=3000,USFLUX=2e22."),
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="Generator: run folder or experiment name.")
    ] = None,
    frame: Annotated[
        int | None, typer.Option(metavar="N", help="With --latent: frame of a walk, -1 the last.")
    ] = None,
    psi: Annotated[float | None, typer.Option(help="With --seed: truncation; default 1.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Run of the encoder; default: the one the index names."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="CONDITION",
                     help="TOTUSJH in 2000..4000 and flare_24h >= 'M1'; alone it is a search too."),
    ] = None,
    within: Annotated[
        float | None, typer.Option(metavar="DEG", help="At most so far from disk centre.")
    ] = None,
    after: Annotated[str | None, typer.Option(metavar="TIME", help="From then on: 2011.")] = None,
    before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Until then: 2014.06.30_12:00.")
    ] = None,
    other_harps: Annotated[
        bool, typer.Option("--other-harps", help="Leave out the HARP of the question.")
    ] = False,
    include_self: Annotated[
        bool, typer.Option("--include-self", help="Let the question's own record answer.")
    ] = False,
    order: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="With conditions alone: t_rec, 'TOTUSJH desc' ..."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Answers wanted.")] = 10,
    fold: Annotated[
        Folded, typer.Option(help="One answer for each HARP, for each record, or tiles.")
    ] = Folded.harp,
    exact: Annotated[
        bool,
        typer.Option("--exact",
                     help="Compare with every row that may answer, not with those codes find."),
    ] = False,
    json_: JsonOption = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with pictures.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a table.")] = None,
) -> None:  # fmt: skip
    """Find real observations: near to a SHARP, to a generated patch or to numbers; or by numbers.

    Nothing outside the conditions ever answers. In an index of codes the nearest are found
    at the recall it was built for; --exact finds all. Flares within a day are among the
    columns; docs/search.md lists them all.
    """
    limited = any(value is not None for value in (where, within, after, before))
    kind = _check(
        {"--fits": fits, "--record": record, "--seed": seed, "--latent": latent, "--like": like},
        {"--run": (run, ("--seed", "--latent")), "--frame": (frame, ("--latent",)),
         "--psi": (psi, ("--seed",)), "--encoder": (encoder, ("--fits", "--seed", "--latent")),
         "--exact": (exact or None, ("--fits", "--record", "--seed", "--latent"))},
        limited, order,
    )  # fmt: skip
    _check_file("--csv", csv)
    _check_file("--html", html)
    if csv is not None and html is not None and csv.resolve() == html.resolve():
        raise UsageError(f"--csv and --html name one file, {csv}")
    from sunpipe.index import gallery, text
    from sunpipe.index.limits import Limits
    from sunpipe.index.search import ask
    from sunpipe.index.store import load_index

    started = time.perf_counter()
    index = load_index(folder)
    query = _query(index, kind, fits, record, seed, latent, frame, run, 1.0 if psi is None else psi,
                   encoder)  # fmt: skip
    limits = Limits(where, within, after, before, other_harps, include_self)
    answer = ask(index, query, limits, k, fold.value, like, order, exact)
    seconds = round(time.perf_counter() - started, 4)
    asked = {**answer.about, "k": k, "where": where, "fold": fold.value,
             "include_self": include_self, "other_harps": other_harps, "within": within,
             "after": after, "before": before, "exact": exact}  # fmt: skip
    _write(csv, text.csv_text(answer))
    if html is not None:
        why = gallery.write_gallery(html, index, answer, fold.value, query)
        log(f"written: {html}" + (f", without pictures: {why}" if why else ""))
    if json_:
        emit({"query": asked, "hits": answer.hits, "candidates": answer.candidates,
              "conditions": answer.conditions, "seconds": seconds}, True)  # fmt: skip
        if not answer.hits:
            log("\n".join(text.nothing(answer)))
        return
    text.show(answer, fold.value)
    print(f"{seconds:.2f} s")
