"""Why a job waits, in words."""

from __future__ import annotations

from hpc.slurm_query import Job
from hpc.status.text import duration, plain

# squeue(1) and slurm.h, job_state_reason; what is not here is shown as Slurm writes it
WORDS = {
    "None": "just submitted; the scheduler has not looked at it yet",
    "Priority": "others are before it in the queue",
    "Resources": "next in the queue; waits for nodes to become free",
    "Dependency": "waits for the jobs before it",
    "DependencyNeverSatisfied": "a job before it failed: cancel it and submit again",
    "JobHeldUser": "held by you: scontrol release {job}",
    "JobHeldAdmin": "held by an administrator",
    "JobArrayTaskLimit": "as many tasks of its array run as may run at one time",
    "PartitionTimeLimit": "asks for more time than its partition allows: it will never start",
    "PartitionNodeLimit": "asks for more nodes than its partition allows: it will never start",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition takes no jobs to start now",
    "ReqNodeNotAvail": "nodes it needs are down, drained or reserved",
    "NodeDown": "a node that it needs is down",
    "BadConstraints": "no node can ever give what it asks for: it will never start",
    "Licenses": "waits for a licence",
    "Reservation": "waits for its reservation",
    "InvalidAccount": "its account is not valid: correct account in the profile",
    "InvalidQOS": "its QOS is not valid: correct qos in the profile",
    "AccountNotAllowed": "its account may not use this partition",
    "QOSNotAllowed": "its QOS may not be used here",
    "FrontEndDown": "Slurm's front end is down",
    "Cleaning": "its last run is being cleaned up",
    "launch failed requeued held": "could not be started and is held: scontrol release {job}",
    "job requeued in held state": "held after a requeue: scontrol release {job}",
}

# states in which a job that was started does nothing: squeue(1), JOB STATE CODES
IDLE = {
    "suspended": "suspended by Slurm or an administrator; it goes on by itself when others are done"
                 ", or after scontrol resume {job}",
    "stopped": "stopped with SIGSTOP: scancel --signal=CONT {job}",
    "configuring": "its nodes are being started",
}  # fmt: skip
HELD = ("JobHeldUser", "JobHeldAdmin", "launch failed requeued held", "job requeued in held state")


def why_idle(job: Job) -> str:
    """Why a job that has nodes does nothing; empty if it runs."""
    return IDLE.get(job.state, "").format(job=plain(job.job, 20))


def why_pending(job: Job, now: float, restarts: int = 0) -> str:
    """Why `job` waits, with the time at which Slurm expects to start it.

    Parameters
    ----------
    now : float
        Unix time.
    restarts : int
        How often Slurm started it again: it lets such a job wait before the next start.
    """
    reason = job.reason.strip("()")
    head = reason.partition(",")[0].strip()
    # squeue gives an estimate only for some jobs; one in the past says nothing
    in_s = job.started - now if job.started and job.started > now and head not in HELD else None
    if head == "BeginTime":
        begin = "starts again after a requeue" if restarts else "starts at the time asked for"
        return begin if in_s is None else f"{begin}, in {duration(in_s)}"
    if head == "Dependency" and job.dependency:
        waits = ", ".join(_dependencies(job.dependency))
        return f"waits for {waits}" if waits else WORDS[head]
    words = WORDS.get(head, "")
    if not words and head.startswith(("QOS", "Assoc", "MaxCpu", "MaxJob", "MaxMem")):
        words = f"a limit of your {'QOS' if head.startswith('QOS') else 'account'} is reached" \
                f" ({plain(head, 60)})"  # fmt: skip
    words = words.format(job=plain(job.job, 20)) or f"Slurm says: {plain(reason, 80)}"
    return words if in_s is None else f"{words}; expected in {duration(in_s)}"


def _dependencies(text: str) -> list[str]:
    """Numbers in ``afterok:12_*(unfulfilled),afterok:14(unfulfilled)``."""
    found = []
    for part in text.replace("?", ",").split(","):
        numbers = part.partition("(")[0].split(":")[1:]
        found += [f"job {plain(number.removesuffix('_*'), 24)}" for number in numbers if number]
    return list(dict.fromkeys(found))
