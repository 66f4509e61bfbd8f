"""Receipts: from what a stage was made, so that it need not be started to know that it is done.

A stage that ended well leaves ``receipts/<stage>-<name>.json``: the settings it
read, what it found of the stages that it reads, and what it left. It is done as
long as none of the three has changed. Whatever is unsure counts as not done,
because every stage that is started again looks at its own work first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sunpipe
from sunpipe.config import changed_keys, to_dict
from sunpipe.errors import DataError
from sunpipe.files import digest, read_json, sha256, write_json
from sunpipe.made import made_by
from sunpipe.parts import parse_part
from sunpipe.paths import Layout
from sunpipe.provenance import now
from sunpipe.settings import Config

SCHEMA = 1
HASHED = 64 << 20  # bytes; a larger file is known by its size and time
HIDDEN_KEYS = {"fetch": ("email",)}  # receipts are shared, and who asks changes nothing
NONE = "it has no receipt yet: not finished, or made without one"
Prints = dict[str, str]


@dataclass(frozen=True)
class Kind:
    """What a stage reads.

    Attributes
    ----------
    sections : tuple of str
        Sections and keys of the configuration.
    reads : tuple of str
        Stages whose artefacts it opens.
    """

    sections: tuple[str, ...]
    reads: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "fetch": Kind(("query", "fetch")),
    "shard": Kind(("dataset", "seed", "shard"), ("fetch",)),
    "train": Kind(("dataset", "seed", "train"), ("shard",)),
    "sample": Kind(("seed", "sample"), ("train",)),
    "directions": Kind(("seed", "sample", "directions"), ("train", "sample")),
    "ssl": Kind(("dataset", "seed", "ssl"), ("shard",)),
    "embed": Kind(("dataset", "embed"), ("shard", "ssl")),
    "index": Kind(("index",), ("embed",)),
    "search": Kind(("seed", "sample", "search"), ("train", "sample", "ssl", "index")),
    "report": Kind(
        ("dataset", "seed", "query", "fetch", "shard", "train", "sample", "directions", "invert",
         "ssl", "embed", "index", "search", "retrieval", "report"),
        ("fetch", "shard", "train", "sample", "directions", "ssl", "embed", "index", "search"),
    ),
}  # fmt: skip


def path_of(layout: Layout, stage: str, cfg: Config, part: tuple[int, int] | None = None) -> Path:
    """Receipt of a stage, or of part I of N; shards belong to a dataset, all else to a name."""
    name = cfg.dataset if stage == "shard" else cfg.name
    tail = f".part-{part[0]}-of-{part[1]}" if part else ""
    return layout.root / "receipts" / f"{stage}-{name}{tail}.json"


def settings_of(stage: str, cfg: Config) -> dict[str, Any]:
    """The part of a configuration that `stage` reads."""
    whole = to_dict(cfg)
    return {
        section: {key: value for key, value in whole[section].items()
                  if key not in HIDDEN_KEYS.get(section, ())}
        if isinstance(whole[section], dict) else whole[section]
        for section in KINDS[stage].sections
    }  # fmt: skip


def fingerprint(path: Path, hashed: bool) -> str:
    """Identity of a file: its SHA-256, or its size and time; or why there is none."""
    try:
        state = os.stat(path)
        if hashed and state.st_size <= HASHED:
            return sha256(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable ({error.strerror})"
    return f"{state.st_size} bytes, {state.st_mtime_ns} ns"


def prints(stage: str, cfg: Config, layout: Layout, main_only: bool = False) -> Prints:
    """Fingerprints of what a stage left, by path under the data root; the main file is hashed."""
    paths = made_by(stage, cfg, layout)
    return {
        str(path.relative_to(layout.root)): fingerprint(path, hashed=not place)
        for place, path in enumerate(paths[:1] if main_only else paths)
    }


def found(stage: str, cfg: Config, layout: Layout) -> Prints:
    """Identities of what a stage is about to read. The report reads also what was run when."""
    seen = {
        other: digest(prints(other, cfg, layout, main_only=True)) for other in KINDS[stage].reads
    }
    if stage == "report":
        seen["stages.jsonl"] = _history(layout)
    return seen


def _history(layout: Layout) -> str:
    """Identity of all that was run, reports left out."""
    path = layout.root / "stages.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable ({error.strerror})"
    return digest([line for line in lines if '"stage": "report"' not in line])


def is_whole(stage: str, result: Mapping[str, Any], part: tuple[int, int] | None) -> bool:
    """Whether a result is that of the whole stage, with nothing left for another time."""
    if stage == "fetch":
        left = any(result.get(state) for state in ("wanted", "staged", "failed"))
        return not left and part is None
    if stage in ("train", "ssl"):
        return result.get("state") == "done"
    return bool(result.get("complete", True)) and "parts_left" not in result


def write(
    stage: str, cfg: Config, layout: Layout, read: Prints, result: Mapping[str, Any],
    part: str | None = None,
) -> None:  # fmt: skip
    """Leave the receipt of a stage, or of a part of it.

    Parameters
    ----------
    read : dict
        From `found`, before the work began.
    result : mapping
        What the stage returned, JSON-able.
    part : str, optional
        ``I/N``. The receipts of parts go once the stage is whole.
    """
    share = parse_part(part) if part else None
    note = {"schema": SCHEMA, "stage": stage, "version": sunpipe.__version__, "time": now(),
            "settings": settings_of(stage, cfg), "read": read}  # fmt: skip
    whole = is_whole(stage, result, share)
    if share and not whole:
        if stage == "fetch" and not is_whole(stage, result, None):
            return
        write_json(path_of(layout, stage, cfg, share), note)
        # fetched parts publish nothing together: the last of them makes the whole
        whole = stage == "fetch" and len(done_parts(stage, cfg, layout, share[1])) == share[1]
    if not whole:
        return
    target = path_of(layout, stage, cfg)
    write_json(target, {**note, "made": prints(stage, cfg, layout), "result": dict(result)})
    for old in target.parent.glob(f"{target.stem}.part-*-of-*.json"):
        old.unlink(missing_ok=True)


def _stored(path: Path) -> dict[str, Any] | str:
    """A receipt, or why there is none."""
    try:
        stored = read_json(path)
    except DataError:
        return "its receipt is torn" if path.exists() else NONE
    except OSError as error:
        return f"its receipt cannot be read ({error.strerror})"
    kinds = {"settings": dict, "read": dict, "version": str}
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA or not all(
        isinstance(stored.get(key), kind) for key, kind in kinds.items()
    ):  # fmt: skip
        return "its receipt is of another version of sunpipe"
    return stored


def _outdated(stage: str, cfg: Config, note: Mapping[str, Any], there: Prints) -> str:
    """What has changed of what the stage reads, `there` being what it would find; else empty."""
    if note["version"] != sunpipe.__version__:
        return f"made by sunpipe {note['version']}, this is {sunpipe.__version__}"
    if changed := changed_keys(note["settings"], settings_of(stage, cfg)):
        return _several(changed) + " changed"
    other = [key for key in there if note["read"].get(key) != there[key]]
    if other == ["stages.jsonl"]:
        return "other stages were run since"
    return f"{_several([key for key in other if key in KINDS])} was made again" if other else ""


def why_run(stage: str, cfg: Config, layout: Layout) -> str:
    """Why a stage has to be started; empty if it is done.

    Examples
    --------
    ``shard.stride changed``, ``sample was made again``, ``index/a/index.json is missing``.
    """
    stored = _stored(path_of(layout, stage, cfg))
    if stored == NONE and not made_by(stage, cfg, layout)[0].exists():
        return "not made yet"
    if isinstance(stored, str):
        return stored
    made = stored.get("made")
    if not isinstance(made, dict):
        return "its receipt is of another version of sunpipe"
    if why := _outdated(stage, cfg, stored, found(stage, cfg, layout)):
        return why
    there = prints(stage, cfg, layout)
    for path, state in there.items():
        if state.startswith(("missing", "unreadable")):
            return f"{path} is {state}"
        if made.get(path) != state:
            return f"{path} {'changed' if path in made else 'is new'}"
    return next((f"{path} is gone" for path in made if path not in there), "")


def done_parts(stage: str, cfg: Config, layout: Layout, count: int) -> set[int]:
    """Those of `count` parts that ended well, from what is there now."""
    done, there = set(), found(stage, cfg, layout)
    for number in range(1, count + 1):
        stored = _stored(path_of(layout, stage, cfg, (number, count)))
        if isinstance(stored, dict) and not _outdated(stage, cfg, stored, there):
            done.add(number)
    return done


def stored_settings(stage: str, cfg: Config, layout: Layout) -> dict[str, Any]:
    """The settings with which the stage was done; empty without a receipt."""
    stored = _stored(path_of(layout, stage, cfg))
    return stored["settings"] if isinstance(stored, dict) else {}


def stored_result(stage: str, cfg: Config, layout: Layout) -> dict[str, Any]:
    """What the stage returned when it was done."""
    stored = _stored(path_of(layout, stage, cfg))
    result = stored.get("result") if isinstance(stored, dict) else None
    return result if isinstance(result, dict) else {}


def _several(names: Iterable[str]) -> str:
    """Up to three names, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more
