"""What every stage command shares: options, resolved config, dry run, JSON, errors (C1, C11)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from sunpipe.config import load_config, to_dict
from sunpipe.dist import discover
from sunpipe.errors import Stopped, UsageError
from sunpipe.lock import running
from sunpipe.paths import Layout
from sunpipe.provenance import now
from sunpipe.settings import Config
from sunpipe.stop import interrupting

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Experiment configuration (TOML).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change one key, e.g. train.batch=16."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved configuration and what would be done.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")
]

Result = dict[str, Any]
HIDDEN = "***"


def log(message: str) -> None:
    """Print one plain line on stderr."""
    print(message, file=sys.stderr, flush=True)


def emit(result: Result, as_json: bool) -> None:
    """Print a stage's result: one JSON document, or one ``key: value`` line each."""
    if as_json:
        print(json.dumps(result, allow_nan=False), flush=True)
        return
    for key, value in result.items():
        if isinstance(value, float):
            value = f"{value:.6g}"
        elif isinstance(value, dict | list):
            value = json.dumps(value)
        print(f"{key}: {value}", flush=True)


def printable(sections: Result) -> Result:
    """Sections of a configuration without the e-mail: what is printed ends in shared logs."""
    fetch = sections.get("fetch")
    if not fetch or not fetch.get("email"):
        return sections
    return {**sections, "fetch": {**fetch, "email": HIDDEN}}


def _remember(stage: str, name: str, seconds: float, result: Result) -> None:
    """Append what was done to ``stages.jsonl`` in the data root; the report reads it."""
    row = {"stage": stage, "name": name, "seconds": seconds, "time": now(), "result": result}
    root = Layout.current().root
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "stages.jsonl", "a", encoding="utf-8") as handle:
        handle.write(json.dumps(row) + "\n")


def _look(stage: str, resolved: Config) -> dict[str, str] | None:
    """What a stage of the pipeline is about to read; None for other commands."""
    from sunpipe import receipts

    return receipts.found(stage, resolved, Layout.current()) if stage in receipts.KINDS else None


def _leave_receipt(
    stage: str, resolved: Config, read: dict[str, str], result: Result, part: str | None
) -> None:
    from sunpipe import receipts

    try:
        receipts.write(stage, resolved, Layout.current(), read, result, part)
    except OSError as error:  # the work itself is done, and is looked at again next time
        log(f"no receipt of {stage} was left: {error.strerror}")


def _is_main() -> bool:
    """Whether this process prints for its peers; those that need ranks check them strictly."""
    try:
        return discover().is_main
    except UsageError:
        return True


def run_stage(
    name: str,
    work: Callable[[Config], Result | None],
    *,
    config: Path | None,
    overrides: list[str] | None,
    dry_run: bool,
    as_json: bool,
    sections: tuple[str, ...] = (),
    plan: Callable[[Config], Result] | None = None,
    locked: bool = False,
    shown: Result | None = None,
    part: str | None = None,
    noted: bool = True,
) -> None:
    """Load the configuration, print it, then plan or work and print the result.

    Parameters
    ----------
    name : str
        Stage name, for messages.
    work : callable
        Takes the configuration; returns a JSON-able result, or None on ranks that stay silent.
    sections : tuple of str
        The configuration sections this stage reads; they are printed.
    plan : callable, optional
        Says what `work` would do, without writing anything.
    locked : bool
        Only one process at a time may do this stage of this experiment.
    shown : dict, optional
        What is printed in place of the configuration, by commands that have none.
    part : str, optional
        ``I/N``, when this is one share of the stage.
    noted : bool
        Whether a receipt may say that the stage is done: not when other options than those
        of the configuration decided what was made.
    """
    resolved = load_config(config, overrides or ())
    whole = to_dict(resolved)
    sections = ("name", "dataset", "seed", *sections)
    shown = shown or printable({key: whole[key] for key in sections})
    if _is_main():
        log(f"sunpipe {name} {json.dumps(shown)}")
    try:
        if dry_run:
            emit({"dry_run": True, "config": shown, **(plan(resolved) if plan else {})}, as_json)
            return
        started = time.perf_counter()
        alone = running(Layout.current(), name, resolved.name) if locked else nullcontext()
        with interrupting(name), alone:
            read = _look(name, resolved) if noted and _is_main() else None
            result = work(resolved)
    except KeyboardInterrupt:
        raise Stopped(f"{name} interrupted; run the same command again to continue") from None
    if result is not None:
        seconds = time.perf_counter() - started
        emit({**result, "seconds": result.get("seconds", round(seconds, 3))}, as_json)
        try:
            _remember(name, resolved.name, seconds, result)
        except OSError as error:  # reading a dataset needs no place to write
            log(f"not noted in stages.jsonl: {error.strerror}")
            return
        if read is not None:
            _leave_receipt(name, resolved, read, result, part)
