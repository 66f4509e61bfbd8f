"""A training run as its folder tells it, whatever was trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sunpipe.errors import DataError
from sunpipe.files import read_json
from sunpipe.run import read_stats


@dataclass(frozen=True)
class RunFolder:
    """One training run: its folder, configuration, ticks and state.

    Attributes
    ----------
    label : str
        What a page calls it, where another run has a folder of the same name; else empty.
    """

    folder: Path
    config: dict[str, Any]
    stats: list[dict[str, Any]]
    status: dict[str, Any]
    provenance: dict[str, Any]
    label: str = ""

    @property
    def name(self) -> str:
        """What a page calls it."""
        return self.label or self.folder.name


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; a file with anything else in it is a `DataError`."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"{path.parent.name}/{path.name} holds no JSON object")
    return found


def read_run(folder: Path) -> RunFolder:
    """Everything but the checkpoints of a run folder.

    Raises
    ------
    DataError
        A file that is damaged, or no ``config.json``.
    """
    status, made = folder / "status.json", folder / "provenance.json"
    return RunFolder(
        folder=folder, config=_object(folder / "config.json"), stats=read_stats(folder),
        status=_object(status) if status.exists() else {},
        provenance=_object(made) if made.exists() else {},
    )  # fmt: skip
