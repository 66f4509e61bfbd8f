"""Entry point: signals are answered even while the program is still being loaded."""

import signal
import sys
from types import FrameType


def _requeue() -> None:
    """USR2 came before the stage could install its own handler (contract C10)."""
    from sunpipe.dist import discover
    from sunpipe.stop import requeue_or_end

    if discover().is_main:
        requeue_or_end()


def main() -> None:
    """Run ``sunpipe``."""
    seen: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if not seen:
            seen.append(number)
            raise KeyboardInterrupt

    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, interrupt)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A script that starts us in the background has us ignore SIGINT; who sends it means it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        from sunpipe.cli import main as run

        run()
    except KeyboardInterrupt:
        print("sunpipe: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(75)
    finally:  # the command line may have made an exit of the interrupt
        if seen == [signal.SIGUSR2]:
            _requeue()
        # Python puts the default actions back while it takes its modules down: a late USR2 would
        # kill the process, and hide its exit code from the launcher.
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
