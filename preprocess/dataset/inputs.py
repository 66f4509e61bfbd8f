"""What a dataset is made of: the records of the archive, grouped and judged before any is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.archive import KEYWORDS, RecordName, parse_record
from preprocess.dataset.series import FIELD, choose_all
from preprocess.manifest import Entry, Manifest
from preprocess.times import tai_seconds
from sunpipe.errors import DataError
from sunpipe.files import digest, sha256
from sunpipe.fitsfile import FitsError
from sunpipe.shard_settings import ShardSettings
from sunpipe.sidecar import read_sidecar


@dataclass(frozen=True)
class Member:
    """One record and its files.

    Attributes
    ----------
    record : str
        JSOC record-set string.
    name : RecordName
    entries : dict
        Segment name to manifest entry, `KEYWORDS` included.
    """

    record: str
    name: RecordName
    entries: dict[str, Entry]


@dataclass(frozen=True)
class Input:
    """What one image, or the tiles of one patch, are made of.

    Attributes
    ----------
    members : tuple of Member
        One record, or one per channel; the first gives the identity.
    refused : (reason, detail) or None
        Why it cannot be used, where the manifest alone tells.
    """

    members: tuple[Member, ...]
    refused: tuple[str, str] | None = None

    @property
    def record(self) -> str:
        """Record-set string of the first member."""
        return self.members[0].record

    @property
    def name(self) -> RecordName:
        """Its parts."""
        return self.members[0].name


def _members(manifest: Manifest) -> list[Member]:
    """All records of the manifest by HARP, time, series and number."""
    records: dict[str, dict[str, Entry]] = {}
    for (record, segment), entry in manifest.items():
        records.setdefault(record, {})[segment] = entry
    found = [Member(record, parse_record(record), held) for record, held in records.items()]
    return sorted(found, key=lambda member: member.name.order)


def _first_of_each(members: list[Member]) -> list[Input]:
    """One input per HARP, time and wavelength; further cameras of HMI are refused as duplicates."""
    first: dict[tuple[Any, ...], Member] = {}
    inputs = []
    for member in members:
        name = member.name
        wavelength = name.number if name.series.startswith("aia.") else None
        best = first.setdefault((name.harpnum, name.t_rec, wavelength), member)
        refused = None if best is member else ("duplicate", f"the same as {best.record}")
        inputs.append(Input((member,), refused))
    return inputs


def _nearest(times: np.ndarray, wanted: float) -> int | None:
    """Place of the nearest of the rising `times`."""
    if not len(times):
        return None
    after = int(np.searchsorted(times, wanted))
    near = [place for place in (after - 1, after) if 0 <= place < len(times)]
    return min(near, key=lambda place: abs(times[place] - wanted))


def _matched(channels: dict[str, list[Member]], max_dt_s: float) -> list[Input]:
    """Sets of one record per channel that belong to one time.

    Parameters
    ----------
    channels : dict
        Name to the records of a channel; times are those of the first.
    max_dt_s : float
        Farthest that a companion may be.
    """
    clocks = {}
    for name, held in channels.items():
        seconds = tai_seconds([member.name.t_rec for member in held])
        order = np.argsort(seconds, kind="stable")
        channels[name] = [held[place] for place in order]
        clocks[name] = seconds[order]
    inputs, used = [], set()
    first, *others = channels
    for member, when in zip(channels[first], clocks[first], strict=True):
        chosen, absent = [member], []
        for name in others:
            place = _nearest(clocks[name], when)
            if place is None or abs(clocks[name][place] - when) > max_dt_s:
                absent.append(name)
            else:
                chosen.append(channels[name][place])
        if absent:
            why = f"no {', '.join(absent)} within {max_dt_s:g} s"
            inputs.append(Input((member,), ("unmatched", why)))
        else:
            inputs.append(Input(tuple(chosen)))
            used |= {one.record for one in chosen}
    alone = [m for name in others for m in channels[name] if m.record not in used]
    why = f"stands in no whole set within {max_dt_s:g} s of {first}"
    return inputs + [Input((member,), ("unmatched", why)) for member in alone]


def channel_names(settings: ShardSettings) -> list[str]:
    """Names of what stands for one record each: the patch, or the channels of a disk."""
    if settings.is_patch:
        return ["patch"]
    if settings.product == "hmi_fulldisk":
        return [FIELD]
    return [str(wave) for wave in settings.wavelengths] + [FIELD] * settings.magnetogram


def list_inputs(
    manifest: Manifest, settings: ShardSettings, say: Callable[[str], None] | None = None
) -> list[Input]:
    """What the manifest holds for `settings.product`, in dataset order.

    Every record of the chosen series is part of an input, or of several where
    images of a faster cadence share it.

    Parameters
    ----------
    say : callable, optional
        Is told how many records of which other series are left out.

    Raises
    ------
    DataError
        When it is not clear which series is meant; see `choose`.
    """
    members = _members(manifest)
    chosen, left_out = choose_all(members, channel_names(settings), settings.series)
    if say is not None:
        for series, count in sorted(left_out.items()):
            say(f"{count} records of {series} are left out (shard.series)")
    if len(chosen) == 1:
        inputs = _first_of_each(next(iter(chosen.values())))
    else:
        single = {name: _first_of_each(held) for name, held in chosen.items()}
        kept = {name: [one.members[0] for one in held if one.refused is None]
                for name, held in single.items()}  # fmt: skip
        inputs = _matched(kept, settings.max_dt_s)
        inputs += [one for held in single.values() for one in held if one.refused]
    return sorted(inputs, key=lambda item: item.name.order)


def used_entries(item: Input, segments: Iterable[str]) -> list[tuple[str, Entry]]:
    """(record, entry) of the files of an input that a product reads, in a fixed order."""
    wanted = {*segments, KEYWORDS}
    return [
        (member.record, entry)
        for member in item.members
        for segment, entry in sorted(member.entries.items())
        if segment in wanted
    ]


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def input_digest(archive: Path, item: Input, segments: Iterable[str], made_with: str = "") -> str:
    """Identity of what an input is made of: its files, and `made_with` (`Product.made_with`).

    The manifest tells the digests; sizes are looked up, so that a file that was
    truncated or removed since counts as a change.
    """
    files = [
        [record, entry.segment, entry.state, entry.sha256, _size(archive / entry.path)]
        for record, entry in used_entries(item, segments)
    ]
    return digest([files, [member.record for member in item.members], item.refused, made_with])


def edited_since(
    archive: Path, inputs: Iterable[Input], segments: Iterable[str], time_s: float
) -> list[str]:
    """First members of inputs of which a file was written after `time_s` and is not as fetched."""
    wanted = tuple(segments)
    found = []
    for item in inputs:
        for _, entry in used_entries(item, wanted):
            path = archive / entry.path
            if path.is_file() and path.stat().st_mtime > time_s and sha256(path) != entry.sha256:
                found.append(item.record)
    return found


def files_of(archive: Path, member: Member, segments: Iterable[str]) -> list[Path]:
    """Paths of a record's segments.

    Raises
    ------
    FitsError
        ``missing_segment`` or ``missing_file``.
    """
    paths = []
    for segment in segments:
        entry = member.entries.get(segment)
        if entry is None:
            raise FitsError("missing_segment", f"{segment} was not fetched")
        if entry.state != "fetched":
            raise FitsError("missing_segment", f"{segment} is {entry.state}: {entry.reason}")
        if not (archive / entry.path).is_file():
            raise FitsError("missing_file", f"{entry.path} is gone; run sunpipe fetch")
        paths.append(archive / entry.path)
    return paths


def check_unchanged(archive: Path, member: Member, segments: Iterable[str]) -> None:
    """Refuse files that are not what was fetched."""
    for _, entry in used_entries(Input((member,)), segments):
        path = archive / entry.path
        if entry.state == "fetched" and sha256(path) != entry.sha256:
            raise FitsError(
                "changed", f"{path.name} is not what was fetched; run sunpipe fetch --check"
            )


def stored_keywords(archive: Path, member: Member, segments: tuple[str, ...]) -> dict[str, Any]:
    """Keywords that came beside the segments of a record; empty when none did."""
    entry = member.entries.get(KEYWORDS)
    if entry is None or entry.state != "fetched":
        return {}
    try:
        return read_sidecar(archive / entry.path, segments, member.record)
    except DataError as error:
        raise FitsError("changed", f"{error}; run sunpipe fetch again") from None
