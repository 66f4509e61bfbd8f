"""Metrics of the cluster and of sunpipe's jobs, from Slurm's commands."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from hpc.machine import user_name
from hpc.monitor.collect import NotHere
from hpc.monitor.names import (
    JOB_STATES,
    JOBS_SHOWN,
    NODE_STATES,
    REASONS_SHOWN,
    RESOURCE_STATES,
)
from hpc.monitor.samples import Sample, sample
from hpc.slurm_query import Job, Node, NoSlurm, slurm_jobs, slurm_nodes, slurm_restarts
from hpc.slurm_words import expand_nodes
from hpc.stages import STAGES

OTHER = "other"
OWN_STAGES = (*STAGES, "evaluate", "invert", "pipeline", OTHER)
USUAL_STATES = ("pending", "running")  # shown when there is no such job, too
# Shown before the first one ends, as Prometheus sees no increase in a series that begins at 1.
END_STATES = ("completed", "failed", "cancelled", "timeout", "node_fail", "out_of_memory",
              "preempted", OTHER)  # fmt: skip
ALIKE = {"boot_fail": "node_fail", "launch_failed": "node_fail", "deadline": "timeout",
         "configuring": "running", "signaling": "running", "stage_out": "completing",
         "requeue_hold": "pending", "requeue_fed": "pending", "resv_del_hold": "pending",
         "special_exit": "pending", "stopped": "suspended"}  # fmt: skip


def job_state(state: str) -> str:
    """One of `JOB_STATES`."""
    state = ALIKE.get(state, state)
    return state if state in JOB_STATES else OTHER


def own_stage(job: Job) -> str:
    """One of `OWN_STAGES`; parts of a stage's name count for it."""
    stage = (job.stage or "").partition("-")[0]
    return stage if stage in OWN_STAGES else OTHER


def reason_word(text: str) -> str:
    """Slurm's reason without what follows it: ``ReqNodeNotAvail, UnavailableNodes:n1``."""
    found = re.match(r"[A-Za-z_]{1,40}", text)
    return found[0] if found else "None"


def job_label(job: Job) -> str:
    """What Slurm calls the job; the waiting rest of an array by one name while it shrinks."""
    return f"{job.array}_[]" if "[" in job.id else job.id


def _of_node(node: Node, used: int, total: int) -> dict[str, int]:
    """How many of a node's CPUs or GPUs are allocated, idle, or out of reach."""
    free = max(total - used, 0)
    usable = node.state in ("idle", "mixed", "allocated", "completing")
    idle, other = (free, 0) if usable else (0, free)
    return {"allocated": used, "idle": idle, OTHER: other}


def node_samples(nodes: Sequence[Node]) -> Iterator[Sample]:
    """Nodes, CPUs and GPUs by state, for each partition and once for the cluster."""
    count: Counter[tuple[str, str, str]] = Counter()
    for node in nodes:
        parts = {"cpus": _of_node(node, node.cpus_used, node.cpus),
                 "gpus": _of_node(node, node.gpus_used, node.gpus)}  # fmt: skip
        for partition in ("", *node.partitions):  # "" is the cluster
            count["nodes", partition, node.state if node.state in NODE_STATES else OTHER] += 1
            for kind, of in parts.items():
                for state, number in of.items():
                    count[kind, partition, state] += number
    states = {"nodes": NODE_STATES, "cpus": RESOURCE_STATES, "gpus": RESOURCE_STATES}
    partitions = sorted({name for node in nodes for name in node.partitions})
    for kind, known in states.items():
        for state in known:
            yield sample(f"sunpipe_slurm_cluster_{kind}", count[kind, "", state], state=state)
            for partition in partitions:
                yield sample(f"sunpipe_slurm_{kind}", count[kind, partition, state],
                             partition=partition, state=state)  # fmt: skip


def queue_samples(jobs: Iterable[Job], partitions: Iterable[str]) -> Iterator[Sample]:
    """Jobs of all users by state, and why they wait; tasks of an array count one by one."""
    states = Counter({(name, state): 0 for name in partitions for state in USUAL_STATES})
    reasons: Counter[str] = Counter()
    for job in jobs:
        if job.ended:
            continue
        # one that may run in several partitions counts for the first
        states[job.partition.partition(",")[0], job_state(job.state)] += job.tasks
        if job.state == "pending":
            reasons[reason_word(job.reason)] += job.tasks
    for (partition, state), number in states.items():
        yield sample("sunpipe_slurm_jobs", number, partition=partition, state=state)
    shown = dict(reasons.most_common(REASONS_SHOWN))
    rest = reasons.total() - sum(shown.values())
    for reason, number in {**shown, **({OTHER: rest} if rest else {})}.items():
        yield sample("sunpipe_slurm_pending_jobs", number, reason=reason)


def own_samples(jobs: Sequence[Job], restarts: dict[str, int]) -> Iterator[Sample]:
    """Sunpipe's jobs that wait or run."""
    count = Counter({(stage, state): 0 for stage in OWN_STAGES for state in USUAL_STATES})
    alive = [job for job in jobs if not job.ended]
    for job in alive:
        count[own_stage(job), job_state(job.state)] += job.tasks
    for (stage, state), number in count.items():
        yield sample("sunpipe_slurm_own_jobs", number, stage=stage, state=state)
    for job in sorted(alive, key=lambda job: int(job.job), reverse=True)[:JOBS_SHOWN]:
        label = job_label(job)
        yield sample(
            "sunpipe_slurm_job_info", 1, slurm_job=label, stage=own_stage(job),
            state=job_state(job.state), partition=job.partition, reason=reason_word(job.reason),
        )  # fmt: skip
        if job.job in restarts:
            yield sample("sunpipe_slurm_job_restarts", restarts[job.job], slurm_job=label)
        for node in expand_nodes(job.node_list):
            yield sample("sunpipe_slurm_job_nodes_info", 1, slurm_job=label, node=node)


class Ended:
    """Counts sunpipe's jobs as they end.

    Slurm shows an ended job for some minutes. One that was seen alive and is gone
    counts as other: how it ended is known to the accounting only.
    """

    def __init__(self) -> None:
        self.count = Counter({(stage, state): 0 for stage in OWN_STAGES for state in END_STATES})
        self._alive: dict[str, str] = {}
        self._counted: set[str] | None = None

    def look(self, jobs: Iterable[Job]) -> None:
        """Take in what Slurm shows now; what had ended at the first look is not counted."""
        jobs = list(jobs)
        ended = {job.job: job for job in jobs if job.ended}
        if self._counted is None:
            self._counted = set(ended)
        for number in ended.keys() - self._counted:
            state = job_state(ended[number].state)
            self.count[own_stage(ended[number]), state if state in END_STATES else OTHER] += 1
        alive = {job.job: own_stage(job) for job in jobs if not job.ended}
        for number in self._alive.keys() - alive.keys() - ended.keys():
            self.count[self._alive[number], OTHER] += 1
        self._alive, self._counted = alive, set(ended)

    def samples(self) -> Iterator[Sample]:
        """The counts."""
        for (stage, state), number in self.count.items():
            yield sample("sunpipe_slurm_own_jobs_ended", number, stage=stage, state=state)


class Slurm:
    """The Slurm collector; it also knows the jobs' nodes for service discovery."""

    def __init__(
        self,
        jobs: Callable[[], list[Job]] = slurm_jobs,
        nodes: Callable[[], list[Node]] = slurm_nodes,
        restarts: Callable[[str], dict[str, int]] = slurm_restarts,
    ) -> None:
        self._jobs, self._nodes, self._restarts = jobs, nodes, restarts
        self._ended = Ended()
        self.alive: dict[str, str] | None = None  # states of all jobs that have not ended
        self.own: list[Job] = []
        self.nodes: list[Node] = []

    def read(self) -> list[Sample]:
        """All samples; `NotHere` where there is no Slurm."""
        try:
            jobs, nodes = self._jobs(), self._nodes()
        except NoSlurm as error:
            raise NotHere(f"{error}; nothing about Slurm is served") from None
        me = user_name()
        own = [job for job in jobs if job.user == me and job.name.startswith("sunpipe-")]
        restarts = self._restarts(me) if any(not job.ended for job in own) else {}
        self._ended.look(own)
        self.own, self.nodes = own, nodes
        self.alive = {name: job_state(job.state) for job in jobs if not job.ended
                      for name in (job.id, job.job)}  # fmt: skip
        partitions = sorted({name for node in nodes for name in node.partitions})
        return [*node_samples(nodes), *queue_samples(jobs, partitions),
                *own_samples(own, restarts), *self._ended.samples()]  # fmt: skip
