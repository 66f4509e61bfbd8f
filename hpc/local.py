"""Run a stage on this machine as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from types import FrameType

from sunpipe.errors import EXIT_STOPPED

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


@contextmanager
def forwarding(child: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Hand signals on to `child`, which decides how to stop; we wait for it. Yields those sent."""
    sent: list[int] = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        sent.append(number)
        child.send_signal(number)

    previous = {number: signal.signal(number, hand_on) for number in FORWARDED}
    try:
        yield sent
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def stage_command(argv: Sequence[str]) -> list[str]:
    """The process that runs a stage."""
    return [sys.executable, "-m", "sunpipe", *argv]


def run_here(argv: Sequence[str], capture: bool = False) -> tuple[int, str]:
    """Run ``python -m sunpipe ARGV``; its stderr goes where ours goes.

    The child is in a process group of its own, so that ctrl-C reaches it once,
    through us, however it was sent.

    Returns
    -------
    (int, str)
        Exit code (128 and the signal's number when one ended it, as in a shell) and, with
        `capture`, its stdout.
    """
    with subprocess.Popen(
        stage_command(argv), stdin=subprocess.DEVNULL, text=True, process_group=0,
        stdout=subprocess.PIPE if capture else None,
    ) as child, forwarding(child) as sent:  # fmt: skip
        out, _ = child.communicate()
    code = child.returncode
    if code == -signal.SIGINT and signal.SIGINT in sent:
        # A ctrl-C inside an extension's start has Python end so, whatever its exit code was.
        code = EXIT_STOPPED
    elif code < 0:
        name = signal.Signals(-code).name
        words = " ".join(takewhile(lambda word: not word.startswith("-"), argv))
        print(f"sunpipe: {words} was ended by {name}", file=sys.stderr)
        code = 128 - code
    return code, out or ""
