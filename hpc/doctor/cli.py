"""``sunpipe doctor``."""

from __future__ import annotations

import signal
import time
from typing import Annotated

import typer

from hpc.cli import ClusterOption
from sunpipe.stage import ConfigOption, JsonOption, SetOption, emit


def doctor(
    cluster: ClusterOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    srun: Annotated[
        bool,
        typer.Option("--srun", help="Also ask the nodes of a training, through srun, for minutes."),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Check this machine or allocation; each fault with the line that fixes it.

    OK, WARN (it works, but not as well or not everywhere) or MISS (a stage will fail;
    exit code 1). On a login node it looks at this machine and at what Slurm would take;
    inside a job it also starts ranks on the nodes and measures the network.
    """
    from hpc.doctor.bounded import run_checks
    from hpc.doctor.checks import HERE, ON_NODES, not_checked
    from hpc.doctor.finding import worst
    from hpc.doctor.place import find_place
    from hpc.doctor.table import show
    from hpc.profile import load_profile
    from sunpipe.config import load_config
    from sunpipe.errors import Stopped
    from sunpipe.paths import data_root

    resolved = load_config(config, set_ or ())
    profile = load_profile(cluster) if cluster else None
    place = find_place(resolved, profile, data_root(), srun)
    started = time.perf_counter()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # scancel, a time limit
    try:
        findings = run_checks(HERE, ON_NODES, place)
    except KeyboardInterrupt:
        raise Stopped("doctor interrupted; what it had started is ended and removed") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    ready = worst(findings) != "MISS"
    left_out = not_checked(place, findings)
    seconds = time.perf_counter() - started
    if json_:
        emit({"where": place.where, "ok": ready, "checks": [one.as_json() for one in findings],
              "not_checked": left_out, "seconds": round(seconds, 2)}, True)  # fmt: skip
    else:
        show(findings, place, left_out, seconds)
    if not ready:
        raise typer.Exit(1)
