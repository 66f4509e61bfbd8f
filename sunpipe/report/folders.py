"""The runs that a report is asked for: found by name or folder, read, and refused by name."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sunpipe.config import validate_as
from sunpipe.errors import ConfigError, DataError, UsageError
from sunpipe.files import read_json
from sunpipe.paths import Layout
from sunpipe.report.runfolder import RunFolder, read_run
from sunpipe.run import ssl_name, trained_run
from sunpipe.settings import Config

MOST = 6  # runs whose colours can still be told apart
LISTED = 12  # names in a refusal
Kind = Literal["gan", "ssl"]


def kind(run: RunFolder) -> Kind:
    """What was trained: the generator, or the encoder.

    Raises
    ------
    DataError
        Neither.
    """
    if "train" in run.config and "name" in run.config:
        return "gan"
    if run.config.get("kind") == "ssl" and "ssl" in run.config:
        return "ssl"
    raise DataError(f"{run.folder.name}/config.json is not that of sunpipe train or sunpipe ssl")


def layout_of(run: RunFolder) -> Layout:
    """The data root that holds a run, wherever that is."""
    return Layout(run.folder.parent.parent)


def portable(run: RunFolder, text: str) -> str:
    """What a run says of itself, without the data root: a page is sent to others.

    A run that is linked into another root, or reached through a link, tells of its own place.
    """
    root = layout_of(run).root
    roots = {str(each) for each in (root, root.resolve(), run.folder.resolve().parent.parent)}
    for each in sorted(roots, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(each)}/", "", text)
    return text


def base_name(run: RunFolder) -> str:
    """Name of the experiment: of its samples, directions, index and search.

    An encoder's configuration does not hold it, so it is that of the folder; where somebody
    gave that another name, it is spelt as a name may be, and no artefact will be found.
    """
    if kind(run) == "gan":
        return str(run.config["name"])
    label = re.sub(r"^\d+-", "", run.folder.name).removesuffix(ssl_name(""))
    return re.sub(r"[^a-z0-9._-]+", "-", label.lower()).lstrip("-._")[:64] or "encoder"


def dataset(run: RunFolder) -> tuple[str, str]:
    """Name and identity of what a run was trained on.

    Raises
    ------
    DataError
        Its configuration does not say.
    """
    data = run.config.get("data")
    if not isinstance(data, dict):
        raise DataError(f"{run.folder.name}/config.json does not name its dataset")
    try:
        if kind(run) == "gan":
            return str(data["dataset"]), str(data["dataset_id"])
        return str(data["name"]), str(data["id"])
    except KeyError:
        raise DataError(f"{run.folder.name}/config.json does not name its dataset") from None


def config_of(run: RunFolder) -> Config:
    """The experiment's configuration as far as its artefacts tell: no TOML is needed.

    Raises
    ------
    DataError
        The run's ``config.json`` holds what no configuration may hold.
    """
    name, layout = base_name(run), layout_of(run)
    found: dict[str, Any] = {"name": name, "dataset": dataset(run)[0],
                             "report": {"title": run.folder.name}}  # fmt: skip
    if isinstance(seed := run.config.get("seed"), int):
        found["seed"] = seed
    index = layout.index(name) / "index.json"
    try:
        if index.exists():  # how the encoder was used decides its digest
            found["embed"] = {"orbit": bool(read_json(index)["encoder"]["orbit"])}
    except (DataError, KeyError, TypeError):
        found.pop("embed", None)  # a damaged index is named in its own section
    try:
        return validate_as(Config, found, f"{run.folder.name}/config.json")
    except ConfigError as error:
        raise DataError(str(error)) from None


def existing(layout: Layout) -> list[str]:
    """Names of the run folders, oldest first."""
    return sorted(path.parent.name for path in layout.runs.glob("*/config.json"))


def _folder(layout: Layout, asked: str) -> Path:
    """The folder of a run given by folder, folder name, number or experiment."""
    if not asked or "\0" in asked:
        raise UsageError("a run needs a name: give a folder, such as runs/00000-name")
    given = Path(asked)
    whole = (given / "config.json").is_file()
    if given.is_dir() and (whole or given.name != asked):
        if not whole:
            raise UsageError(f"{asked} is not the folder of a run: it has no config.json")
        here = Path(os.path.abspath(given))  # a link among the runs of a data root belongs to it
        return here if here.parent.name == "runs" else given.resolve()
    if given.name == asked:  # a folder without a run in it does not hide a name
        if (layout.runs / asked / "config.json").is_file():
            return layout.runs / asked
        numbered = [name for name in existing(layout)
                    if re.fullmatch(rf"0*{re.escape(asked.lstrip('0') or '0')}-.*", name)
                    and asked.isdecimal()]  # fmt: skip
        if len(numbered) == 1:
            return layout.runs / numbered[0]
        if (newest := trained_run(layout, asked)) is not None:
            return newest
    names = existing(layout)
    if not names:
        raise UsageError(f"no run {asked!r}: there is none under {layout.runs} yet;"
                         " run sunpipe train")  # fmt: skip
    more = f" and {len(names) - LISTED} older ones" if len(names) > LISTED else ""
    raise UsageError(f"no run {asked!r}; there are {', '.join(names[-LISTED:])}{more}")


def _checked(run: RunFolder) -> RunFolder:
    """The same run, once its ticks are numbers in order."""
    rows, name = run.stats, run.folder.name
    for number, row in enumerate(rows, 1):
        whole = isinstance(row, dict) and isinstance(row.get("nimg"), int)
        kimg = row.get("kimg") if whole else None
        if not isinstance(kimg, int | float) or not math.isfinite(kimg):
            raise DataError(f"{name}/stats.jsonl:{number} is not a tick")
    if not rows:
        raise DataError(
            f"{name} has no tick yet: nothing can be shown of it before its first status line"
            " (sunpipe status tells what it does)"
        )
    return run


def _ends(paths: Sequence[Sequence[str]]) -> list[str]:
    """As many parts from the end of each path as tell it from every other."""
    found = []
    for place, own in enumerate(paths):
        others, depth = [*paths[:place], *paths[place + 1 :]], 1
        while depth < len(own) and any(path[-depth:] == own[-depth:] for path in others):
            depth += 1
        found.append(str(Path(*own[-depth:])))
    return found


def labels(folders: Sequence[Path]) -> list[str]:
    """What tells runs apart: folder names, with as much of their data roots as that takes.

    Parameters
    ----------
    folders : sequence of Path
        Absolute, no two the same.

    Returns
    -------
    list of str
        No two the same; with the folder ``runs`` in them only where nothing else differs.
    """
    short = _ends([[part for part in folder.parts if part != "runs"] for folder in folders])
    return short if len(set(short)) == len(short) else _ends([each.parts for each in folders])


def resolve(layout: Layout, asked: Sequence[str]) -> list[RunFolder]:
    """Read the runs that were asked for, in that order.

    Parameters
    ----------
    layout : Layout
        Where names are looked up.
    asked : sequence of str
        Each the folder of a run, its name (``00003-demo``), its number, or the name of an
        experiment (its newest run with a checkpoint).

    Raises
    ------
    UsageError
        No such run (the existing ones are named), one named twice, too many, or runs of
        generators and encoders together.
    DataError
        A run that cannot be read, or without a tick.
    """
    if len(asked) > MOST:
        raise UsageError(f"{len(asked)} runs: more than {MOST} lines cannot be told apart; choose")
    folders = [_folder(layout, name) for name in asked]
    for place, folder in enumerate(folders):
        if folder.resolve() in [each.resolve() for each in folders[:place]]:
            raise UsageError(f"{folder.name} is named twice")
    runs = []
    for folder, label in zip(folders, labels(folders), strict=True):
        try:
            runs.append(replace(_checked(read_run(folder)), label=label))
        except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{folder.name} cannot be read: {error}") from None
    kinds: dict[Kind, list[str]] = {}
    for run in runs:
        kinds.setdefault(kind(run), []).append(run.folder.name)
        dataset(run)
    if len(kinds) > 1:
        raise UsageError(
            f"generators ({', '.join(kinds['gan'])}) and encoders ({', '.join(kinds['ssl'])})"
            " have no curve in common; compare each kind apart: sunpipe report "
            + " ".join(kinds["gan"]) + ", and sunpipe report " + " ".join(kinds["ssl"])
        )  # fmt: skip
    return runs
