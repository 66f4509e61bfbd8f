"""The fault campaign: each fault is made for real, N times, and must end well.

On a one-machine Slurm of its own, with trainings of `configs/tiny.toml` on two nodes.
An attempt ends well when the training went on by itself or stopped with a clear line,
and the weights at the end are those of an undisturbed run to the last bit. Nothing may
start from nothing, or wait without end: other ranks end within 90 s of noticing.

    python benchmarks/faults.py                          # all, about an hour on two cores
    python benchmarks/faults.py --only "rank killed" --times 3
    python benchmarks/faults.py --out benchmarks/results/faults.json

Needs what `sunpipe cluster up` needs; `disk full` and `read-only` need root (mounts). With
--work, cluster and undisturbed runs stay for the next call (`sunpipe cluster down --folder
WORK/cluster` ends it); with --out, new attempts join those that the file holds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import faults_files, faults_ranks, faults_slurm
from benchmarks.faults_rig import REPO, SETTINGS, Rig, Seen, Wrong, until
from benchmarks.machine import circumstances, write
from hpc.cluster import Cluster
from hpc.machine import find_programs, slurm_version
from sunpipe.errors import SunpipeError
from sunpipe.files import write_json

Case = Callable[[Rig, int], Seen]
CASES: dict[str, tuple[Case, int]] = {
    **faults_ranks.CASES, **faults_slurm.CASES, **faults_files.CASES,
}  # fmt: skip
KIMG = 0.4


def prepare(cluster: Cluster, work: Path) -> Rig:
    """The dataset, and undisturbed runs with one rank and two; made once in a folder."""
    source, known = work / "source", work / "reference.json"
    rig = Rig(cluster, work, source / "shards", KIMG)
    if known.exists():
        rig.reference = json.loads(known.read_text())
        return rig
    env = {**os.environ, "SUNPIPE_ROOT": str(source), "OMP_NUM_THREADS": "1"}
    for stage in ("fetch", "shard"):
        subprocess.run([sys.executable, "-m", "sunpipe", stage, *SETTINGS], cwd=REPO, env=env,
                       check=True, capture_output=True)  # fmt: skip
    two, one = rig.training("straight-2"), rig.training("straight-1")
    two.submit()
    until("the undisturbed run", two.ended, 400)
    if one.here().wait(400):
        raise Wrong(one.text()[-400:])
    rig.reference = {"two ranks": two.digests(), "one rank": one.digests()}
    write_json(known, rig.reference)
    return rig


def attempt(rig: Rig, case: Case, number: int) -> dict[str, Any]:
    """One attempt; what went wrong is part of the result."""
    try:
        seen = asdict(case(rig, number))
        seen["line"] = re.sub(re.escape(str(rig.work)) + "/[^/ ]+/", "", seen["line"])
        return {"right": True, **seen}
    except (Wrong, SunpipeError, OSError, subprocess.SubprocessError) as error:
        return {"right": False, "outcome": "wrong", "line": f"{type(error).__name__}: {error}"}
    finally:
        for row in rig.slurm("squeue", "--noheader", "--format=%i").stdout.split():
            rig.slurm("scancel", row)


def summary(attempts: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts, medians and worst times of a case's attempts."""
    found: dict[str, Any] = {
        "times": len(attempts), "right": sum(one["right"] for one in attempts),
        "outcome": sorted({one["outcome"] for one in attempts}),
    }  # fmt: skip
    for key in ("detected_s", "again_s"):
        values = [one[key] for one in attempts if one.get(key) is not None]
        if values:
            found[key] = {"median": round(statistics.median(values), 1),
                          "worst": round(max(values), 1)}  # fmt: skip
    return {**found, "line": attempts[-1]["line"], "attempts": attempts}


def printed(name: str, found: dict[str, Any]) -> str:
    """One line for a case."""
    times = "  ".join(f"{key[:-2]} {found[key]['median']:.0f} s (worst {found[key]['worst']:.0f} s)"
                      for key in ("detected_s", "again_s") if key in found)  # fmt: skip
    return f"{name:42} {found['right']} of {found['times']}  {', '.join(found['outcome'])}  {times}"


def _seconds(found: dict[str, Any], key: str) -> str:
    return f"{found[key]['median']:.0f} ({found[key]['worst']:.0f})" if key in found else ""


def table(cases: dict[str, Any]) -> str:
    """The Markdown table of docs/faults.md."""
    rows = ["| fault | what is done | seen | right | noticed, s | trains again, s | what is read |",
            "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for name, (case, _) in CASES.items():
        if name in cases:
            found = cases[name]
            done = " ".join((case.__doc__ or "").split()).rstrip(".")
            rows.append(
                f"| {name} | {done} | {', '.join(found['outcome'])} | {found['right']} of"
                f" {found['times']} | {_seconds(found, 'detected_s')} |"
                f" {_seconds(found, 'again_s')} | `{found['line'].replace('|', ' ')[:200]}` |"
            )
    return "\n".join(rows)


def result(cases: dict[str, Any], cluster: Cluster) -> dict[str, Any]:
    """What is written: circumstances and cases."""
    found = circumstances("faults", cuda=False)
    version = ".".join(map(str, slurm_version(find_programs()["slurmctld"])))
    return {**found, "slurm": version, "nodes": cluster.state["nodes"], "kimg": KIMG,
            "settings": list(SETTINGS), "cases": cases}  # fmt: skip


def main() -> int:
    """Run the campaign; 1 when any attempt went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", action="append", choices=sorted(CASES), metavar="CASE")
    parser.add_argument("--times", type=int, help="attempts of each case")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, help="folder for cluster and data roots")
    parser.add_argument("--table", action="store_true", help="print --out as a table, run nothing")
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(given.out.read_text())["cases"]))
        return 0
    work = given.work or Path(tempfile.mkdtemp(prefix="sunpipe-faults-"))
    cluster = Cluster(work / "cluster")
    cases = json.loads(given.out.read_text())["cases"] if given.out and given.out.exists() else {}
    failed = False
    try:
        if cluster.up(4):
            faults_slurm.configure(cluster)
        rig = prepare(cluster, work)
        for name in given.only or CASES:
            case, times = CASES[name]
            attempts = cases.get(name, {}).get("attempts", [])
            for number in range(len(attempts), len(attempts) + (given.times or times)):
                attempts.append(attempt(rig, case, number))
                if not attempts[-1]["right"]:
                    print(f"{name}, attempt {number}: {attempts[-1]['line']}", flush=True)
                cases[name] = summary(attempts)
                if given.out:
                    write(result(cases, cluster), given.out)
            failed |= cases[name]["right"] < cases[name]["times"]
            print(printed(name, cases[name]), flush=True)
    finally:
        if given.work is None:
            cluster.down()
            shutil.rmtree(work, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
