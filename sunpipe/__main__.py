"""Entry point: ctrl-C is answered even while the program is still being loaded."""

import sys


def main() -> None:
    """Run ``sunpipe``."""
    try:
        from sunpipe.cli import main as run

        run()
    except KeyboardInterrupt:
        print("sunpipe: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(75)


if __name__ == "__main__":
    main()
