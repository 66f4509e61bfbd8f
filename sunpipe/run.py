"""Run folders (contract C6): one per training, found again by name."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sunpipe.checkpoint import complete
from sunpipe.config import changed_keys
from sunpipe.errors import DataError
from sunpipe.files import TEMPORARY_PREFIX, atomic_folder, read_json, write_json, write_text
from sunpipe.paths import Layout
from sunpipe.provenance import command_line, now, provenance

SCHEMA = 1


def find_run(layout: Layout, name: str) -> Path | None:
    """Newest run folder ``<NNNNN>-<name>``, or None."""
    if not layout.runs.is_dir():
        return None
    pattern = re.compile(r"\d{5}-" + re.escape(name))
    found = sorted(path for path in layout.runs.iterdir() if pattern.fullmatch(path.name))
    return found[-1] if found else None


def trained_run(layout: Layout, name: str) -> Path | None:
    """Newest run of that name with a complete checkpoint, else the newest, else None.

    A start that failed leaves a folder without one; it must not hide an older run.
    """
    pattern = re.compile(r"\d{5}-" + re.escape(name))
    found = [folder.parent for folder in layout.runs.glob("*/checkpoints")
             if pattern.fullmatch(folder.parent.name) and complete(folder)]  # fmt: skip
    return max(found, default=find_run(layout, name))


def network_identity(config: dict[str, Any]) -> dict[str, Any]:
    """What of a StyleGAN2 run's ``config.json`` a checkpoint must agree with to be loaded."""
    train, data = config["train"], config["data"]
    return {
        "seed": config["seed"],
        "train": {"model": train["model"], "normalize": train["normalize"]},
        "data": {key: data[key] for key in ("dataset_id", "channels", "resolution")},
    }


def ssl_name(name: str) -> str:
    """Label of the encoder's run, beside the generator's of the same experiment."""
    return f"{name}-ssl"


def require_run(layout: Layout, name: str, hint: str) -> Path:
    """Newest run of that name with a checkpoint; a `DataError` saying how to make one otherwise."""
    folder = trained_run(layout, name)
    if folder is None:
        raise DataError(f"no run called {name!r} under {layout.runs}; {hint}")
    return folder


def _create(layout: Layout, name: str, config: dict[str, Any]) -> Path:
    layout.runs.mkdir(parents=True, exist_ok=True)
    taken = [int(match[1]) for path in layout.runs.iterdir()
             if (match := re.match(r"(\d{5})-", path.name))]  # fmt: skip
    folder = layout.runs / f"{max(taken, default=-1) + 1:05d}-{name}"
    with atomic_folder(folder) as temporary:
        write_json(temporary / "config.json", {"schema": SCHEMA, **config})
        write_json(temporary / "provenance.json", provenance())
        (temporary / "checkpoints").mkdir()
        (temporary / "images").mkdir()
    return folder


def _writable(folder: Path) -> None:
    """Refuse a run that could not be written, before hours of work: by writing to it.

    Raises
    ------
    DataError
        Names the folder.
    """
    for path in (folder, folder / "checkpoints", folder / "images"):
        try:
            path.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path, prefix=TEMPORARY_PREFIX) as probe:
                probe.write(b"x")
                probe.flush()
        except OSError as error:
            raise DataError(
                f"{path} cannot be written ({error.strerror}), no checkpoint could be saved;"
                " give yourself the right to, make room, or start another run with --new"
            ) from None


@dataclass
class Run:
    """One run folder, open for writing. Only rank 0 holds one.

    Attributes
    ----------
    facts : dict
        Stands in ``status.json`` whatever the state, see `sunpipe.train.record`.
    latest_before : tuple of str and int
        What ``checkpoints/latest`` said when this start began, and its time in ns.
    """

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    latest_before: tuple[str, int] = ("", 0)

    @classmethod
    def open(
        cls, layout: Layout, name: str, config: dict[str, Any], free: frozenset[str], new: bool
    ) -> Run:
        """Continue the newest run of this name, or create one.

        Parameters
        ----------
        config : dict
            What decides the run's outcome; compared with the stored one.
        free : frozenset of str
            Dotted keys that may change between invocations.
        new : bool
            Start a new run folder even if one exists.

        Raises
        ------
        DataError
            A key that matters changed: it is named.
        """
        folder = None if new else find_run(layout, name)
        if folder is None:
            return cls(_create(layout, name, config))
        _writable(folder)
        stored = read_json(folder / "config.json")
        stored.pop("schema", None)
        changed = changed_keys(stored, json.loads(json.dumps(config)))
        fixed = [key for key in changed if key not in free]
        if fixed:
            raise DataError(
                f"{folder.name} was made with another {', '.join(fixed)}; restore the old value,"
                " or start a new run with --new"
            )
        run = cls(folder)
        note = f" with another {', '.join(changed)}" if changed else ""
        run.log(f"continued {now()}{note}: {shlex.join(command_line())}")
        return run

    def log(self, line: str) -> None:
        """Append one line to ``log.txt`` and print it on stderr.

        A stderr that is gone (its terminal or ``tee`` was closed, the disk of the job's log
        is full) ends no training: the file has every line.
        """
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)
        with open(self.folder / "log.txt", "a", encoding="utf-8") as handle:
            handle.write(line + "\n")

    def stats(self, row: dict[str, Any], name: str = "stats") -> None:
        """Append one JSON line to ``<name>.jsonl``."""
        line = json.dumps({**row, "time": time.time()})
        with open(self.folder / f"{name}.jsonl", "a", encoding="utf-8") as handle:
            handle.write(line + "\n")

    def rewind_stats(self, nimg: int) -> None:
        """Drop rows of stats and metrics beyond `nimg`: a resume writes them again."""
        for path in (self.folder / "stats.jsonl", *self.folder.glob("metric-*.jsonl")):
            if path.exists():
                kept = [row for row in read_stats(self.folder, path.stem) if row["nimg"] <= nimg]
                write_text(path, "".join(json.dumps(row) + "\n" for row in kept))

    def status(self, state: str, **more: Any) -> None:
        """Replace ``status.json``: running, done, stopped or failed.

        `nimg` and `target` (images shown, and to be shown) stand there until they are
        told anew; everything else in `more` is of this state only.
        """
        self.facts.update({key: more[key] for key in ("nimg", "target") if key in more})
        told = {"schema": SCHEMA, "state": state, "time": now(), **self.facts, **more}
        write_json(self.folder / "status.json", told)


def read_stats(folder: Path, name: str = "stats") -> list[dict[str, Any]]:
    """Rows of a run's ``<name>.jsonl``; a torn last line (killed writer) is left out.

    A `DataError` names any other line that is no row.
    """
    path = folder / f"{name}.jsonl"
    if not path.exists():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            if number < len(lines):
                raise DataError(f"{path}:{number} is not valid JSON") from None
            continue
        if not isinstance(row, dict) or type(row.get("nimg")) is not int:
            raise DataError(f"{path}:{number} is not a tick of a training: it lacks nimg")
        rows.append(row)
    return rows
