"""Which stages have to be started, and why: decided from receipts, without starting anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpc.stages import STAGES
from sunpipe import receipts
from sunpipe.made import archive_gaps
from sunpipe.paths import Layout
from sunpipe.settings import Config


@dataclass(frozen=True)
class Decision:
    """What is to become of one stage.

    Attributes
    ----------
    why : str
        Why it is started; empty: it is done.
    parts : tuple of int
        Those of an array that are left to do, from 1; empty: all of them.
    """

    why: str
    parts: tuple[int, ...] = ()

    @property
    def run(self) -> bool:
        """Whether the stage is started."""
        return bool(self.why)

    def line(self, stage: str) -> str:
        """For a person: ``index: done``, or ``shard: shard.stride changed``."""
        return f"{stage}: {self.why or 'done'}"


def waits_for(stage: str, running: Sequence[str]) -> list[str]:
    """Those of `running` that `stage` reads, directly or through a stage that does."""
    reads = receipts.KINDS[stage].reads
    return list(dict.fromkeys(name for name in running if name in reads))


def decide_one(
    stage: str, cfg: Config, layout: Layout, running: Sequence[str] = (), count: int = 1,
    again: bool = False,
) -> Decision:  # fmt: skip
    """Whether to start one stage.

    Parameters
    ----------
    running : sequence of str
        Stages before it that are started.
    count : int
        Parts it would be started in.
    again : bool
        Start it even if it is done.
    """
    if again:
        return Decision("asked for again")
    if before := waits_for(stage, running):
        return Decision(f"after {', '.join(before)}")
    why = receipts.why_run(stage, cfg, layout)
    if stage == "fetch" and not why and receipts.why_run("shard", cfg, layout):
        why = archive_gaps(layout)  # who has the shards may give the FITS files away
    if not why or count == 1 or not STAGES[stage].parts:
        return Decision(why)
    done = receipts.done_parts(stage, cfg, layout, count)
    left = tuple(number for number in range(1, count + 1) if number not in done)
    if not done or not left:  # all parts ended well, and yet it is not whole: all of them again
        return Decision(why)
    listed = ", ".join(map(str, left[:8])) + (", ..." if len(left) > 8 else "")
    return Decision(f"of {count} parts {listed} did not end well", left)


def decide(
    names: Sequence[str], cfg: Config, layout: Layout, counts: Mapping[str, int],
    again: bool = False, queued: Sequence[str] = (),
) -> dict[str, Decision]:  # fmt: skip
    """What to start of `names`, in their order; see `decide_one`.

    `queued` are stages that wait or run already: those that read them are started too.
    """
    decisions: dict[str, Decision] = {}
    for name in names:
        running = [*queued, *(stage for stage, made in decisions.items() if made.run)]
        decisions[name] = decide_one(name, cfg, layout, running, counts.get(name, 1), again)
    return decisions
