"""Checks run side by side, each with a time limit: none can hang the doctor."""

from __future__ import annotations

import dataclasses
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpc.doctor.finding import Finding
from hpc.doctor.leftovers import Leftovers, close_all, kept_in
from hpc.doctor.place import Place

Function = Callable[[Place], "Finding | list[Finding]"]


@dataclass(frozen=True)
class Check:
    """A check and the seconds it may take."""

    name: str
    look: Function
    limit_s: float = 10.0


class _Running:
    """A check in a thread that does not keep the process alive.

    A call into a dead network file system does not return; the thread is left there.
    """

    def __init__(self, check: Check, place: Place) -> None:
        self.check = check
        self.found: list[Finding] = []
        self.leftovers = Leftovers()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._work, args=(place,), daemon=True)
        self._thread.start()

    def _work(self, place: Place) -> None:
        try:
            with kept_in(self.leftovers):
                found = self.check.look(place)
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            found = Finding(self.check.name, "MISS", f"{error.strerror or error}{where}",
                            "look at that path and its permissions")  # fmt: skip
        except Exception:
            found = Finding(self.check.name, "MISS",
                            f"the check itself failed: {traceback.format_exc(limit=-2)}",
                            "report it with this output")  # fmt: skip
        took = time.monotonic() - self._started
        rows = found if isinstance(found, list) else [found]
        self.found = [dataclasses.replace(row, seconds=took) for row in rows]

    def result(self) -> list[Finding]:
        """What was found, once the check has ended or its time is up."""
        left = self._started + self.check.limit_s - time.monotonic()
        self._thread.join(max(left, 0.0))
        if self._thread.is_alive():
            close_all([self.leftovers])
            return [Finding(self.check.name, "MISS",
                            f"no answer within {self.check.limit_s:g} s", "try it by hand: a"
                            " server or file system behind it may be down", self.check.limit_s)
                    ]  # fmt: skip
        return self.found


def run_checks(
    together: Sequence[Check], alone: Sequence[Check], place: Place
) -> list[Finding]:  # fmt: skip
    """Findings in the order of the checks; those of `alone` run after the others, one by one.

    A finding that `ends` is the last one.
    However it ends, by ctrl-C too, no program that a check has started is left running and no
    folder on trial in the data root.
    """
    running: list[_Running] = []
    try:
        running += [_Running(check, place) for check in together]
        found = [row for one in running for row in one.result()]
        for check in alone:
            running.append(_Running(check, place))
            found += running[-1].result()
            if any(row.ends for row in found):
                break
    finally:
        close_all([one.leftovers for one in running])
    return found
