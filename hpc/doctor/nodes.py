"""What all nodes of an allocation see: the data root, scratch, interface, clock."""

from __future__ import annotations

import json
import secrets
import time
from shutil import which
from typing import Any

from hpc.doctor.ask import Answer, ask
from hpc.doctor.data_root import ELSEWHERE, trial_folder
from hpc.doctor.finding import BUSY, Finding, not_free
from hpc.doctor.place import Place, on_nodes, python_on_nodes
from hpc.status.text import plain

GIB = 2**30
CLOCK_S = 2.0  # apart, from which files of the future and wrong ages begin
SYNC = "have chrony or ntpd started on it; leave it out until then: sbatch --exclude=NODE"


def shown(names: list[str]) -> str:
    """Some of many node names."""
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(plain(name, 40) for name in names[:6]) + more


def clock_bound(told: float, before: float, after: float) -> float:
    """Seconds by which a clock is off at least, when it was read between two readings of ours."""
    return max(0.0, before - told, told - after)


def nodes(place: Place) -> list[Finding]:
    """One task on each node tells what it sees."""
    if place.srun is None:
        return []
    if which("srun", path=place.env.get("PATH")) is None:
        return [Finding("nodes", "MISS", "srun is not on PATH, though sinfo is",
                        "load all of the site's Slurm: command -v sinfo srun sbatch", ends=True
                        )]  # fmt: skip
    profile, word = place.profile, secrets.token_hex(8)
    with trial_folder(place.root) as folder:
        (folder / "token").write_text(word, encoding="utf-8")
        request = {"token": str(folder / "token"),
                   "interface": profile.interface if profile else "",
                   "scratch": profile.scratch if profile else ""}  # fmt: skip
        before = time.time()
        command = python_on_nodes(place, "-m", "hpc.doctor.node_facts", json.dumps(request))
        answer = ask(on_nodes(place, place.nodes, 1, *command), 90.0)
        after = time.time()
    rows = read_facts(answer)
    if not rows and BUSY in answer.err:
        return [not_free("nodes", place.nodes, ends=True)]
    if len(rows) != place.nodes:
        return [Finding("nodes", "MISS", f"{len(rows)} of {place.nodes} nodes told what they see:"
                        f" {answer.words}", "try: srun hostname; is this environment's folder on a"
                        " file system that the nodes have?", ends=not rows)]  # fmt: skip
    return judge(rows, word, before, after, request)


def read_facts(answer: Answer) -> list[dict[str, Any]]:
    """Rows of the nodes; what else srun prints is left out."""
    rows = []
    for line in answer.out.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "node" in row:
            rows.append(row)
    return rows


def judge(
    rows: list[dict[str, Any]], word: str, before: float, after: float, request: dict[str, str]
) -> list[Finding]:  # fmt: skip
    """Findings from what the nodes told between `before` and `after`."""
    names = shown([row["node"] for row in rows])
    found = []
    blind = [row["node"] for row in rows if row.get("token") != word]
    if blind:
        found.append(Finding("nodes", "MISS", f"{shown(blind)} cannot read a file that was just"
                             f" written to the data root ({rows[0].get('token_fault')})", ELSEWHERE
                             ))  # fmt: skip
    else:
        found.append(Finding("nodes", "OK", f"{names}: each reads what is written to the data root"
                             ))  # fmt: skip
    off = {row["node"]: clock_bound(row["time"], before, after) for row in rows}
    wrong = [f"{node} by {seconds:.0f} s" for node, seconds in off.items() if seconds > CLOCK_S]
    if wrong:
        found.append(Finding("clocks", "WARN", f"off: {shown(wrong)}", SYNC))
    else:
        found.append(Finding("clocks", "OK", f"as here, as far as {after - before:.1f} s of srun"
                             " can tell"))  # fmt: skip
    if name := request["interface"]:
        without = [row["node"] for row in rows if not row.get("addresses")]
        found.append(
            Finding("interface on nodes", "MISS", f"{name} has no address on {shown(without)}",
                    "interface in the profile; srun ip -brief address") if without
            else Finding("interface on nodes", "OK", f"{name} has an address on all"))  # fmt: skip
    if folder := request["scratch"]:
        faults = [f"{row['node']}: {row['scratch_fault']}" for row in rows
                  if row.get("scratch_fault")]  # fmt: skip
        least = min((row.get("scratch_free", 0) for row in rows), default=0)
        found.append(
            Finding("scratch", "MISS", f"{folder} on {shown(faults)}", "scratch in the profile: a"
                    " folder on the nodes' own disks that you may write to") if faults
            else Finding("scratch", "OK", f"{folder} can be written to on all, {least / GIB:,.0f}"
                         " GiB free at least"))  # fmt: skip
    return found
