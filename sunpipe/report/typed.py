"""How a run was started, as it was typed: the commands of its page act on the same experiment."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from sunpipe.provenance import PRIVATE
from sunpipe.report.runfolder import RunFolder

CONFIG, SET = ("-c", "--config"), ("-s", "--set")


def options(words: Sequence[str], names: tuple[str, str]) -> list[str]:
    """Values of an option among the words of a command, in order.

    Parameters
    ----------
    names : (str, str)
        Short and long: ``-c X``, ``-cX``, ``--config X`` and ``--config=X`` are all understood.

    Returns
    -------
    list of str
        A value may begin as an option does, but an option's name is none.
    """
    found: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        for option in (CONFIG, SET):
            short, long = option
            if word in option:
                values = [each for each in words[place : place + 1] if each not in CONFIG + SET]
                place += len(values)  # a value is not read again as an option
            elif word.startswith(f"{long}="):
                values = [word.removeprefix(f"{long}=")]
            elif word.startswith(short) and not word.startswith("--"):
                values = [word.removeprefix(short)]
            else:
                continue
            found += values if option == names else []
            break
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
    words = [str(word) for word in command[1:]] if isinstance(command, list) else []
    files = [Path(each) for each in options(words, CONFIG)]
    config = files[-1] if files and not files[-1].is_absolute() else None
    return config, tuple(options(words, SET))


def command(stage: str, config: Path | None, sets: Sequence[str] = ()) -> str:
    """What to type to run a stage of an experiment.

    A change that holds the e-mail is left out, however it is written: a page is sent to others.
    """
    file = "CONFIG" if config is None else shlex.quote(str(config))
    changes = "".join(f" --set {shlex.quote(each)}" for each in sets if not PRIVATE.search(each))
    return f"sunpipe {stage} -c {file}{changes}"
