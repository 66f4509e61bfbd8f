"""Whether ``records.parquet`` can be true: places, ranges, identities, splits."""

from __future__ import annotations

import numpy as np

from preprocess.archive import parse_record
from preprocess.dataset.check_table import NULL, Records
from preprocess.dataset.inputs import channel_names
from preprocess.dataset.series import fits_channel
from preprocess.dataset.splits import split_of
from preprocess.quality import chain_of, refusal
from preprocess.times import DAY_S, tai_seconds
from sunpipe.errors import DataError
from sunpipe.fitsfile import FitsError
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.schema import RECORD_COLUMNS, DatasetInfo

RANGES: dict[str, tuple[float, float]] = {
    "pixel_cm": (1e6, 1e10), "flux_mx": (0, 1e25), "flux_share": (0, 1 + 1e-9),
    "nan_share": (0, 1), "mu": (-1, 1),
}  # fmt: skip
BATCH = 1 << 15  # rows whose companions are in memory at a time


def check_nulls(records: Records, settings: ShardSettings) -> bool:
    """Report nulls where there must be a value; whether none was found."""
    absent = {"mu"} if settings.is_patch else {"harpnum", "flux_mx"}
    good = True
    for name in RECORD_COLUMNS:
        if name not in absent and (nulls := records.rows.nulls(name)).any():
            records.fault(nulls, f"{name} is null")
            good = False
    return good


def check_places(records: Records, info: DatasetInfo) -> None:
    """Every row at its place, every place with one row, every value in its range."""
    rows, report = records.rows, records.report
    if rows.count != info.counts.get("rows") or (rows.whole("row") != np.arange(rows.count)).any():
        report(f"records.parquet: rows are not 0 .. {info.counts.get('rows')} - 1")
    shard, position = rows.whole("shard"), rows.whole("position")
    order = np.lexsort((position, shard))
    starts = np.flatnonzero(np.diff(shard[order], prepend=-1))
    sizes = np.diff(starts, append=rows.count)
    expected = np.arange(rows.count) - np.repeat(starts, sizes)
    if (position[order] != expected).any():
        report("records.parquet: two rows stand at one place, or a place is empty")
    for key, (low, high) in RANGES.items():
        values = rows.numbers(key)
        wrong = ~((low <= values) & (values <= high) | np.isnan(values))
        records.fault(wrong, lambda n, key=key, values=values, low=low, high=high: (  # type: ignore[misc]
            f"{key} is {values[n]:g}, outside of {low:g} .. {high:g}"))  # fmt: skip


def check_identities(records: Records, settings: ShardSettings) -> None:
    """HARP, time, series and split of every row are those of its record."""
    rows = records.rows
    harps, splits = rows.whole("harpnum"), rows.words("split")
    times, simulated = rows.words("t_rec"), rows.whole("simulated")
    channel = channel_names(settings)[0]
    known: dict[int, str] = {}
    series: set[str] = set()
    for code, row in zip(records.held.tolist(), records.first.tolist(), strict=True):
        try:
            name = parse_record(records.names[code])
            fault = None
            if (NULL if name.harpnum is None else name.harpnum, name.t_rec) != (
                harps[row], times[0][times[1][row]]
            ):  # fmt: skip
                fault = f"HARP {harps[row]} at {times[0][times[1][row]]} is not its record"
            elif not fits_channel(name, channel):
                fault = f"is no record of {settings.product} ({channel})"
            elif bool(simulated[row]) != name.series.startswith("sim."):
                fault = f"simulated is {bool(simulated[row])}, which its series is not"
            else:
                series.add(name.series)
                split = known.get(name.harpnum or 0) or split_of(name, settings)
                if name.harpnum is not None:
                    known[name.harpnum] = split
                if split != (stated := splits[0][splits[1][row]]):
                    fault = f"stands in the {stated} split, its settings say {split}"
        except FitsError as error:
            fault = f"should be left out: {error.detail}"
        except DataError as error:
            fault = str(error)
        if fault:
            records.faults.add("records.parquet: identities that cannot be",
                               f"{records.row(row)}: {fault}")  # fmt: skip
    if len(series) > 1:
        records.report(f"records.parquet: one channel mixes the series {', '.join(sorted(series))}")


def check_splits(records: Records, info: DatasetInfo, settings: ShardSettings) -> None:
    """Splits as counted, and nothing on both sides: no HARP, no companion, no near time."""
    words, codes = records.rows.words("split")
    sizes = dict(zip(words, np.bincount(codes, minlength=len(words)).tolist(), strict=True))
    if set(sizes) - {"train", "test"} or any(
        sizes.get(split, 0) != info.counts.get(split) for split in ("train", "test")
    ):
        records.report(f"records.parquet: splits are {sizes}, dataset.json says {info.counts}")
    if settings.is_patch:
        pairs = np.unique(np.stack([records.rows.whole("harpnum"), codes], axis=1), axis=0)
        harps, sides = np.unique(pairs[:, 0], return_counts=True)
        if both := harps[sides > 1].tolist():
            records.report(f"records.parquet: HARPs {both} stand in the training and in the test"
                           " split")  # fmt: skip
        return
    seconds, owner = _times(records, settings)
    order = np.argsort(seconds, kind="stable")
    apart, side = np.diff(seconds[order]), codes[owner[order]]
    near = (side[1:] != side[:-1]) & ((apart < settings.gap_days * DAY_S) | (apart == 0))
    for place in np.flatnonzero(near).tolist():
        one, other = (records.names[records.of_row[owner[order[place + step]]]] for step in (0, 1))
        records.faults.add(
            "records.parquet: images in the training and in the test split that are too near",
            f"records.parquet: {one} and {other}, or their companions, stand in the training and in"
            f" the test split, {apart[place] / DAY_S:.3f} days apart",
        )


def _times(records: Records, settings: ShardSettings) -> tuple[np.ndarray, np.ndarray]:
    """TAI seconds of all records and companions of all rows, and the row of each.

    On the way companions are held against the channels and ``max_dt_s``.
    """
    rows = records.rows
    others = channel_names(settings)[1:]
    times, which = rows.words("t_rec")
    own = tai_seconds([str(time) for time in times])[which]
    found, owners = [own], [np.arange(rows.count)]
    companions = rows.column("companions") if others else None
    series: dict[str, set[str]] = {}
    for start in range(0, rows.count if others else 0, BATCH):
        assert companions is not None
        when: list[str] = []
        for row, text in enumerate(companions.slice(start, BATCH).to_pylist(), start):
            try:
                names = [parse_record(record) for record in text.split(",")]
            except DataError as error:
                records.faults.add("records.parquet: companions that are no records",
                                   f"{records.row(row)}: companions: {error}")  # fmt: skip
                names = []
            if len(names) != len(others) or not all(map(fits_channel, names, others)):
                records.faults.add("records.parquet: companions of other channels",
                                   f"{records.row(row)}: companions are {text!r}, expected one of"
                                   f" each of {', '.join(others)}")  # fmt: skip
                names = []
            for name, channel in zip(names, others, strict=False):
                series.setdefault(channel, set()).add(name.series)
            owners.append(np.full(len(names), row))
            when += [name.t_rec for name in names]
        found.append(tai_seconds(when))
    seconds, owner = np.concatenate(found), np.concatenate(owners)
    apart = np.zeros(rows.count)
    np.maximum.at(apart, owner, np.abs(seconds - own[owner]))
    records.fault(
        apart > settings.max_dt_s,
        lambda row: (
            f"a companion is {apart[row]:g} s away, at most {settings.max_dt_s:g} s are allowed"
        ),
    )
    for channel, held in series.items():
        if len(held) > 1:
            records.report(f"records.parquet: channel {channel} mixes the series"
                           f" {', '.join(sorted(held))}")  # fmt: skip
    return seconds, owner


def check_quality(records: Records, settings: ShardSettings) -> None:
    """QUALITY of no row is refused by the settings' policy."""
    rows = records.rows
    quality = rows.whole("quality")
    series = np.zeros(rows.count, np.int64)
    names: list[str] = [""]
    if not settings.is_patch:  # the 720 s chain makes all SHARPs; disks are of several
        kinds: dict[str, int] = {}
        numbers = [kinds.setdefault(name.partition("[")[0], len(kinds)) for name in records.names]
        series, names = np.asarray(numbers)[records.of_row], list(kinds)
    pairs, which = np.unique(np.stack([quality, series], axis=1), axis=0, return_inverse=True)
    which = which.reshape(-1)
    for place, (value, number) in enumerate(pairs.tolist()):
        chain = "hmi_720s" if settings.is_patch else chain_of({}, names[number])
        if why := refusal(value, settings.quality, chain):
            records.fault(which == place, why)
