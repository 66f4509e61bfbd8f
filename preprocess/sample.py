"""The bundled sample archive as a source of segments."""

from __future__ import annotations

from pathlib import Path

import sunpipe
from preprocess.archive import split_file_name
from sunpipe.errors import DataError

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
