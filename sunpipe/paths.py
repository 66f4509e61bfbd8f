"""Where things live (contract C3): one data root, one folder per kind of artefact."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs


def data_root() -> Path:
    """``$SUNPIPE_ROOT``, else ``$SCRATCH/sunpipe``, else the user's XDG data folder."""
    if root := os.environ.get("SUNPIPE_ROOT"):
        return Path(root).expanduser().absolute()
    if scratch := os.environ.get("SCRATCH"):
        return Path(scratch).expanduser().absolute() / "sunpipe"
    return Path(platformdirs.user_data_path("sunpipe"))


@dataclass(frozen=True)
class Layout:
    """The folders under one data root."""

    root: Path

    @classmethod
    def current(cls) -> Layout:
        """The layout under `data_root`."""
        return cls(data_root())

    @property
    def archive(self) -> Path:
        """FITS files as fetched, with ``manifest.parquet``."""
        return self.root / "archive"

    def shards(self, dataset: str) -> Path:
        """HDF5 shards of one dataset."""
        return self.root / "shards" / dataset

    @property
    def runs(self) -> Path:
        """Training runs, ``<NNNNN>-<name>`` each."""
        return self.root / "runs"

    def latents(self, name: str) -> Path:
        """Samples, measured quantities and directions of one generator."""
        return self.root / "latents" / name

    def embeddings(self, name: str) -> Path:
        """Embeddings of one dataset by one encoder."""
        return self.root / "embeddings" / name

    def index(self, name: str) -> Path:
        """A FAISS index with its metadata."""
        return self.root / "index" / name

    def searches(self, name: str) -> Path:
        """Generated queries and the real observations that answered."""
        return self.root / "searches" / name

    def evaluations(self, name: str) -> Path:
        """How good the search is."""
        return self.root / "evaluations" / name

    def report(self, name: str) -> Path:
        """A report folder; the page is ``report.html`` in it."""
        return self.root / "reports" / name
