"""Command lines of stages, as lists; nothing here ever becomes shell text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hpc.stages import STAGES, find_stage
from sunpipe.errors import UsageError


def refuse_control(values: Iterable[str], what: str) -> None:
    """Refuse control characters and line separators.

    submitit 1.5.4 lets a newline in a parameter become a line of the batch
    script, and a terminal acts on escape sequences in a log.
    """
    for value in values:
        for place, character in enumerate(value):
            if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
                raise UsageError(f"{what} {value!r} holds a control character at {place}")


def stage_argv(
    stage: str,
    config: Path | None,
    overrides: Sequence[str] = (),
    extra: Sequence[str] = (),
    part: tuple[int, int] | None = None,
) -> list[str]:
    """What stands after ``sunpipe`` to run one stage.

    Parameters
    ----------
    config : Path or None
        Made absolute, because a job may start in another folder.
    overrides : sequence of str
        ``--set`` values.
    extra : sequence of str
        Further options of the stage.
    part : (int, int), optional
        I and N of ``--part I/N``, I from 1.
    """
    argv = [*find_stage(stage).command]
    if config is not None:
        argv += ["--config", str(Path(config).absolute())]
    for override in overrides:
        argv += ["--set", override]
    if part is not None:
        argv += ["--part", f"{part[0]}/{part[1]}"]
    argv += extra
    refuse_control(argv, "argument")
    return argv


def all_parts(
    stage: str,
    count: int,
    config: Path | None,
    overrides: Sequence[str] = (),
    extra: Sequence[str] = (),
    part: tuple[int, int] | None = None,
) -> list[list[str]]:
    """One command line per part; a single one for `part`, or without parts when `count` is 1."""
    if (part or count > 1) and not find_stage(stage).parts:
        having = ", ".join(name for name, found in STAGES.items() if found.parts)
        raise UsageError(f"{stage} has no parts; --array and --part are for {having}")
    if part or count == 1:
        return [stage_argv(stage, config, overrides, extra, part)]
    return [stage_argv(stage, config, overrides, extra, (number, count))
            for number in range(1, count + 1)]  # fmt: skip


def accept_extra(stage: str, extra: Sequence[str]) -> dict[str, Any]:
    """Let a stage's own parser look at the options that are handed on to it.

    A word that the stage does not know would be refused on the node only, and options
    that `launch` has too would send there what was not checked here.

    Returns
    -------
    dict
        Values of the stage's parameters, by name.

    Raises
    ------
    UsageError
        In the words of the stage's parser.
    """
    import typer

    from sunpipe.cli import commands, load_command

    words = find_stage(stage).command
    command = load_command(commands()[words[0]][0], words[0])
    for word in words[1:]:
        command = command.commands[word]
    try:
        values: dict[str, Any] = command.make_context(stage, list(extra)).params
    except typer.TyperException as error:
        raise UsageError(f"{' '.join(words)}: {error.format_message()}") from None
    ours = {"--config": "config", "--set": "set_", "--part": "part"}
    if twice := [option for option, name in ours.items() if values.get(name)]:
        raise UsageError(f"give {', '.join(twice)} to launch itself, not behind --: it is checked"
                         " before anything is queued")  # fmt: skip
    return values
