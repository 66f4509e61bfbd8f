"""Around a training: what ends it stands in ``status.json``, and it does not hang for ever."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from sunpipe.dist import Ranks
from sunpipe.run import Run
from sunpipe.train import record
from sunpipe.train.exchanges import is_exchange
from sunpipe.train.hang import LEAVE_S, WRITE_S, HangWatch, alone
from sunpipe.train.peers import Peers
from sunpipe.train.progress import Progress


def _working(device: torch.device) -> bool:
    """Whether the GPU has work of this rank left; False on the CPU."""
    return device.type == "cuda" and not torch.cuda.current_stream(device).query()


@contextmanager
def guarding(
    ranks: Ranks, run: Run | None, folder: Path | None, peers: Peers | None, hang_s: float,
    device: torch.device,
) -> Iterator[Progress]:  # fmt: skip
    """Watch a training until the block ends.

    Parameters
    ----------
    run, folder : Run or None, Path or None
        The run on rank 0, and its folder as all ranks know it.
    peers : Peers or None
        The lines to the other ranks; None alone.
    hang_s : float
        See `Progress`; 0 for no watch.

    Yields
    ------
    Progress
        To be told what goes on.
    """
    progress = Progress(hang_s or math.inf)

    def fail(reason: str) -> None:
        if run is not None:
            with suppress(OSError):  # the disk may be what failed
                record.tell(run, "failed", reason=reason)

    watch = HangWatch(ranks, progress, folder, fail, lambda: _working(device))
    try:
        if peers is None:
            with alone(watch):
                yield progress
        else:
            peers.checkpoints = folder / "checkpoints" if folder is not None else None
            peers.fail, peers.watch, watch.leave = fail, watch, peers.hung
            yield progress
    except BaseException as error:
        if peers is not None and is_exchange(error):
            peers.settle(error, watch)
        if watch.over.is_set():  # an exchange that broke because all ranks are being ended
            time.sleep(WRITE_S + 2 * LEAVE_S)
        raise
    finally:
        if peers is not None:
            peers.watch = None
        watch.dump.close()
