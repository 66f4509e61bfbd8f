"""``sunpipe shard``: FITS to HDF5; any number of ranks gives the same bytes."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from preprocess.comm import communicator
from preprocess.dataset.build import Builder
from preprocess.dataset.groups import Candidate, Fault, Group, candidates_of, split_candidates
from preprocess.dataset.inputs import Input
from preprocess.dataset.state import (
    Standing,
    damaged_files,
    digests_of,
    mended,
    plan_lines,
    read_inputs,
    standing,
)
from preprocess.manifest import NAME as MANIFEST
from sunpipe.errors import DataError
from sunpipe.lock import exclusive
from sunpipe.settings import Config
from sunpipe.shards.schema import TABLES, DatasetInfo, read_info
from sunpipe.stage import Result, log


def shard(config: Config, fresh: bool = False) -> Result | None:
    """Make or extend the dataset; None on ranks other than 0.

    Parameters
    ----------
    fresh : bool
        Make it anew even where it could be extended: then its bytes are those that
        the archive gives in one go.
    """
    comm = communicator()
    builder = Builder(config, comm)
    with ExitStack() as held:
        lock = builder.folder.with_name(f".lock-{config.dataset}")
        comm.root(lambda: held.enter_context(exclusive(lock, f"making {builder.folder}")))
        return _shard(builder, time.perf_counter(), fresh)


def _judge(builder: Builder, fresh: bool) -> tuple[list[Input], dict[str, str], Standing]:
    """What the archive holds, and what of the published dataset can stay."""
    inputs = read_inputs(builder.archive, builder.settings)
    digests = digests_of(builder.archive, inputs, builder.product)
    if fresh:
        return inputs, digests, Standing("asked for with --fresh", [])
    found = standing(
        builder.folder, builder.archive, inputs, digests, builder.product, builder.settings
    )
    return inputs, digests, found


def _shard(builder: Builder, started: float, fresh: bool) -> Result | None:
    comm, folder = builder.comm, builder.folder
    inputs, digests, found = comm.root(lambda: _judge(builder, fresh))
    if not fresh and folder.is_dir() and (folder / "dataset.json").is_file():
        if damaged := damaged_files(folder, comm):
            found = comm.root(lambda: mended(found, folder, damaged))
        elif found.why is None:
            if comm.rank:
                return None
            log(f"{folder} is up to date")
            return _result(read_info(folder), folder, started, kept=0, up_to_date=True)
    if comm.rank == 0:
        log(f"making {folder} from {len(inputs)} records: {found.why}")
    comm.root(builder.prepare)
    groups, faults = _plan(builder, inputs, found)
    resumed = builder.write_groups(groups, inputs, digests, faults)
    stay = sum(group.keep for group in groups)
    info = comm.root(lambda: builder.publish(groups, digests, read_info(folder) if stay else None))
    if comm.rank:
        return None
    if resumed:
        log(f"{resumed} of {len(groups) - stay} shards were finished by an earlier run")
    _say(info, builder, folder)
    return _result(info, folder, started, kept=stay, up_to_date=False)


def _plan(
    builder: Builder, inputs: list[Input], found: Standing
) -> tuple[list[Group], dict[str, Fault]]:
    """All groups: those carried over, and new ones for what is new; ranks share the peeking."""
    new = [item for item in inputs if found.fresh is None or item.record in found.fresh]
    comm = builder.comm

    def peek() -> dict[int, tuple[list[Candidate], dict[str, Fault]]]:
        def places(item: Input) -> Any:
            return builder.product.places(builder.archive, item)

        return {n: candidates_of([new[n]], places) for n in comm.share(len(new))}

    by_place = {n: one for share in comm.all(peek) for n, one in share.items()}
    candidates = [one for n in range(len(new)) for one in by_place[n][0]]
    faults = {record: why for _, some in by_place.values() for record, why in some.items()}
    fresh = split_candidates(candidates, builder.settings.images_per_shard, found.next_number)
    known = {record for group in found.groups for record, _ in group.candidates}
    for item in inputs:  # carried over, refused then and now
        if item.record in known and item.refused is not None:
            faults[item.record] = item.refused
    return [*found.groups, *fresh], faults


def _say(info: DatasetInfo, builder: Builder, folder: Path) -> None:
    """What a user may not expect of the split or of the canvas."""
    table = pq.read_table(folder / TABLES[0], columns=["harpnum", "flux_share"])
    held = set(table["harpnum"].to_pylist())
    settings = builder.settings
    if absent := sorted(set(settings.test_harps) - held):
        log(f"shard.test_harps: no tile of HARP {', '.join(map(str, absent))} is in the dataset")
    if not info.counts["train"]:
        log("every record is held out; there is nothing to train on")
    if settings.is_patch and settings.stride == 0:
        shares = table["flux_share"].to_pylist()
        if cropped := sum(share < 0.99 for share in shares):
            log(f"{cropped} of {len(shares)} patches lose more than 1 % of their flux at the edge"
                f" of the canvas of {settings.tile} pixels; the least keeps {min(shares):.2f}"
                " (column flux_share)")  # fmt: skip


def _result(info: DatasetInfo, folder: Path, started: float, kept: int, up_to_date: bool) -> Result:
    reasons = Counter(pq.read_table(folder / TABLES[1], columns=["reason"])["reason"].to_pylist())
    return {
        "dataset": str(folder),
        **info.counts,
        "shards": len(info.shards),
        "kept": kept,
        "by_reason": dict(sorted(reasons.items())),
        "up_to_date": up_to_date,
        "seconds": round(time.perf_counter() - started, 3),
    }


def plan(config: Config, fresh: bool = False) -> dict[str, Any]:
    """What `shard` would do."""
    from preprocess.comm import Communicator
    from preprocess.dataset.inputs import list_inputs
    from preprocess.manifest import read_manifest

    builder = Builder(config, Communicator())
    inputs = list_inputs(read_manifest(builder.archive), config.shard)
    about = {
        "archive": str(builder.archive / MANIFEST),
        "records": len(inputs),
        "dataset": str(builder.folder),
    }
    if not inputs:
        return {**about, "because": "the archive holds nothing for it yet"}
    try:
        _, _, found = _judge(builder, fresh)
    except DataError as error:
        return {**about, "because": str(error)}
    groups, _ = _plan(builder, inputs, found) if found.why else ([], {})
    return {**about, "because": found.why, **plan_lines(groups)}
