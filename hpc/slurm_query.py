"""What Slurm's own commands say about jobs and nodes: squeue and scontrol, no sacct.

Both work for every user of Slurm 20.11 and later, with and without accounting.
A job's name may hold any character, also a newline: fields are parted by a word
that is chosen at random for each call, so that no name can pass for a field.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hpc.slurm_words import count_gpus, count_tasks, node_state, span, unix_time
from sunpipe.errors import DataError

PATIENCE_S = 20.0
NO_CONFIGURATION = "Could not establish a configuration source"  # installed, but of no cluster
# job, array, and so on: squeue(1), OUTPUT FORMAT; the name is last
CODES = "iAFKuPTrDCNVSelLEbj"
ENDED = frozenset(
    ("completed", "failed", "cancelled", "timeout", "node_fail", "out_of_memory", "preempted",
     "boot_fail", "deadline", "revoked", "launch_failed", "reconfig_fail")
)  # fmt: skip


class NoSlurm(DataError):
    """Slurm's commands are not installed on this machine, or it belongs to no cluster."""


@dataclass(frozen=True)
class Job:
    """One job, array task, or the waiting rest of an array.

    Attributes
    ----------
    id : str
        As squeue shows it: ``12``, ``12_3``, ``12_[4-9%2]``.
    job : str
        Number of its own; it differs from `array` for the tasks of an array.
    array : str
        Number of the whole array; that of the job where there is none.
    state : str
        In small letters, for example ``pending``, ``running``, ``node_fail``.
    reason : str
        Why it waits or how it ended, in Slurm's words; ``None`` is none.
    nodes, cpus : int
    node_list : str
        As Slurm writes it, ``n[1-3]``; empty while it waits.
    submitted, started, ends : float or None
        Unix times; `started` is an estimate while it waits, `ends` the time limit
        while it runs.
    limit, left : float or None
        Seconds; None where there is no limit.
    dependency : str
    gres : str
        Per node, for example ``gres/gpu:2``; empty if none were asked for.
    name : str
        Whatever its owner wrote.
    tasks : int
        1, or how many tasks of an array still wait in this row.
    """

    id: str
    job: str
    array: str
    user: str
    partition: str
    state: str
    reason: str
    nodes: int
    cpus: int
    node_list: str
    submitted: float | None
    started: float | None
    ends: float | None
    limit: float | None
    left: float | None
    dependency: str
    gres: str
    name: str
    tasks: int = 1

    @property
    def ended(self) -> bool:
        """Whether it will not run any more; Slurm shows such jobs for some minutes."""
        return self.state in ENDED

    @property
    def stage(self) -> str | None:
        """Stage of sunpipe, from the name that every way of submission gives; else None."""
        prefix, _, stage = self.name.partition("-")
        return stage if prefix == "sunpipe" and re.fullmatch(r"[a-z-]{1,32}", stage) else None


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes
    ----------
    state : str
        idle, mixed, allocated, completing, drained, draining, down or other.
    flags : str
        As Slurm writes the state: ``IDLE+DRAIN``.
    reason : str
        What was written when it was drained or went down; empty otherwise.
    """

    name: str
    host: str
    address: str
    state: str
    flags: str
    partitions: tuple[str, ...]
    cpus: int
    cpus_used: int
    gpus: int
    gpus_used: int
    memory_mb: int
    reason: str


def _environment() -> dict[str, str]:
    """Ours without what changes the output of Slurm's commands."""
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith(("SQUEUE_", "SINFO_", "SCONTROL_", "SLURM_TIME_FORMAT"))
            and key not in ("SLURM_CLUSTERS", "SLURM_JSON", "SLURM_YAML")}  # fmt: skip
    return {**kept, "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0", "LC_ALL": "C"}


def ask_slurm(*argv: str, timeout: float = PATIENCE_S) -> str:
    """Standard output of one of Slurm's commands.

    Raises
    ------
    NoSlurm
        It is not installed.
    DataError
        It fails, or has no answer in time; Slurm's own words are in the message.
    """
    if shutil.which(argv[0]) is None:
        raise NoSlurm(f"{argv[0]} not found: this machine has no Slurm")
    try:
        done = subprocess.run(
            argv, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=timeout, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DataError(f"{argv[0]} has no answer from Slurm after {timeout:g} s") from None
    except OSError as error:
        raise DataError(f"{argv[0]} cannot be started ({error.strerror})") from None
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines() or [f"code {done.returncode}"]
        if any(NO_CONFIGURATION in line for line in words):
            raise NoSlurm(f"{argv[0]} finds no slurm.conf: this machine belongs to no Slurm cluster"
                          " (SLURM_CONF names the file of one elsewhere)")  # fmt: skip
        raise DataError(f"{argv[0]} failed: {words[-1]}")
    return done.stdout


def _whole(text: str) -> int:
    """A count; 0 where Slurm has none."""
    found = re.match(r"(\d+)", text)
    return int(found[1]) if found else 0


def parse_jobs(text: str, word: str) -> list[Job]:
    """Jobs from squeue's output, of which each field begins with `word`."""
    jobs = []
    fields = text.split(word)[1:]  # before the first one is nothing
    if len(fields) % len(CODES):
        raise DataError("squeue answered in another form than asked for")
    absent = ("N/A", "(null)", "n/a")
    for row in _rows(fields):
        (number, job, array, task, user, partition, state, reason, nodes, cpus, node_list,
         submitted, started, ends, limit, left, dependency, gres) = (
            part.strip() for part in row[:-1])  # fmt: skip
        jobs.append(Job(
            number, job, array, user, partition, state.lower(), reason, _whole(nodes),
            _whole(cpus), "" if node_list in absent else node_list, unix_time(submitted),
            unix_time(started), unix_time(ends), span(limit), span(left),
            "" if dependency in absent else dependency, "" if gres in absent else gres,
            row[-1].removesuffix("\n"), count_tasks(task) if "[" in number else 1,
        ))  # fmt: skip
    return jobs


def _rows(fields: Sequence[str]) -> Iterator[Sequence[str]]:
    return (fields[at : at + len(CODES)] for at in range(0, len(fields), len(CODES)))


def slurm_jobs(
    user: str | None = None, ended: bool = True, timeout: float = PATIENCE_S
) -> list[Job]:
    """Jobs that Slurm still knows.

    Parameters
    ----------
    user : str, optional
        Only this user's; all that may be seen otherwise.
    ended : bool
        Also those that ended a short while ago (``MinJobAge``, usually 300 s).

    Raises
    ------
    DataError
        squeue is missing (`NoSlurm`), fails, or does not answer within `timeout` seconds.
    """
    word = f"<{secrets.token_hex(8)}>"
    argv = [
        "squeue",
        "--noheader",
        "--noconvert",
        "--format=" + "".join(f"{word}%{code}" for code in CODES),
    ]
    argv += ["--states=all"] if ended else []
    argv += [f"--user={user}"] if user else []
    return parse_jobs(ask_slurm(*argv, timeout=timeout), word)


def slurm_restarts(user: str | None = None, timeout: float = PATIENCE_S) -> dict[str, int]:
    """How often Slurm started each job again, by `Job.job`."""
    argv = ["squeue", "--noheader", "--states=all", "--Format=JobID:20,RestartCnt:12"]
    text = ask_slurm(*argv, *([f"--user={user}"] if user else []), timeout=timeout)
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _values(line: str) -> Mapping[str, str]:
    """``Key=value`` pairs of one line; the first of each key, as free text stands at the end."""
    found: dict[str, str] = {}
    for key, value in re.findall(r"(?:^| )([A-Za-z]+)=(\S*)", line):
        found.setdefault(key, value)
    return found


def parse_nodes(text: str) -> list[Node]:
    """Nodes from ``scontrol --oneliner --details show node``."""
    nodes = []
    for line in text.splitlines():
        row = _values(line)
        if "NodeName" not in row:
            continue
        reason = re.search(r" Reason=(.*?)(?: \[\S+@\S+\])?(?: Comment=.*)?$", line)
        empty = ("N/A", "(null)")
        nodes.append(Node(
            row["NodeName"], row.get("NodeHostName", row["NodeName"]),
            row.get("NodeAddr", row["NodeName"]), node_state(row.get("State", "")),
            row.get("State", ""),
            tuple(part for part in row.get("Partitions", "").split(",") if part),
            _whole(row.get("CPUTot", "")), _whole(row.get("CPUAlloc", "")),
            0 if row.get("Gres") in empty else count_gpus(row.get("Gres", "")),
            count_gpus(row.get("GresUsed") or row.get("AllocTRES", "")),
            _whole(row.get("RealMemory", "")), reason[1].strip() if reason else "",
        ))  # fmt: skip
    return nodes


def slurm_nodes(timeout: float = PATIENCE_S) -> list[Node]:
    """All nodes that Slurm shows.

    Raises
    ------
    DataError
        scontrol is missing (`NoSlurm`), fails, or does not answer within `timeout` seconds.
    """
    return parse_nodes(ask_slurm("scontrol", "--oneliner", "--details", "show", "node",
                                 timeout=timeout))  # fmt: skip
