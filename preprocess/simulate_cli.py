"""``sunpipe simulate``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from sunpipe.errors import UsageError
from sunpipe.stage import DryRunOption, JsonOption, run_stage


def _shape(size: str | None) -> tuple[int, int] | None:
    """``512x256`` (columns by rows) as (rows, columns)."""
    if size is None:
        return None
    match = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", size)
    if match is None or not all(32 <= int(part) <= 4096 for part in match.groups()):
        raise UsageError(f"--size {size}: columns by rows such as 512x256, each 32 to 4096")
    return int(match[2]), int(match[1])


def simulate(
    records: Annotated[int, typer.Option("--records", "-n", help="How many records.")],
    seed: Annotated[int, typer.Option("--seed", help="Of everything drawn; 0 or more.")] = 0,
    harps: Annotated[
        int | None,
        typer.Option("--harps", help="Share them among so many HARPs (default: 12 each)."),
    ] = None,
    cadence: Annotated[
        int, typer.Option("--cadence", help="Seconds between records of a HARP.")
    ] = 3600,
    size: Annotated[
        str | None,
        typer.Option("--size", help="COLUMNSxROWS of all patches (default: drawn like SHARPs)."),
    ] = None,
    start: Annotated[
        str, typer.Option("--start", help="HARPs begin within eight years of this TAI time.")
    ] = "2011.01.01_00:00:00_TAI",
    first_harp: Annotated[int, typer.Option("--first-harp", help="Number of the first.")] = 900_001,
    clean: Annotated[
        bool, typer.Option("--clean", help="No noise, no quiet Sun, no point spread.")
    ] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Also Br_err, Bt_err, Bp_err.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Archive folder (default: that of the data root).")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Processes (default: one per usable core).")
    ] = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Simulate active regions of known truth as a SHARP archive."""
    from preprocess.simulate import STEPS, Request, plan_request
    from preprocess.simulate import simulate as work
    from preprocess.simulation.ephemeris import parse_time
    from preprocess.simulation.observe import CLEAN, Noise
    from preprocess.simulation.record import Plan
    from sunpipe.paths import Layout

    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed}: from 0 to 2^63 - 1")
    if harps is not None and not 1 <= harps <= max(records, 1):
        raise UsageError(f"--harps {harps}: from 1 to the number of records")
    if jobs is not None and not 1 <= jobs <= 1024:
        raise UsageError(f"--jobs {jobs}: from 1 to 1024")
    if parse_time(start).year not in range(2009, 2050):
        raise UsageError(f"--start {start}: a year from 2009 to 2049")
    steps = STEPS if harps is None else max(1, -(-records // harps))
    plan = Plan(seed, steps, cadence, start, _shape(size), CLEAN if clean else Noise(), errors)
    request = Request(plan, records, first_harp, harps)
    archive = Layout.current().archive if out is None else out.absolute()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = min(jobs or cores or 1, records)
    run_stage(
        "simulate",
        lambda _: work(request, archive, count),
        config=None,
        overrides=None,
        dry_run=dry_run,
        as_json=json_,
        plan=lambda _: plan_request(request, archive),
        shown={
            "records": records,
            "seed": seed,
            "harps": request.harps,
            "cadence": cadence,
            "size": size or "drawn",
            "start": start,
            "first_harp": first_harp,
            "clean": clean,
            "errors": errors,
            "out": str(archive),
            "jobs": count,
        },
    )
