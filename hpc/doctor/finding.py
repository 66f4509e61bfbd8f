"""What a check found: OK, WARN or MISS, what was seen, and the line that fixes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["OK", "WARN", "MISS"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes
    ----------
    name : str
        What was checked.
    level : str
        ``OK``; ``WARN``: it works, but not as well or not everywhere; ``MISS``: a stage will fail.
    seen : str
        What was seen, with numbers.
    fix : str
        A command or a setting; empty when there is nothing to fix.
    seconds : float
        How long the check took.
    """

    name: str
    level: Level
    seen: str
    fix: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.level != "OK" and not self.fix:
            raise ValueError(f"{self.name}: what is not OK needs a line that fixes it")

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"name": self.name, "level": self.level, "seen": self.seen, "fix": self.fix,
                "seconds": round(self.seconds, 3)}  # fmt: skip


def worst(findings: list[Finding]) -> Level:
    """The gravest level."""
    order: tuple[Level, ...] = ("MISS", "WARN", "OK")
    return next((level for level in order if any(one.level == level for one in findings)), "OK")
