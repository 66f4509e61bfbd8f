"""Bring FITS segments into the archive; what is there and verified is not brought again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preprocess.archive import relative_path
from preprocess.manifest import Entry, Manifest, count_states, read_manifest, write_manifest
from preprocess.sample import FOLDER, sample_files
from sunpipe.errors import DataError
from sunpipe.files import atomic_path, sha256
from sunpipe.lock import exclusive, sweep
from sunpipe.paths import Layout
from sunpipe.provenance import now
from sunpipe.settings import Config
from sunpipe.stage import Result, log

SAVE_EVERY_S = 2.0


def is_present(archive: Path, entry: Entry | None) -> bool:
    """Whether an entry's file is in the archive and still what was fetched."""
    if entry is None or entry.state != "fetched":
        return False
    path = archive / entry.path
    return path.is_file() and path.stat().st_size == entry.bytes and sha256(path) == entry.sha256


@contextmanager
def open_manifest(archive: Path) -> Iterator[tuple[Manifest, Callable[[Entry], None]]]:
    """The manifest and a function that records an entry.

    Entries are saved every few seconds and when the block ends, whatever ends
    it, so that an interrupted fetch continues where it stopped.
    """
    manifest = read_manifest(archive)
    saved = time.monotonic()
    changed = False

    def record(entry: Entry) -> None:
        nonlocal saved, changed
        manifest[entry.key] = entry
        changed = True
        if time.monotonic() - saved > SAVE_EVERY_S:
            write_manifest(archive, manifest)
            saved, changed = time.monotonic(), False

    try:
        yield manifest, record
    finally:
        if changed:
            write_manifest(archive, manifest)


def fetch_sample(archive: Path) -> dict[str, int]:
    """Lay the bundled files out as a JSOC fetch would.

    Returns
    -------
    dict
        How many segments were ``new`` and how many were already ``kept``.
    """
    counts = {"new": 0, "kept": 0}
    with open_manifest(archive) as (manifest, record):
        for name, segment, source, digest in sample_files():
            if is_present(archive, manifest.get((name, segment))):
                counts["kept"] += 1
                continue
            relative = relative_path(name, segment)
            with atomic_path(archive / relative) as temporary:
                shutil.copyfile(source, temporary)
                if sha256(temporary) != digest:
                    raise DataError(f"{source} does not match SHA256SUMS; reinstall sunpipe")
            size = (archive / relative).stat().st_size
            url = f"sample:{source.relative_to(FOLDER)}"
            record(Entry(name, segment, relative, digest, size, "fetched", "", url, now()))
            counts["new"] += 1
    return counts


def fetch(config: Config) -> Result:
    """Bring what ``[fetch]`` names into the archive."""
    archive = Layout.current().archive
    with exclusive(archive / ".lock", f"fetching into {archive}"):
        sweep(archive)
        if config.fetch.source == "sample":
            counts = fetch_sample(archive)
        else:
            from preprocess.jsoc import fetch_jsoc

            counts = fetch_jsoc(archive, config.fetch)
    manifest = read_manifest(archive)
    if not counts["new"]:
        log("the archive is up to date")
    return {
        "source": config.fetch.source,
        "archive": str(archive),
        "records": len({record for record, _ in manifest}),
        **count_states(manifest),
        **counts,
    }


def plan(config: Config) -> dict[str, Any]:
    """What `fetch` would do, without asking anyone."""
    settings = config.fetch
    archive = Layout.current().archive
    if settings.source == "sample":
        asked = [f"{record}{{{segment}}}" for record, segment, _, _ in sample_files()]
    else:
        asked = [f"{record}{{{','.join(settings.segments)}}}" for record in settings.records]
    return {"archive": str(archive), "source": settings.source, "would_ask_for": asked}
