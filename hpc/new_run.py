"""Which trainings need ``--new``: their run was made with what may not change in a run.

A run refuses to go on with other settings, or another dataset. That refusal belongs before
anything is queued or replaced, and not hours later in a job that others wait for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc.decide import Decision
from sunpipe import receipts
from sunpipe.config import changed_keys, to_dict
from sunpipe.errors import DataError
from sunpipe.files import read_json, sha256
from sunpipe.paths import Layout
from sunpipe.run import find_run, ssl_name
from sunpipe.settings import Config
from sunpipe.shards.schema import dataset_id, read_info

DATA_KEYS = {"train": ("dataset", "dataset_id"), "ssl": ("name", "id")}  # in ``config.json``


def free_keys(stage: str) -> frozenset[str]:
    """Dotted keys that may change between a run and its continuation."""
    if stage == "train":
        from sunpipe.train.begin import FREE_KEYS

        return FREE_KEYS
    from sunpipe.train.ssl_begin import FREE

    return FREE


def wanted(stage: str, cfg: Config, layout: Layout) -> dict[str, Any]:
    """What a run of today is made with, as far as it is known before the run."""
    try:
        identity = dataset_id(read_info(layout.shards(cfg.dataset)))
    except (DataError, OSError):  # not made yet, or the stage itself says what is wrong
        identity = None
    name_key, id_key = DATA_KEYS[stage]
    data = {name_key: cfg.dataset, **({id_key: identity} if identity else {})}
    settings = to_dict(getattr(cfg, stage))
    if stage == "ssl" and cfg.ssl.weights is not None:
        try:
            settings["weights"] = f"sha256:{sha256(Path(cfg.ssl.weights))}"
        except OSError as error:
            raise DataError(f"ssl.weights: {error}") from None
    return {"seed": cfg.seed, stage: settings, "data": data}


def _asks_for_others(cfg: Config, layout: Layout) -> str:
    """By which key fetch asks for other records than it did; its other settings only say how."""
    before = receipts.stored_settings("fetch", cfg, layout)
    if before.get("fetch", {}).get("source", cfg.fetch.source) != cfg.fetch.source:
        return "fetch.source"
    now = to_dict(cfg.query)["requests"]
    others = _records(before.get("query", {}).get("requests", now)) != _records(now)
    return "query.requests" if cfg.fetch.source == "jsoc" and others else ""


def _records(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Requests without `max_records`, which refuses and chooses nothing."""
    return [{key: value for key, value in one.items() if key != "max_records"} for one in requests]


def _will_change(cfg: Config, layout: Layout, made: Mapping[str, Decision]) -> list[str]:
    """Why the dataset that is there will be another once the stages in `made` have ended.

    Certain reasons only: a dataset that is made again of the same files with the same
    settings is the same, and a run goes on with it.
    """
    if "shard" not in made or not made["shard"].run:
        return []
    try:
        info = read_info(layout.shards(cfg.dataset))
    except (DataError, OSError):
        return []
    if changed := changed_keys(info.settings, to_dict(cfg.shard)):
        return [f"shard.{key}" for key in changed]
    if "fetch" in made and made["fetch"].run:
        return [key] if (key := _asks_for_others(cfg, layout)) else []
    from preprocess.comm import Communicator
    from preprocess.dataset.build import Builder
    from preprocess.dataset.state import digests_of, read_inputs, standing

    try:
        builder = Builder(cfg, Communicator())
        archive, product = builder.archive, builder.product
        inputs = read_inputs(archive, cfg.shard)
        digests = digests_of(archive, inputs, product)
        why = standing(builder.folder, archive, inputs, digests, product, cfg.shard).why
    except DataError:  # shard itself says it, and replaces nothing
        return []
    return [f"dataset ({why})"] if why else []


def needs_new(
    stage: str, cfg: Config, layout: Layout, made: Mapping[str, Decision] | None = None
) -> str:
    """Why the newest run of a training would refuse to go on; empty if it would not.

    Parameters
    ----------
    stage : str
        Stages other than ``train`` and ``ssl`` have no runs.
    made : mapping, optional
        What is started before it, from `hpc.decide.decide`.

    Returns
    -------
    str
        For example ``00000-tiny was made with another train.lr_g``.
    """
    if stage not in DATA_KEYS:
        return ""
    run = find_run(layout, cfg.name if stage == "train" else ssl_name(cfg.name))
    if run is None:
        return ""
    stored, today = read_json(run / "config.json"), wanted(stage, cfg, layout)
    known = {key: stored.get(key) for key in today}
    if isinstance(known["data"], dict):
        known["data"] = {key: known["data"].get(key) for key in today["data"]}
    changed = changed_keys(known, today)
    if changed:
        free = free_keys(stage)  # brings torch along: only where something has changed
        changed = [key for key in changed if key not in free]
    changed += _will_change(cfg, layout, made or {})
    return f"{run.name} was made with another {', '.join(changed)}" if changed else ""


def all_that_need_new(
    made: Mapping[str, Decision], cfg: Config, layout: Layout
) -> dict[str, str]:  # fmt: skip
    """`needs_new` of those stages that are started and need it."""
    found = {name: needs_new(name, cfg, layout, made) for name, one in made.items() if one.run}
    return {name: why for name, why in found.items() if why}


def refuse(found: Mapping[str, str], option: str = "--new", hint: str = "") -> None:
    """Refuse what would be refused later.

    Parameters
    ----------
    found : mapping
        Stages and why their runs would refuse.
    option : str
        What begins another run.
    hint : str
        What else its user should know.

    Raises
    ------
    DataError
        Unless there is nothing.
    """
    if found:
        listed = "; ".join(f"{stage}: {why}" for stage, why in found.items())
        raise DataError(
            f"{listed}; restore the old values, or begin another run with {option}{hint}"
        )
