"""Which candidates go into which shard: fixed once, so that new records only append.

A group is a run of candidates (tiles of patches, or disks); its accepted images
are one shard. A record that was added, or that is no longer what it was, goes
into new groups behind the existing ones; a group that loses images is made
again without them; all others are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from preprocess.archive import parse_record
from preprocess.dataset.inputs import Input
from preprocess.dataset.product import Place
from sunpipe.fitsfile import FitsError

Candidate = tuple[str, Place | None]  # record, tile; None: the record could not be opened
Fault = tuple[str, str]


@dataclass(frozen=True)
class Group:
    """Candidates of one shard.

    Attributes
    ----------
    number : int
        Of the shard.
    candidates : tuple of (record, place)
        In dataset order.
    keep : bool
        Whether the shard of the published dataset stays as it is.
    """

    number: int
    candidates: tuple[Candidate, ...]
    keep: bool = False


def candidates_of(
    inputs: Iterable[Input], places: Callable[[Input], list[Place]]
) -> tuple[list[Candidate], dict[str, Fault]]:
    """Every candidate of the inputs in order, and why a record has no tiles.

    Parameters
    ----------
    places : callable
        `Product.places`.
    """
    found: list[Candidate] = []
    faults: dict[str, Fault] = {}
    for item in inputs:
        try:
            if item.refused is not None:
                raise FitsError(*item.refused)
            found += [(item.record, place) for place in places(item)]
        except FitsError as error:
            faults[item.record] = (error.reason, error.detail)
            found.append((item.record, None))
    return found, faults


def split_candidates(candidates: Sequence[Candidate], size: int, first: int = 0) -> list[Group]:
    """Cut candidates into groups of `size`, numbered from `first`."""
    return [
        Group(first + n, tuple(candidates[start : start + size]))
        for n, start in enumerate(range(0, len(candidates), size))
    ]


def carry_over(
    old: Mapping[int, Sequence[tuple[str, Place | None, bool]]], changed: set[str]
) -> list[Group]:
    """Groups of the published dataset without the candidates of `changed` records.

    Parameters
    ----------
    old : mapping
        Shard number to its candidates as (record, place, accepted).
    changed : set of str
        Records that are gone or that are made of something else now.
    """
    groups = []
    for number in sorted(old):
        stay = [(record, place) for record, place, _ in old[number] if record not in changed]
        stay.sort(key=lambda one: (parse_record(one[0]).order, one[1] or (0, 0)))
        lost = any(accepted for record, _, accepted in old[number] if record in changed)
        if stay:
            groups.append(Group(number, tuple(stay), keep=not lost))
    return groups


def continued_records(groups: list[Group]) -> dict[int, set[str]]:
    """Group number to those of its records that began in an earlier group."""
    seen: set[str] = set()
    found = {}
    for group in sorted(groups, key=lambda one: one.number):
        records = {record for record, _ in group.candidates}
        found[group.number] = records & seen
        seen |= records
    return found
