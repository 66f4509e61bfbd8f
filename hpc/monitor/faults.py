"""What could not be read: it costs itself only, is counted, and named once in the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hpc.monitor.samples import Sample, sample
from sunpipe.errors import DataError
from sunpipe.paths import Layout
from sunpipe.stage import log

# What reading a file of another's making may raise: a number of 400 digits, too deep a nesting,
# a list where a name belongs.
ODD = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)


def check_root(layout: Layout) -> None:
    """See that the data root is there: else nothing in it would read as nothing going on.

    Raises
    ------
    DataError
        It is no folder (any more).
    """
    if not layout.root.is_dir():
        raise DataError(f"{layout.root} does not exist; set SUNPIPE_ROOT")


class Faults:
    """Faults of one collector, by the folder that has them."""

    def __init__(self, collector: str) -> None:
        self.collector = collector
        self.now: dict[str, str] = {}
        self._before: dict[str, str] = {}

    def begin(self) -> None:
        """A new reading begins."""
        self._before, self.now = self.now, {}

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Read `what`; an error is noted and ends the block only."""
        try:
            yield
        except (DataError, OSError) as error:
            self._note(what, str(error))
        except ODD as error:
            self._note(what, f"holds what sunpipe does not write ({type(error).__name__}: {error})")

    def _note(self, what: str, words: str) -> None:
        self.now[what] = words
        if self._before.get(what) != words:
            log(f"{self.collector}: {what}: {words}")

    def sample(self) -> Sample:
        """How many there are."""
        return sample("sunpipe_collector_faults", len(self.now), collector=self.collector)
