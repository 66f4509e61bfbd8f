"""Faults of ranks: killed, stopped, hit by storms of signals, crashing at every start."""

from __future__ import annotations

import random
import signal
import time

from benchmarks.faults_rig import BOUND_S, Rig, Seen, kill, require, until


def rank_killed(rig: Rig, number: int) -> Seen:
    """SIGKILL of one rank at a random moment of its training; the job goes on by itself."""
    chance = random.Random(number)
    one = rig.training(f"rank-killed-{number}")
    one.submit()
    one.first_images()
    time.sleep(chance.uniform(0, 4))
    victim = chance.randrange(2)
    before, alive, reached = one.text(), one.pids(), one.newest
    require(len(alive) == 2, f"{len(alive)} ranks before the kill")
    fault = time.monotonic()
    kill(one.pids(victim))
    detected = until("end of the other rank", lambda: not set(alive) & set(one.pids()), BOUND_S)
    again = one.again(before, fault)
    one.completes()
    require(one.newest >= reached, "an older checkpoint than before")
    require(rig.state(one.job)["Restarts"] == "1", "not one restart")
    said = one.lines(f"rank {victim} ended without a word")
    require(bool(said), f"rank {victim} is not named")
    return Seen("resumed", said[-1], detected, again)


def rank_killed_at_start(rig: Rig, number: int) -> Seen:
    """SIGKILL of one rank before the first checkpoint; the job starts once more."""
    one = rig.training(f"rank-killed-start-{number}")
    one.submit()
    until("both ranks", lambda: len(one.pids()) == 2)
    time.sleep(random.Random(number).uniform(0, 8))
    require(not one.newest, "too late: there is a checkpoint")
    alive = one.pids()
    fault = time.monotonic()
    kill(one.pids(number % 2))
    detected = until("end of the other rank", lambda: not set(alive) & set(one.pids()), BOUND_S)
    until("training", lambda: one.newest or one.ended(), 200)
    again = time.monotonic() - fault
    one.completes()
    said = one.lines("Slurm starts the job again, restart 1 of 3 before the first checkpoint")
    require(len(said) == 1, "the restart is not said")
    return Seen("resumed", said[0], detected, again)


def rank_stopped(rig: Rig, number: int) -> Seen:
    """SIGSTOP of one rank (a hang): named within ``train.timeout_s``, here 60 s."""
    one = rig.training(f"rank-stopped-{number}")
    one.submit()
    one.first_images()
    before, alive, victim = one.text(), one.pids(), number % 2
    stopped = one.pids(victim)
    fault = time.monotonic()
    kill(stopped, signal.SIGSTOP)
    left = set(alive) - set(stopped)
    detected = until("end of the other rank", lambda: not left & set(one.pids()), BOUND_S)
    again = one.again(before, fault)
    require(not set(stopped) & set(one.pids()), "the stopped rank is still there")
    one.completes()
    said = one.lines(rf"rank {victim} .*(answer|step|silent|hang|hung)")
    require(bool(said), f"rank {victim} is not named: {one.text()[len(before) :][:600]}")
    return Seen("resumed", said[0], detected, again)


def _storm(rig: Rig, number: int, name: str, kind: signal.Signals) -> Seen:
    chance = random.Random(number)
    one = rig.training(f"{name}-{number}")
    one.submit()
    one.first_images()
    time.sleep(chance.uniform(0, 2))
    before = one.text()
    alive = one.pids()
    fault = time.monotonic()
    for _ in range(100):  # in bursts, over a step, the save and the end
        kill(alive, kind)
        time.sleep(chance.choice((0.0, 0.0, 0.002, 0.05)))
    detected = until("end of the ranks", lambda: not set(alive) & set(one.pids()), BOUND_S)
    new = one.text()[len(before) :]
    require("Traceback" not in new, f"a traceback: {new[-500:]}")
    if kind == signal.SIGUSR2:
        again = one.again(before, fault)
        require(rig.state(one.job)["Restarts"] == "1", "not one restart")
        outcome = "resumed"
    else:  # a request to end: Slurm does not start it again, the user does
        until("end of the job", one.ended, BOUND_S)
        again, outcome = None, "stopped clearly"
        one.submit()
    one.completes()
    said = one.lines("stopped by SIG.* after a checkpoint")
    require(1 <= len(said) <= 2, f"{len(said)} lines tell of the stop")  # one from each rank
    # each checkpoint was written once: a second save of the same one would say so
    saved = [line.split(",")[0] for line in one.lines(r"^checkpoint kimg-\S+, ", "log.txt")]
    require(len(saved) == len(set(saved)), "a checkpoint was written twice")
    return Seen(outcome, said[0], detected, again)


def sigterm_storm(rig: Rig, number: int) -> Seen:
    """100 SIGTERM to every rank in bursts: one checkpoint, a clear stop, exact continuation."""
    return _storm(rig, number, "sigterm-storm", signal.SIGTERM)


def usr2_storm(rig: Rig, number: int) -> Seen:
    """100 USR2 to every rank in bursts: one checkpoint, one requeue, exact continuation."""
    return _storm(rig, number, "usr2-storm", signal.SIGUSR2)


CRASH = """\
import os
if "SLURM_SRUN_COMM_HOST" in os.environ:
    os.kill(os.getpid(), 9)
"""


def requeue_storm(rig: Rig, number: int) -> Seen:
    """Every rank dies at every start: given up after three restarts without progress."""
    one = rig.training(f"requeue-storm-{number}")
    (one.root / "sitecustomize.py").write_text(CRASH)
    (one.root / "setup.sh").write_text(f"export PYTHONPATH={one.root}\n")
    fault = time.monotonic()
    one.submit(options=(f"--export=ALL,SUNPIPE_SETUP={one.root}/setup.sh",))
    until("the end of the storm", one.ended, 300)
    row = rig.state(one.job)
    require(row["JobState"] == "FAILED", f"ended as {row['JobState']}")
    require(row["Restarts"] == "3", f"{row['Restarts']} restarts")
    said = one.lines("did not help, the job ends here")
    require(len(said) == 1, "the end is not said")
    (one.root / "setup.sh").write_text("")  # the fault is mended: the same command trains
    one.submit()
    one.completes()
    return Seen("stopped clearly", said[0], time.monotonic() - fault, None)


CASES = {
    "rank killed": (rank_killed, 12),
    "rank killed before the first checkpoint": (rank_killed_at_start, 4),
    "rank stopped": (rank_stopped, 2),
    "SIGTERM storm": (sigterm_storm, 5),
    "USR2 storm": (usr2_storm, 5),
    "crash at every start": (requeue_storm, 2),
}
