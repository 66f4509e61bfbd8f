"""Programs asked with a time limit: an answer, or the reason why there is none."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hpc.doctor.leftovers import current
from hpc.status.text import plain

WORDS = 300  # characters of a program's complaint that are shown


@dataclass(frozen=True)
class Answer:
    """What a program said.

    Attributes
    ----------
    code : int
        Exit code; -1 when it could not be started or gave no answer in time.
    out, err : str
    late : bool
        It was ended after the time limit.
    """

    code: int
    out: str
    err: str
    late: bool = False

    @property
    def words(self) -> str:
        """Its last complaint in one line without control characters.

        What Slurm adds about the tasks of an srun is the last resort: they said why themselves.
        """
        lines = [line for line in (self.err or self.out).splitlines() if line.strip()]
        own = [line for line in lines if not line.startswith(("srun:", "slurmstepd"))]
        return plain((own or lines)[-1], WORDS) if lines else (
            f"exit code {self.code} without a word")  # fmt: skip


def ask(
    argv: Sequence[str], timeout_s: float, env: Mapping[str, str] | None = None
) -> Answer:  # fmt: skip
    """Run a program; it and its children are ended after `timeout_s`."""
    try:
        process = current().start(
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", env=dict(os.environ if env is None else env),
        )  # fmt: skip
    except OSError as error:
        return Answer(-1, "", f"{argv[0]}: {error.strerror or error}")
    with process:
        try:
            out, err = process.communicate(timeout=timeout_s)
            return Answer(process.returncode, out, err)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                _end(process)
    name = os.path.basename(argv[0])
    return Answer(-1, "", f"{name} gave no answer within {timeout_s:g} s", late=True)


def _end(process: subprocess.Popen[str]) -> None:
    """Ask the whole group to end, then make it: srun needs a moment to end its tasks."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=patience)
            return
