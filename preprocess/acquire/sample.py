"""The bundled sample archive as a source of segments."""

from __future__ import annotations

import shutil
from pathlib import Path

import sunpipe
from preprocess.acquire.journal import open_journal, stamp
from preprocess.acquire.states import WHOLE, Part, in_part, is_present
from preprocess.archive import relative_path, split_file_name
from preprocess.manifest import Entry, read_manifest
from sunpipe.errors import DataError
from sunpipe.files import atomic_path, sha256

FOLDER = Path(sunpipe.__file__).parent / "samples"


def sample_files(folder: Path = FOLDER) -> list[tuple[str, str, Path, str]]:
    """(record, segment, file, SHA-256) of every bundled segment.

    Raises
    ------
    DataError
        When ``SHA256SUMS`` is missing or lists something else than segments.
    """
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        raise DataError(f"{sums} is missing; the installation is incomplete")
    found = []
    for line in sums.read_text(encoding="ascii").splitlines():
        digest, _, name = line.partition("  ")
        split = split_file_name(name)
        if split is None or len(digest) != 64:
            raise DataError(f"{sums}: cannot read the line {line!r}")
        found.append((*split, folder / name, digest))
    return found


def fetch_sample(archive: Path, part: Part = WHOLE, check: bool = True) -> dict[str, int]:
    """Lay the bundled files out as a JSOC fetch would.

    Returns
    -------
    dict
        How many segments were ``new`` and how many were already ``kept``.
    """
    counts = {"new": 0, "kept": 0}
    manifest = read_manifest(archive)
    with open_journal(archive) as journal:
        for name, segment, source, digest in sample_files():
            if not in_part(name, part):
                continue
            if is_present(archive, manifest.get((name, segment)), check):
                counts["kept"] += 1
                continue
            relative = relative_path(name, segment)
            with atomic_path(archive / relative) as temporary:
                shutil.copyfile(source, temporary)
                if sha256(temporary) != digest:
                    raise DataError(f"{source} does not match SHA256SUMS; reinstall sunpipe")
            size = (archive / relative).stat().st_size
            url = f"sample:{source.relative_to(FOLDER)}"
            journal.write(
                [Entry(name, segment, relative, digest, size, "fetched", "", url, stamp())]
            )
            counts["new"] += 1
    return counts
