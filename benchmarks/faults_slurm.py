"""Faults of the cluster: nodes, daemons, the controller, limits, preemption, double submission."""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.faults_rig import BOUND_S, REPO, Rig, Seen, Training, Wrong, kill, require, until
from hpc.cluster import Cluster

SLURMD_TIMEOUT_S = 20  # of the campaign's cluster; 300 s is Slurm's default
CONF = """
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=INFINITE State=UP
"""


def configure(cluster: Cluster) -> None:
    """A second partition that preempts the first, and a node that is given up sooner."""
    text = cluster.conf.read_text()
    text = re.sub(r"SlurmdTimeout=\d+", f"SlurmdTimeout={SLURMD_TIMEOUT_S}", text)
    text = text.replace("PartitionName=main ", "PartitionName=main GraceTime=40 ")
    cluster.conf.write_text(text + CONF)
    cluster.restart("slurmctld")
    for number in range(1, cluster.state["nodes"] + 1):
        cluster.restart(f"slurmd-n{number}")
    until("all nodes", lambda: _idle(cluster) == cluster.state["nodes"], 60)


def _idle(cluster: Cluster) -> int:
    shown = cluster.command("sinfo", "--noheader", "--partition=main", "--Node", "--format=%T")
    return shown.stdout.split().count("idle")


def _mend(rig: Rig, node: str) -> None:
    rig.cluster.restart(f"slurmd-{node}")
    until(f"{node} to be back", lambda: "DOWN" not in rig.slurm("scontrol", "show", "node", node)
          .stdout, 60)  # fmt: skip


def _nodes(rig: Rig, one: Training) -> list[str]:
    shown = rig.slurm("scontrol", "show", "hostnames", rig.state(one.job)["NodeList"]).stdout
    return shown.split()


def _lost(rig: Rig, number: int, name: str, first: bool) -> Seen:
    """A node goes with all that ran on it; Slurm requeues the job on the others."""
    one = rig.training(f"{name}-{number}")
    one.submit()
    one.first_images()
    node = _nodes(rig, one)[0 if first else 1]
    before, alive, reached = one.text(), one.pids(), one.newest
    fault = time.monotonic()
    kill([rig.daemon_pid(f"slurmd-{node}"), *rig.on_node(node)])
    try:
        left = until("end of the ranks", lambda: not set(alive) & set(one.pids()), BOUND_S)
        again = one.again(before, fault)
        require(node not in _nodes(rig, one), f"it runs on the lost {node}")
        one.completes()
    finally:
        _mend(rig, node)
    require(one.newest >= reached, "an older checkpoint than before")
    said = one.lines("ended without a word") or one.lines("^resumed from")
    return Seen("resumed", said[0], left, again)


def node_lost(rig: Rig, number: int) -> Seen:
    """SIGKILL to a node's slurmd, slurmstepds and tasks: the second node, that of rank 1."""
    return _lost(rig, number, "node-lost", first=False)


def first_node_lost(rig: Rig, number: int) -> Seen:
    """SIGKILL to all on the first node: batch script, srun, rank 0."""
    return _lost(rig, number, "first-node-lost", first=True)


def _daemon(rig: Rig, number: int, name: str, first: bool) -> Seen:
    """Only the node's slurmd goes and stays away; its ranks live on until they are told."""
    one = rig.training(f"{name}-{number}")
    one.submit(kimg=10)  # it still trains when the node is given up
    one.first_images()
    node = _nodes(rig, one)[0 if first else 1]
    before = one.text()
    fault = time.monotonic()
    kill([rig.daemon_pid(f"slurmd-{node}")])
    try:
        until("the node to be given up", lambda: rig.state(one.job)["Restarts"] == "1"
              or one.ended(), BOUND_S + SLURMD_TIMEOUT_S)  # fmt: skip
        detected = time.monotonic() - fault
        again = one.again(before, fault)
        rig.slurm("scancel", one.job)
        until("the end", lambda: one.ended() and not one.pids(), BOUND_S)
    finally:
        _mend(rig, node)
    reached = int(one.newest[5:].replace(".", ""))
    straight = rig.training(f"{name}-straight-{number}")
    for each in (one, straight):
        each.submit(kimg=(reached + 16) / 1000)
    until("both ends", lambda: one.ended() and straight.ended(), 400)
    rig.reference["other"] = straight.digests()
    one.same("other")
    said = one.lines("node failure|NODE FAIL|ended without a word|another process|resumed from")
    return Seen("resumed", said[0], detected, again)


def daemon_lost(rig: Rig, number: int) -> Seen:
    """SIGKILL to the slurmd of rank 1's node, not of its ranks, for longer than SlurmdTimeout."""
    return _daemon(rig, number, "daemon-lost", first=False)


def first_daemon_lost(rig: Rig, number: int) -> Seen:
    """The same of rank 0's node: the old rank 0 must not hold the run against the new one."""
    return _daemon(rig, number, "first-daemon-lost", first=True)


def daemon_restarted(rig: Rig, number: int) -> Seen:
    """SIGKILL to a slurmd that is back after five seconds: the job goes on undisturbed."""
    one = rig.training(f"daemon-restarted-{number}")
    one.submit()
    one.first_images()
    node, alive = _nodes(rig, one)[number % 2], one.pids()
    kill([rig.daemon_pid(f"slurmd-{node}")])
    time.sleep(5)
    _mend(rig, node)
    require(one.ended() or one.pids() == alive, "other processes than before")
    one.completes()
    require(rig.state(one.job)["Restarts"] == "0", "restarted")
    return Seen("not disturbed", one.lines("^state: done")[0])


def controller_killed(rig: Rig, number: int) -> Seen:
    """SIGKILL to slurmctld during a run, back after some seconds: the job goes on undisturbed."""
    one = rig.training(f"controller-{number}")
    one.submit()
    one.first_images()
    alive, before = one.pids(), one.newest
    kill([rig.daemon_pid("slurmctld")])
    time.sleep(3 + number)
    gone = one.newest > before  # it trained on without a controller
    rig.cluster.restart("slurmctld")
    require(gone, "no checkpoint while the controller was away")
    require(one.ended() or one.pids() == alive, "other processes than before")
    one.completes()
    require(rig.state(one.job)["Restarts"] == "0", "restarted")
    return Seen("not disturbed", one.lines("^state: done")[0])


def time_limit(rig: Rig, number: int) -> Seen:
    """``--time=2``: the warning, one checkpoint, requeue, until the training is done."""
    one = rig.training(f"time-limit-{number}")
    long = 2.4
    one.submit(options=("--time=2", "--signal=USR2@25"), kimg=long)
    one.first_images()
    until("the end", one.ended, 600)
    row = rig.state(one.job)
    require(row["JobState"] == "COMPLETED", f"{row['JobState']}: {one.text()[-400:]}")
    require(int(row["Restarts"]) >= 1, "it never met its limit")
    straight = rig.training(f"time-limit-straight-{number}")
    straight.submit(kimg=long)
    until("the undisturbed run", straight.ended, 600)
    rig.reference["long"] = straight.digests()
    one.same("long")
    said = sorted(set(one.lines("stopped by SIGUSR2 at")))  # each rank says it
    require(len(said) == int(row["Restarts"]), f"{len(said)} stops, {row['Restarts']} restarts")
    return Seen("resumed", said[-1], more={"restarts": int(row["Restarts"])})


def preempted(rig: Rig, number: int) -> Seen:
    """A job of a higher partition takes the nodes (PreemptMode=REQUEUE, GraceTime 40 s)."""
    one = rig.training(f"preempted-{number}")
    one.submit()
    one.first_images()
    before, reached = one.text(), one.newest
    alive = one.pids()
    fault = time.monotonic()
    urgent = rig.slurm("sbatch", "--parsable", "--partition=urgent", "--nodes=4", "--exclusive",
                       f"--output={one.root}/urgent.txt", "--wrap=sleep 5")  # fmt: skip
    require(urgent.returncode == 0, urgent.stderr)
    detected = until("the ranks to make room", lambda: not set(alive) & set(one.pids()), BOUND_S)
    again = one.again(before, fault)
    one.completes()
    require(one.newest >= reached, "an older checkpoint than before")
    said = one.lines("stopped by SIG")
    require(bool(said), "no line of a clean stop")
    return Seen("resumed", said[0], detected, again)


def submitted_twice(rig: Rig, number: int) -> Seen:
    """The same training submitted twice: the second is refused, the first not disturbed."""
    one, chance = rig.training(f"twice-{number}"), number % 2
    first = one.submit()
    if chance:
        one.first_images()
    second = one.submit(options=(f"--output={one.root}/second.txt",))
    ends = until("an end of one", lambda: one.ended(first) or one.ended(second), BOUND_S)
    until("both ends", lambda: one.ended(first) and one.ended(second), 300)
    states = sorted(rig.state(job)["JobState"] for job in (first, second))
    require(states == ["COMPLETED", "FAILED"], f"{states}")
    text = one.text() + (one.root / "second.txt").read_text()
    said = re.findall(r".*another .*", text)
    if not said:
        raise Wrong(f"the refusal is not said: {text[-300:]}")
    require("Slurm starts the job again" not in text, "the refused one was started again")
    one.same()
    return Seen("refused", said[0], ends)


def lock_after_crash(rig: Rig, number: int) -> Seen:
    """All ranks and the job killed with SIGKILL: the next submission takes the lock at once."""
    one = rig.training(f"lock-{number}")
    job = one.submit()
    one.first_images()
    kill(one.pids())
    rig.slurm("scancel", job)
    until("the end", lambda: one.ended(job) and not one.pids(), BOUND_S)
    before, fault = one.text(), time.monotonic()
    one.submit()
    again = one.again(before, fault)
    one.completes()
    return Seen("resumed", one.lines("resumed from")[0], None, again)


def secrets(rig: Rig, number: int) -> Seen:
    """A planted e-mail and W&B key: in no file of the data root, no script, no command line."""
    mail, key = "planted-mail@example.org", "planted0wandb0key0" + "0" * 22
    one = rig.training(f"secrets-{number}")
    config, profile = rig.work / "secret.toml", rig.work / "profile.toml"
    tiny = REPO / "configs/tiny.toml"
    config.write_text(f'extends = "{tiny}"\n[fetch]\nemail = "{mail}"\n')
    profile.write_text('[default]\ntime = "00:10:00"\n')
    secret = {"JSOC_EMAIL": mail, "WANDB_API_KEY": key}
    argv = (sys.executable, "-m", "sunpipe", "launch", "fetch", "-c", str(config),
            "--cluster", str(profile), "--json")  # fmt: skip
    sent = rig.slurm(*argv, root=one.root, env=secret)
    require(sent.returncode == 0, sent.stderr[-300:])
    fetched = json.loads(sent.stdout)["job"]
    one.submit("-c", str(config), env=secret)
    words: set[str] = set()

    def ended() -> bool:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words.add(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        return one.ended() and one.ended(fetched)

    until("both ends", ended, 400)
    states = [rig.state(job)["JobState"] for job in (fetched, one.job)]
    require(states == ["COMPLETED", "COMPLETED"], f"{states}: {one.text()[-300:]}")
    require(any("sunpipe" in line for line in words), "no command line was seen")
    shown = [line for line in words if mail in line or key in line]
    require(not shown, f"on a command line: {shown[:1]}")
    files = [file for file in one.root.rglob("*") if file.is_file()]
    held = [file for file in files if _holds(file, mail, key)]
    require(not held, f"in {held[:3]}")
    return Seen("not disturbed", f"{len(files)} files, {len(words)} command lines without them",
                more={"files": len(files), "command_lines": len(words)})  # fmt: skip


def _holds(file: Path, *words: str) -> bool:
    content = file.read_bytes()
    return any(word.encode() in content for word in words)


CASES = {
    "planted secrets": (secrets, 1),
    "node lost": (node_lost, 3),
    "first node lost": (first_node_lost, 3),
    "slurmd lost, ranks live on": (daemon_lost, 2),
    "slurmd of rank 0 lost, ranks live on": (first_daemon_lost, 2),
    "slurmd restarted": (daemon_restarted, 4),
    "controller killed": (controller_killed, 4),
    "time limit": (time_limit, 1),
    "preempted by another partition": (preempted, 4),
    "submitted twice": (submitted_twice, 4),
    "killed with its lock": (lock_after_crash, 3),
}
