"""MPI ranks, or one process: the same calls for both."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from sunpipe.dist import discover
from sunpipe.errors import EXIT_STOPPED, SunpipeError, UsageError

T = TypeVar("T")


class Communicator:
    """Ranks that do their share, then agree on whether all went well.

    Attributes
    ----------
    rank, size : int
    """

    def __init__(self, mpi: Any = None) -> None:
        self._mpi = mpi
        self.rank: int = mpi.Get_rank() if mpi else 0
        self.size: int = mpi.Get_size() if mpi else 1

    def share(self, count: int) -> range:
        """The items of 0 .. `count` - 1 that are this rank's."""
        return range(self.rank, count, self.size)

    def all(self, work: Callable[[], T]) -> list[T]:
        """Run `work` on every rank and return every rank's result to every rank.

        When it fails somewhere, every rank leaves: rank 0 with the error of the
        lowest failing rank, the others silently with the same exit code. No
        rank is left waiting.
        """
        if self._mpi is None:
            return [work()]
        try:
            mine: tuple[T | None, Any] = (work(), None)
        except KeyboardInterrupt:
            print("sunpipe: interrupted; run the same command again to continue", file=sys.stderr)
            self._mpi.Abort(EXIT_STOPPED)
            raise
        except SunpipeError as error:
            mine = (None, error)
        except OSError as error:
            mine = (None, error)
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            mine = (None, RuntimeError(f"rank {self.rank} failed:\n{trace}"))
        every = self._mpi.allgather(mine)
        errors = [error for _, error in every if error is not None]
        if errors:
            if self.rank == 0:
                raise errors[0]
            sys.exit(getattr(errors[0], "exit_code", 1))
        return [result for result, _ in every]

    def root(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 alone; every rank gets its result."""
        return self.all(lambda: work() if self.rank == 0 else None)[0]  # type: ignore[return-value]


def communicator() -> Communicator:
    """The ranks this process was started among.

    Raises
    ------
    UsageError
        When a launcher started several processes but MPI does not connect them:
        each would write the whole dataset.
    """
    ranks = discover()
    if ranks.world == 1:
        return Communicator()
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise UsageError(f"{ranks.world} ranks were started but mpi4py cannot be loaded ({error});"
                         " install sunpipe[mpi] or start one process") from None  # fmt: skip
    found = MPI.COMM_WORLD.Get_size()
    if found != ranks.world:
        raise UsageError(f"{ranks.source} started {ranks.world} ranks but MPI connects {found};"
                         " start them with mpiexec, or srun --mpi=pmi2")  # fmt: skip
    return Communicator(MPI.COMM_WORLD)
