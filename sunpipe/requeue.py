"""Starting a training job again after it lost a rank: ``python -m sunpipe.requeue CODE ARGS``.

``jobs/_env.sh`` calls it with the exit code of srun and the arguments of
``sunpipe train``, or ``ssl`` and those of ``sunpipe ssl``; the batch scripts of
``sunpipe launch`` name a file that holds them (``--arguments FILE CODE``). A process
that was killed (137), crashed (132, 134, 135, 136, 139), got USR2 while Python itself was
starting (138), or lost as the ranks that are left say (76), is nobody's mistake in
the configuration, and the next start continues from the last checkpoint; but what
dies again and again at the same place is given up. srun returns the highest code
of all ranks.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sunpipe.checkpoint import complete
from sunpipe.config import load_config
from sunpipe.errors import EXIT_LOST, DataError, SunpipeError, UsageError
from sunpipe.files import read_json, write_json
from sunpipe.paths import Layout
from sunpipe.run import find_run, ssl_name
from sunpipe.scontrol import PATIENCE_S, show_job
from sunpipe.stop import requeue, slurm_job

LOST = {EXIT_LOST: "was lost", 132: "met an illegal instruction", 134: "aborted",
        135: "died of a bus error", 136: "died of an arithmetic error", 137: "was killed",
        138: "was asked to stop before it could listen", 139: "crashed"}  # fmt: skip
SCHEMA = 1


def decide(code: int, reached: str, before: tuple[str, int], most: int) -> tuple[bool, int]:
    """Whether to start again, and how often in a row that was without progress.

    Parameters
    ----------
    code : int
        Exit code of the training.
    reached : str
        Newest checkpoint now, ``<run>/<checkpoint>``, empty if there is none.
    before : tuple of str and int
        Newest checkpoint that there ever was at a loss of this job, and the count at
        the last one.
    most : int
        Restarts without a newer checkpoint. One that is older than before, of a run
        before that, or gone, is no progress: a loop over it must end.
    """
    count = 0 if reached > before[0] else before[1]
    again = code in LOST and count < most
    return again, count + again


def newest_checkpoint(arguments: Sequence[str]) -> str:
    """Newest complete checkpoint of the run that these arguments of ``sunpipe train`` name.

    Of ``sunpipe ssl``, when ``ssl`` is the first of them. ``sunpipe pipeline`` also takes a
    configuration that stands alone.
    """
    encoder = arguments[:1] == ["ssl"]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-c", "--config", type=Path)
    parser.add_argument("-s", "--set", action="append", default=[])
    parser.add_argument("--cluster")  # of a pipeline: another file
    known, others = parser.parse_known_args(arguments)
    alone = next((Path(word) for word in others if word.endswith(".toml")), None)
    name = load_config(known.config or alone, known.set).name
    run = find_run(Layout.current(), ssl_name(name) if encoder else name)
    found = complete(run / "checkpoints") if run else []
    return f"{found[-1].parents[1].name}/{found[-1].name}" if found else ""


def most_requeues() -> int:
    """``SUNPIPE_MAX_REQUEUES``, else 3."""
    word = os.environ.get("SUNPIPE_MAX_REQUEUES", "3")
    if not re.fullmatch(r"\d{1,3}", word):
        raise UsageError(f"SUNPIPE_MAX_REQUEUES={word!r} is not a whole number")
    return int(word)


def still_wanted(job: str) -> bool:
    """Whether Slurm has not cancelled or ended the job meanwhile.

    Where scontrol is missing, the batch script looks before it asks (`sunpipe.stop.requeue`).
    Where the controller does not answer, it is asked to start the job again all the same:
    it refuses one that was cancelled.
    """
    if shutil.which("scontrol") is None:
        return True
    shown = show_job(job, PATIENCE_S)
    return shown is None or " JobState=RUNNING " in shown


def after_loss(code: int, arguments: Sequence[str]) -> str:
    """Requeue this job if it may, and say what was done; the caller keeps the exit code."""
    job = slurm_job()
    if job is None:
        return ""
    if code not in LOST:
        return f"exit code {code} is no loss of a rank, not started again" if code > 128 else ""
    if not still_wanted(job):
        return ""
    most, reached = most_requeues(), newest_checkpoint(arguments)
    notes = Layout.current().root / "requeues" / f"{job}.json"
    stored = read_json(notes) if notes.exists() else {}
    start = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if stored.get("start", -1) >= start:  # of another job: Slurm's numbers begin again
        stored = {}
    before = str(stored.get("reached", "")), int(stored.get("count", 0))
    again, count = decide(code, reached, before, most)
    what = f"a rank {LOST[code]} (exit code {code})"
    place = f"at checkpoint {reached}" if reached else "before the first checkpoint"
    if not again:
        return f"{what}; {most} restarts {place} did not help, the job ends here"
    notes.parent.mkdir(parents=True, exist_ok=True)
    furthest = max(reached, before[0])
    write_json(notes, {"schema": SCHEMA, "reached": furthest, "count": count, "start": start})
    print(f"sunpipe: {what}; Slurm starts the job again, restart {count} of {most} {place}",
          file=sys.stderr, flush=True)  # fmt: skip
    return "" if requeue() else "Slurm did not take the job again; submit it once more"


def stored_arguments(path: Path) -> list[str]:
    """What stands in a file behind ``sunpipe``, in the form of the command line's arguments."""
    words = read_json(path)
    if not isinstance(words, list) or words[:1] not in (["train"], ["ssl"]):
        raise DataError(f"{path} holds no arguments of a training")
    return [str(word) for word in (words[1:] if words[0] == "train" else words)]


def main() -> None:
    """``python -m sunpipe.requeue CODE [ssl] [arguments of sunpipe train, or of ssl]``.

    Or ``--arguments FILE CODE``, where FILE is a JSON list of them.
    """
    try:
        words = sys.argv[1:]
        if words[0] == "--arguments":
            words = [words[2], *stored_arguments(Path(words[1]))]
        said = after_loss(int(words[0]), words[1:])
    except (SunpipeError, OSError) as error:
        said = f"not started again: {error}"
    if said:
        print(f"sunpipe: {said}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
