"""Records asked for by name: where their files are by now, and what their keywords say.

Storage units are cleared and brought back elsewhere, records are made again, and
addresses of exports last for days: a file that is not where the books say is
asked for once more before it counts as missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from preprocess.acquire.enter import enter
from preprocess.acquire.journal import Journal
from preprocess.acquire.jsoc import describe, list_records, make_client
from preprocess.acquire.states import is_present
from preprocess.archive import KEYWORDS, parse_record
from preprocess.manifest import Manifest
from sunpipe.query_settings import FetchSettings, QueryRequest
from sunpipe.stage import log

MAX_SET = 3500  # JSOC takes 4096 characters
Key = tuple[str, str]


def sets_by_name(keys: Iterable[Key]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Record sets of at most `MAX_SET` letters that name records, each with its segments."""
    segments: dict[str, list[str]] = defaultdict(list)
    for record, segment in keys:
        segments[record].append(segment)
    groups: dict[tuple[str, str, tuple[str, ...]], list[str]] = defaultdict(list)
    for record, names in segments.items():
        name = parse_record(record)
        before = name.series + (f"[{name.harpnum}]" if name.harpnum is not None else "")
        after = f"[{name.number}]" if name.number is not None else ""
        groups[before, after, tuple(sorted(set(names)))].append(name.t_rec)
    for (before, after, asked), times in groups.items():
        room = MAX_SET - len(before) - len(after) - 2
        batch: list[str] = []
        for time in [*times, None]:
            if batch and (time is None or len(",".join([*batch, time])) > room):
                yield f"{before}[{','.join(batch)}]{after}", asked
                batch = []
            if time is not None:
                batch.append(time)


def ask_again(
    archive: Path,
    journal: Journal,
    manifest: Manifest,
    settings: FetchSettings,
    keys: Iterable[Key],
) -> None:
    """Ask JSOC for records and enter what it says now.

    Raises
    ------
    DataError
        When JSOC cannot be reached.
    """
    client = make_client(settings.url)
    known = {}
    for record_set, segments in sets_by_name(keys):
        name = record_set.partition("[")[0]
        if name not in known:
            request = QueryRequest(segments=segments, record_set=record_set)
            known[name] = describe(client, request, settings)
        series = known[name]
        found = list_records(client, record_set, series, segments, settings)
        log(f"asked again for {len(found)} records of {name}")
        enter(archive, journal, manifest, found, segments, series.units, settings.url)


def without_keywords(
    archive: Path, manifest: Manifest, keys: Iterable[Key], check: bool = False
) -> list[Key]:
    """Segments of the records whose ``keywords.json`` is not what was written."""
    asked: dict[str, list[str]] = defaultdict(list)
    for record, segment in keys:
        asked[record].append(segment)
    lost = []
    for record, segments in asked.items():
        entry = manifest.get((record, KEYWORDS))
        if entry is not None and not is_present(archive, entry, check):
            lost += [(record, segment) for segment in segments]
    return lost
