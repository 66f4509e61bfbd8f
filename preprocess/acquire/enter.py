"""What a query says of records, entered into the books.

``keywords.json`` notes the storage unit that the record's pixels lie in
(``unit``, JSOC's SUNUM). Another one means that the record was made again: then
what was fetched of it is wanted again, so that keywords and pixels always are of
one version. A record that kept its unit kept its pixels; only its keywords are
written anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from preprocess.acquire.journal import Journal, stamp
from preprocess.acquire.jsoc import Found, segment_state
from preprocess.archive import KEYWORDS, relative_path
from preprocess.manifest import Entry, Manifest
from sunpipe.errors import DataError
from sunpipe.files import digest, read_json, sha256, write_json
from sunpipe.sidecar import sidecar

REPLACED = "made again by JSOC"


def refreshed(
    held: Entry | None, found: Found, segment: str, url: str, moved: bool = False
) -> Entry | None:
    """A segment's entry after a query; None when the one that is held stays.

    What was fetched stays. So does a failure, unless JSOC names another place
    for the file by now.

    Parameters
    ----------
    moved : bool
        Whether the record was made again since: then nothing stays.
    """
    state, reason, where, final = segment_state(found, segment, url)
    if moved and state == "wanted":
        reason = REPLACED
    elif held is not None:
        same = (held.state, held.reason, held.url) == (state, reason, where)
        tried = held.state in ("failed", "quarantined", "missing") and held.url == where != ""
        due = held.state == state == "wanted" and held.url == where
        if not moved and (same or tried or due or held.state == "fetched"):
            return None
        if state == held.state == "wanted":
            reason = held.reason  # the place changed, what lies here is as old as before
    path = relative_path(found.record, segment)
    return Entry(found.record, segment, path, "", 0, state, reason, where, stamp(held), final)


def _on_disk(path: Path) -> Mapping[str, Any]:
    """What ``keywords.json`` holds; nothing when it is damaged or not there."""
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except DataError:
        return {}
    return content if isinstance(content, Mapping) else {}


def keywords_entry(
    archive: Path, held: Entry | None, found: Found, url: str
) -> tuple[Entry | None, bool]:
    """Write ``keywords.json`` where it is not what the query says.

    Returns
    -------
    (Entry or None, bool)
        Its new entry, if it was written; whether the record was made again.
    """
    relative = relative_path(found.record, KEYWORDS)
    path = archive / relative
    before = _on_disk(path)
    # nothing is stored now: then the pixels that are here are those of before
    unit = found.unit or before.get("unit", "")
    content = {**sidecar(found.record, found.keywords, found.units), "unit": unit}
    if digest(before) != digest(content):
        # only then: files that are not older than it are of its version, see `Session`
        write_json(path, content)
    elif held is not None and sha256(path) == held.sha256:
        return None, False
    moved = before.get("unit", "") not in ("", unit)
    entry = Entry(found.record, KEYWORDS, relative, sha256(path), path.stat().st_size, "fetched",
                  "", url, stamp(held))  # fmt: skip
    return entry, moved


def _others(
    manifest: Manifest, record: str, asked: Iterable[str], segments: Iterable[str]
) -> list[Entry]:
    """Segments of a record made again that were fetched and not asked for: to be asked for."""
    entries = []
    for name in sorted(set(segments) - set(asked)):
        held = manifest.get((record, name))
        if held is not None and held.state == "fetched":
            path = relative_path(record, name)
            entries.append(Entry(record, name, path, "", 0, "wanted", REPLACED, "", stamp(held)))
    return entries


def enter(
    archive: Path,
    journal: Journal,
    manifest: Manifest,
    records: Iterable[Found],
    asked: Iterable[str],
    segments: Iterable[str],
    url: str,
) -> int:
    """Enter records into the manifest; returns the number of new segments.

    Parameters
    ----------
    asked : iterable of str
        Segments that the query was for.
    segments : iterable of str
        All that the series has.
    """
    entries: list[Entry] = []
    new = 0
    asked, segments = tuple(asked), tuple(segments)
    for found in records:
        note, moved = keywords_entry(archive, manifest.get((found.record, KEYWORDS)), found, url)
        if note is not None:
            entries.append(note)
        if moved:
            entries += _others(manifest, found.record, asked, segments)
        for segment in asked:
            held = manifest.get((found.record, segment))
            if entry := refreshed(held, found, segment, url, moved):
                entries.append(entry)
                new += held is None
    journal.write(entries)
    manifest.update({entry.key: entry for entry in entries})
    return new
