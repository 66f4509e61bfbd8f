"""What a check found: OK, WARN or MISS, what was seen, and the line that fixes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

BUSY = "Requested nodes are busy"  # srun --immediate, when its seconds have passed
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
    ends : bool
        The checks on the nodes that would follow need what is missing here: they are left out.
    """

    name: str
    level: Level
    seen: str
    fix: str = ""
    seconds: float = 0.0
    ends: bool = False

    def __post_init__(self) -> None:
        if self.level != "OK" and not self.fix:
            raise ValueError(f"{self.name}: what is not OK needs a line that fixes it")

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"name": self.name, "level": self.level, "seen": self.seen, "fix": self.fix,
                "seconds": round(self.seconds, 3)}  # fmt: skip


def not_free(name: str, nodes: int, ends: bool = False) -> Finding:
    """Nodes that others use: no fault, and nothing is known of them."""
    return Finding(name, "WARN", f"{nodes} node{'s' if nodes > 1 else ''} did not come free in time"
                   ": not looked at", "try it later, or inside a job that waits for them: sbatch"
                   f" --nodes={nodes} --wrap 'sunpipe doctor ...'", ends=ends)  # fmt: skip


def worst(findings: list[Finding]) -> Level:
    """The gravest level."""
    order: tuple[Level, ...] = ("MISS", "WARN", "OK")
    return next((level for level in order if any(one.level == level for one in findings)), "OK")
