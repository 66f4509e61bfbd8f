"""The network between ranks: an all-reduce over the allocated nodes, measured."""

from __future__ import annotations

import json
from typing import Any

from hpc.doctor.ask import Answer, ask
from hpc.doctor.finding import BUSY, Finding, not_free
from hpc.doctor.nodes import CLOCK_S, SYNC, shown
from hpc.doctor.place import Place, on_nodes, python_on_nodes, stage_variables
from hpc.status.text import plain

MIB = 2**20
# At this, the gradients of one iteration of StyleGAN2 at 1024 x 1024 (59 M float32 in G and D,
# 0.24 GB) take nearly two seconds among many ranks.
SLOW_GB_S = 0.25
LESS = 0.5  # of what the plan reckons with
REFUSED = "Unable to create step"  # srun inside a job
TCP = "name the fast interface: interface in the profile (SUNPIPE_INTERFACE for jobs/*.sh)"


def judge(result: dict[str, Any]) -> list[Finding]:
    """Findings from what `sunpipe.bandwidth` measured."""
    large = max(result["sizes"], key=lambda row: row["bytes"])
    small = min(result["sizes"], key=lambda row: row["bytes"])
    seen = (f"{result['backend']}, {result['world']} ranks on {shown(result['hosts'])}:"
            f" {large['bus_gb_s']:.2f} GB/s bus bandwidth at {large['bytes'] // MIB} MiB;"
            f" {small['bytes'] // MIB} MiB takes {small['seconds'] * 1000:.2f} ms")  # fmt: skip
    found = []
    if not result["sums_right"]:
        found.append(Finding("all-reduce", "MISS", f"{seen}; but a sum came out wrong",
                             "leave nodes out one by one (sbatch --exclude=NODE) to find the one"
                             ))  # fmt: skip
    elif (plan := result["assumed_gb_s"]) and large["bus_gb_s"] < plan * LESS:
        found.append(Finding("all-reduce", "WARN", f"{seen}; sunpipe plan reckons with {plan:g}"
                             " GB/s, so a step takes longer than it says", TCP))  # fmt: skip
    elif large["bus_gb_s"] < SLOW_GB_S and len(result["hosts"]) > 1:
        found.append(Finding("all-reduce", "WARN", f"{seen}: slow for a training", TCP))
    else:
        found.append(Finding("all-reduce", "OK", seen))
    if len(result["hosts"]) > 1:
        spread = result["clock_spread_s"]
        words = f"{spread * 1000:.1f} ms apart between ranks"
        found.append(Finding("clocks of ranks", "WARN", words, SYNC) if spread > CLOCK_S
                     else Finding("clocks of ranks", "OK", words))  # fmt: skip
    return found


def reason(answer: Answer) -> str:
    """Why the ranks failed: one says it first, and the others that they lost it."""
    own = [line for line in answer.err.splitlines() if line.startswith("sunpipe: ")]
    said = [line for line in own if " lost rank " not in line] or own
    return plain(said[0].removeprefix("sunpipe: "), 240) if said else answer.words


def all_reduce(place: Place) -> list[Finding]:
    """Start ranks as a training does, one per GPU, and let them add tensors."""
    if place.srun is None or place.nodes * place.tasks_per_node < 2:
        return []
    command = python_on_nodes(place, "-m", "sunpipe.bandwidth")
    argv = on_nodes(place, place.nodes, place.tasks_per_node, *command)
    answer = ask(argv, 170.0, stage_variables(place))
    try:
        result = json.loads(answer.out.splitlines()[-1])
    except (ValueError, IndexError):
        if BUSY in answer.err:
            return [not_free("all-reduce", place.nodes)]
        if REFUSED in answer.err:
            return [Finding("all-reduce", "MISS", f"srun does not start {place.tasks_per_node}"
                            f" ranks on each node: {answer.words}", "ask for what a training needs:"
                            " --ntasks-per-node, --cpus-per-task and --mem")]  # fmt: skip
        return [Finding("all-reduce", "MISS", f"the ranks did not come together: {reason(answer)}",
                        f"{TCP}; or set MASTER_ADDR to an address that all nodes reach"
                        )]  # fmt: skip
    return judge(result)
