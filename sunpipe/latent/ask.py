"""What ``sunpipe traverse`` was asked for, checked before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from sunpipe.errors import DataError, UsageError
from sunpipe.latent.amount import parse_amount
from sunpipe.latent.directions import SUFFIX, Directions
from sunpipe.latent.movie import check_movie

HOLD_TOLERANCE = 0.1  # natural standard deviations
PathKind = Literal["auto", "straight", "bent"]


@dataclass(frozen=True)
class Asked:
    """What ``sunpipe traverse`` was asked for.

    Attributes
    ----------
    quantity : str or None
        What is to change; None with `component`.
    by, to : str or None
        The change, or the value to come to, as it was written.
    seed : int
        Of the latent to start from, without `start`.
    conditional : bool
        Walk the direction with all others removed.
    out : Path or None
        Folder for what is written.
    against : tuple of str
        Quantities to remove from the direction.
    hold : tuple of str
        Quantities to keep by measuring.
    hold_tolerance : float
        How far each may drift, in natural standard deviations.
    start : Path or None
        Latent file to start from.
    component : int or None
        Principal component to walk by `by` standard deviations, from 1 on.
    path : {"auto", "straight", "bent"}
        Along the direction, by local responses, or the second where the first fails.
    frames : int
        Of the strip and the table.
    fits : bool
        FITS of every frame, not of both ends alone.
    movie : Path or None
    """

    quantity: str | None
    by: str | None = None
    seed: int = 0
    conditional: bool = False
    out: Path | None = None
    against: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    hold_tolerance: float = HOLD_TOLERANCE
    to: str | None = None
    start: Path | None = None
    component: int | None = None
    path: PathKind = "auto"
    frames: int = 5
    fits: bool = False
    movie: Path | None = None

    @property
    def kind(self) -> str:
        """Which of a target's directions is walked."""
        if self.against:
            return "against"
        return "conditional" if self.conditional else "plain"

    @property
    def target(self) -> str:
        """Name of what is walked."""
        return self.quantity or f"PC{self.component}"


class Wish(NamedTuple):
    """An asked amount: a change, or an absolute value when `absolute`."""

    amount: float
    unit: str
    absolute: bool


def names(text: str | None) -> tuple[str, ...]:
    """Names of a comma-separated list."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def check(asked: Asked) -> None:
    """Refuse options that do not go together.

    Raises
    ------
    UsageError
    """
    if (asked.quantity is None) == (asked.component is None):
        raise UsageError("say what to walk: --quantity NAME, or --component NUMBER")
    if (asked.by is None) == (asked.to is None):
        raise UsageError("say how far: --by AMOUNT, or --to AMOUNT")
    if asked.conditional and asked.against:
        raise UsageError("--conditional removes all others; leave it out to name them by --against")
    if asked.component is not None:
        wrong = [option for option, given in (
            ("--to", asked.to is not None), ("--hold", asked.hold), ("--against", asked.against),
            ("--conditional", asked.conditional),
        ) if given]  # fmt: skip
        if wrong:
            raise UsageError(f"{wrong[0]} needs --quantity; --component goes straight, --by 2")
        if asked.path == "bent":
            raise UsageError("--path bent needs --quantity; --component goes straight")
    if asked.hold and asked.path == "straight":
        raise UsageError("--path straight cannot keep what --hold names; leave one of them out")
    if asked.path == "bent" and asked.kind != "plain":
        option = "--against" if asked.against else "--conditional"
        raise UsageError(f"--path bent has no one direction, so that {option} does not count;"
                         " leave it out, or keep quantities by --hold")  # fmt: skip
    if asked.start is not None and asked.seed:
        raise UsageError("--seed and --from both say where to start; leave one of them out")
    for option, given in (("--hold", asked.hold), ("--against", asked.against)):
        if asked.quantity in given:
            raise UsageError(f"{option} {asked.quantity}: it is what is to change")
        twice = [name for name in given if given.count(name) > 1]
        if twice:
            raise UsageError(f"{option}: {twice[0]} stands twice")
    if not 0 < asked.hold_tolerance < float("inf"):
        raise UsageError(f"--hold-tolerance {asked.hold_tolerance:g}: it must be above 0")
    if asked.hold_tolerance != HOLD_TOLERANCE and not asked.hold:
        raise UsageError("--hold-tolerance needs --hold")
    if asked.movie is not None:
        check_movie(asked.movie)


def _check_measured(option: str, given: Sequence[str], measured: Sequence[str]) -> None:
    for name in given:
        if name not in measured:
            raise DataError(
                f"{option} {name}: it was not measured in the samples; these were:"
                f" {', '.join(measured)}"
            )


def understand(asked: Asked, directions: Directions, measured: Sequence[str]) -> Wish:
    """How far to walk, all names and units checked.

    Parameters
    ----------
    asked : Asked
    directions : Directions
    measured : sequence of str
        Quantities of the samples.
    """
    check(asked)
    if asked.quantity is None:
        if asked.target not in directions.vectors:
            known = sum(key.startswith("PC") and key[2:].isdecimal() for key in directions.vectors)
            raise DataError(
                f"no component {asked.component}: directions holds {known}; raise"
                " directions.components and run sunpipe directions fit again"
            )
        return Wish(parse_amount(asked.by or "", asked.target, "std"), "std", False)
    directions.vector(asked.quantity, asked.conditional)
    for other in asked.against:
        directions.vector(other)  # its own plane is what is removed
        if other + SUFFIX["normal"] not in directions.vectors:
            raise DataError(f"{directions.folder} holds no plane of {other}")
    _check_measured("--quantity", [asked.quantity], measured)
    _check_measured("--hold", asked.hold, measured)
    unit = directions.quantities[asked.quantity]["unit"]
    if asked.to is not None:
        return Wish(parse_amount(asked.to, asked.quantity, unit, "--to"), unit, True)
    return Wish(parse_amount(asked.by or "", asked.quantity, unit), unit, False)
