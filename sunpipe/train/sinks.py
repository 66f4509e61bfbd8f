"""Where a run shows itself besides its own files: TensorBoard scalars and sample grids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sunpipe import plots

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sunpipe.shards.schema import DatasetInfo


class TensorboardSink:
    """Scalars over kimg; events beyond a resume point are purged."""

    def __init__(self, folder: Path, nimg: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=nimg)

    def add(self, row: dict[str, Any]) -> None:
        """One point per number of a stats row, at its image count."""
        for key, value in row.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(key, value, row["nimg"])

    def __enter__(self) -> TensorboardSink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush."""
        self.writer.close()


def save_grid(fields: NDArray[Any], info: DatasetInfo, path: Path, title: str) -> None:
    """Write a grid of the first channel of (N, C, H, W) fields, with a colour bar in its unit."""
    shown = fields[:, 0]
    limit = plots.symmetric_limit(shown)
    figure = plots.field_grid(
        shown, 8, limit=limit, unit=info.units[0], label=info.channels[0], title=title
    )
    plots.save(figure, path)
