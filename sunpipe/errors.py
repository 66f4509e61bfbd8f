"""Errors that a user can act on: one clear line, no traceback."""

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_STOPPED = 75  # BSD's EX_TEMPFAIL: stopped on request, run again to continue
EXIT_LOST = 76  # a process or device of the training was lost, start it again


class SunpipeError(Exception):
    """Something the user can mend; the message says what is wrong and what to do."""

    exit_code = EXIT_FAILURE


class ConfigError(SunpipeError):
    """A fault in a configuration file or a ``--set`` option."""

    exit_code = EXIT_USAGE


class UsageError(SunpipeError):
    """Command-line options that do not go together."""

    exit_code = EXIT_USAGE


class DataError(SunpipeError):
    """A file that cannot be used: truncated, of the wrong instrument, of another run."""


class Stopped(SunpipeError):
    """Stopped on request after saving; the same command continues."""

    exit_code = EXIT_STOPPED


class RankLost(SunpipeError):
    """A rank died, hung, or its device failed: nobody's mistake, the same command continues."""

    exit_code = EXIT_LOST
