"""Where a run shows itself besides its own files: TensorBoard, and W&B and MLflow if asked for.

``stats.jsonl`` is the truth; sinks are views of it for people. One that fails (a full
disk, a library that has changed) is said once and left out: it never ends a training.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sunpipe import plots
from sunpipe.errors import UsageError
from sunpipe.run import Run, read_stats
from sunpipe.track_settings import TrackSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sunpipe.shards.schema import DatasetInfo

PACKAGES = {"wandb": "wandb", "mlflow": "mlflow"}  # sink to what is imported
AXES = ("nimg", "kimg", "time")  # over which the others are drawn
Row = dict[str, Any]


class Sink(Protocol):
    """Takes rows and pictures of a run, each at its image count."""

    def add(self, row: Row) -> None:
        """One point per number of a row."""

    def image(self, nimg: int, path: Path) -> None:
        """A grid of generated images, as a file of the run folder."""

    def close(self) -> None:
        """Write what is still in memory."""


def numbers(row: Row) -> dict[str, float]:
    """What of a row is drawn: its numbers, and the extremes of what it lists for the ranks."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, list) and value:
            found |= {f"{key}/min": float(min(value)), f"{key}/max": float(max(value))}
        elif isinstance(value, int | float) and key not in AXES:
            found[key] = float(value)
    return found


def check_sinks(settings: TrackSettings) -> None:
    """Refuse a sink whose package is not installed, before anything is written.

    Raises
    ------
    UsageError
        Names the package and how to get it.
    """
    for sink in settings.sinks:
        if importlib.util.find_spec(PACKAGES[sink]) is None:
            raise UsageError(f'track.sinks names {sink}, which is not installed: pip install'
                             ' "sunpipe[track]"')  # fmt: skip


class Sinks:
    """All sinks of a run; each is dropped at its first fault, with a line in the log."""

    def __init__(self, sinks: dict[str, Sink], say: Callable[[str], None]) -> None:
        self.sinks, self.say = sinks, say

    def _each(self, work: Callable[[Sink], None]) -> None:
        for name, sink in list(self.sinks.items()):
            try:
                work(sink)
            except Exception as error:
                del self.sinks[name]
                why = str(error).strip().splitlines() or [type(error).__name__]
                self.say(f"warning: nothing more is written for {name} ({why[0]}); stats.jsonl has"
                         " everything, and the next start adds what is missing")  # fmt: skip

    def add(self, row: Row) -> None:
        """A row of ``stats.jsonl``, or of a metric."""
        self._each(lambda sink: sink.add(row))

    def image(self, nimg: int, path: Path) -> None:
        """A grid."""
        self._each(lambda sink: sink.image(nimg, path))

    def close(self) -> None:
        """End all of them."""
        self._each(lambda sink: sink.close())


def history(folder: Path, nimg: int) -> tuple[list[Row], list[tuple[int, Path]]]:
    """Rows and grids of a run up to `nimg` images, in the order of images shown."""
    names = ["stats", *(path.stem for path in sorted(folder.glob("metric-*.jsonl")))]
    rows = [row for name in names for row in read_stats(folder, name) if row["nimg"] <= nimg]
    grids = []
    for path in folder.glob("images/fakes-kimg-*.png"):
        whole, _, part = path.stem.removeprefix("fakes-kimg-").partition(".")
        if whole.isdigit() and part.isdigit() and int(whole + part) <= nimg:
            grids.append((int(whole + part), path))
    return sorted(rows, key=lambda row: row["nimg"]), sorted(grids)


def _made(name: str, run: Run, settings: TrackSettings, config: dict[str, Any], nimg: int) -> Sink:
    from sunpipe.train.sink_mlflow import MlflowSink
    from sunpipe.train.sink_tensorboard import TensorboardSink
    from sunpipe.train.sink_wandb import WandbSink

    rows, grids = history(run.folder, nimg)
    if name == "tensorboard":
        return TensorboardSink(run.folder / "tensorboard", nimg, rows)
    if name == "wandb":
        sink: Sink = WandbSink(run.folder, settings.project, config)
    else:
        sink = MlflowSink(run.folder, settings.project, config, nimg)
    # W&B takes steps in their order only
    for at, row, grid in sorted([*((row["nimg"], row, None) for row in rows),
                                *((shown, None, path) for shown, path in grids)],
                               key=lambda one: one[0]):  # fmt: skip
        if row is not None:
            sink.add(row)
        elif grid is not None:
            sink.image(at, grid)
    return sink


@contextmanager
def open_sinks(
    run: Run | None, settings: TrackSettings, config: dict[str, Any], nimg: int
) -> Iterator[Sinks]:
    """The sinks of a run, for the block; none where there is no run to write (other ranks).

    What they lack of the files of the run is written at each start: a continued run
    has every point once.

    Parameters
    ----------
    config : dict
        Of the experiment, without secrets.
    nimg : int
        Images shown so far: what is known beyond is out of date.
    """
    sinks = Sinks({}, run.log if run is not None else lambda _: None)
    names: Sequence[str] = ("tensorboard", *settings.sinks) if run is not None else ()
    for name in names:
        assert run is not None
        try:
            sinks.sinks[name] = _made(name, run, settings, config, nimg)
        except Exception as error:
            run.log(f"warning: {name} cannot be written ({error}); stats.jsonl has everything")
    try:
        yield sinks
    finally:
        sinks.close()


def save_grid(fields: NDArray[Any], info: DatasetInfo, path: Path, title: str) -> None:
    """Write a grid of the first channel of (N, C, H, W) fields, with a colour bar in its unit."""
    shown = fields[:, 0]
    limit = plots.symmetric_limit(shown)
    figure = plots.field_grid(
        shown, 8, limit=limit, unit=info.units[0], label=info.channels[0], title=title
    )
    plots.save(figure, path)
