"""Checkpoints written in the background: the training goes on once the weights are copied."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sunpipe import checkpoint

if TYPE_CHECKING:
    import torch

Named = dict[str, "torch.Tensor"]


class Writer:
    """Writes the checkpoints of one run, one after the other, in a thread.

    A write that failed is raised by the next call of `save`, `wait` or `check`,
    once. As a context manager it waits for the last write; an exception that
    leaves the block is not replaced by that of a write, which is then reported.

    Parameters
    ----------
    folder : Path
        ``<run>/checkpoints``; the caller holds the lock of the run.
    keep : int
        Older complete checkpoints beyond this number are removed.
    report : callable
        Gets one line for each checkpoint that is safe or renamed; called in the thread.
    """

    def __init__(self, folder: Path, keep: int, report: Callable[[str], None]) -> None:
        self.folder, self.keep, self.report = folder, keep, report
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._host: dict[str, Named] = {}

    def save(
        self, nimg: int, tensors: Mapping[str, Mapping[str, torch.Tensor]], state: dict[str, Any]
    ) -> None:
        """Copy everything to the host, and start to write it; see `checkpoint.save`.

        The tensors may change as soon as this returns. Memory for one copy is
        kept from call to call, so that the peak is known after the first.

        Raises
        ------
        DataError
            A value is not finite: nothing is written.
        OSError
            The write before this one failed.
        """
        self.wait()
        checkpoint.refuse_nonfinite(nimg, tensors)
        text = checkpoint.state_text(nimg, state)
        self._host = {stem: _copied(named, self._host.get(stem, {}))
                      for stem, named in tensors.items()}  # fmt: skip
        self._thread = threading.Thread(
            target=self._write, args=(nimg, json.loads(text)), name="checkpoint"
        )
        self._thread.start()

    def _write(self, nimg: int, state: dict[str, Any]) -> None:
        try:
            started = time.perf_counter()
            path = checkpoint.save(self.folder, nimg, self._host, state, self.keep, self.report)
            seconds = time.perf_counter() - started
            size = sum(file.stat().st_size for file in path.rglob("*.safetensors"))
            self.report(f"checkpoint {path.name}, {size / 1e6:.1f} MB in {seconds:.1f} s")
        except BaseException as error:  # raised again in the thread of the training
            self._error = error

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def check(self) -> None:
        """Raise what stopped the last write, if it has ended; do not wait."""
        if not self.busy and self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Return once nothing is being written, or raise what stopped it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except Exception as failed:
            if error is None:
                raise
            self.report(f"checkpoint not written: {failed}")


def _copied(named: Mapping[str, torch.Tensor], before: Named) -> Named:
    """Copies on the host, row by row; memory of `before` is used again where it fits."""
    import torch

    copies = {}
    for name, tensor in named.items():
        copy = before.get(name)
        if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
            copy = torch.empty(tensor.shape, dtype=tensor.dtype)
        copies[name] = copy.copy_(tensor.detach())
    return copies
