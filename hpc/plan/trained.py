"""What of a training is done already: the run that the next start would go on with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpc.new_run import needs_new
from sunpipe.errors import DataError
from sunpipe.paths import Layout
from sunpipe.run import find_run, read_stats
from sunpipe.settings import Config


@dataclass(frozen=True)
class Trained:
    """The newest run of an experiment.

    Attributes
    ----------
    run : Path or None
    kimg : float
        Shown so far in a run that goes on; 0 where another one has to begin.
    refused : str
        Why the run would refuse to go on with this configuration; empty: it would not.
    """

    run: Path | None
    kimg: float
    refused: str


def trained(cfg: Config) -> Trained:
    """Where the training of this configuration stands.

    Raises
    ------
    DataError
        The run's ``stats.jsonl`` cannot be read.
    """
    layout = Layout.current()
    run = find_run(layout, cfg.name)
    if run is None:
        return Trained(None, 0.0, "")
    try:
        refused = needs_new("train", cfg, layout)
    except DataError as error:  # of such a run nothing goes on either
        refused = str(error)
    rows = [] if refused else read_stats(run)
    return Trained(run, rows[-1]["nimg"] / 1000 if rows else 0.0, refused)
