"""Which folder ``train.warm.run`` means: one search for the training and for those who plan it."""

from __future__ import annotations

from pathlib import Path

from sunpipe.errors import DataError
from sunpipe.paths import Layout
from sunpipe.run import trained_run


def warm_folder(layout: Layout, run: str) -> Path:
    """Folder of a run, or of one checkpoint; the first that fits, whether it is whole or not.

    Parameters
    ----------
    run : str
        Path of a run or a checkpoint, name of a run folder, or name of a run: then the
        newest of that name with a checkpoint.

    Raises
    ------
    DataError
        There is none.
    """
    given = Path(run).expanduser()
    for folder in (given, layout.runs / run):
        if (folder / "checkpoints").is_dir() or (folder / "COMPLETE").is_file():
            return folder.resolve()
    named = trained_run(layout, run)
    if named is None:
        raise DataError(f"train.warm.run: no run called {run!r} under {layout.runs}, and no such"
                        " folder")  # fmt: skip
    return named


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder that was found is a checkpoint, and not a run that has some."""
    return folder.name.startswith("kimg-")
