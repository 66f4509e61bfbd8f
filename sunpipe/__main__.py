"""Entry point: ctrl-C is answered even while the program is still being loaded."""

import signal
import sys


def main() -> None:
    """Run ``sunpipe``."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A script that starts us in the background has us ignore SIGINT; who sends it means it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        from sunpipe.cli import main as run

        run()
    except KeyboardInterrupt:
        print("sunpipe: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(75)


if __name__ == "__main__":
    main()
