"""How a run was started, as it was typed: the commands of its page act on the same experiment."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from sunpipe.report.runfolder import RunFolder

CONFIG, SET = ("-c", "--config"), ("-s", "--set")
PRIVATE = "fetch.email"


def options(words: Sequence[str], names: tuple[str, str]) -> list[str]:
    """Values of an option among the words of a command, in order.

    Parameters
    ----------
    names : (str, str)
        Short and long: ``-c X``, ``-cX``, ``--config X`` and ``--config=X`` are all understood.
    """
    short, long = names
    found: list[str] = []
    for place, word in enumerate(words):
        if word in names:
            found += words[place + 1 : place + 2]
        elif word.startswith(f"{long}="):
            found.append(word.removeprefix(f"{long}="))
        elif word.startswith(short) and not word.startswith("--"):
            found.append(word.removeprefix(short))
    return found


def typed(run: RunFolder) -> tuple[Path | None, tuple[str, ...]]:
    """The configuration file that a run was started with, and what ``--set`` changed of it.

    Returns
    -------
    config : Path or None
        As it was typed, the last one that was; None where it is not known or is an absolute
        path, which tells of one machine only.
    sets : tuple of str
        ``section.key=value`` each.
    """
    command = run.provenance.get("command")
    words = [str(word) for word in command] if isinstance(command, list) else []
    files = [Path(each) for each in options(words, CONFIG)]
    config = files[-1] if files and not files[-1].is_absolute() else None
    return config, tuple(options(words, SET))


def command(stage: str, config: Path | None, sets: Sequence[str] = ()) -> str:
    """What to type to run a stage of an experiment.

    The e-mail is left out: a page is sent to others.
    """
    file = "CONFIG" if config is None else shlex.quote(str(config))
    changes = "".join(f" --set {shlex.quote(each)}" for each in sets
                      if each.partition("=")[0].strip() != PRIVATE)  # fmt: skip
    return f"sunpipe {stage} -c {file}{changes}"
