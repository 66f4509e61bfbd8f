"""All stages in order: as processes on this machine, or as Slurm jobs with dependencies."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc.argv import all_parts, stage_argv
from hpc.launch import batch_script, submit
from hpc.local import run_here
from hpc.profile import Profile, Resources
from hpc.stages import depends_on
from sunpipe.errors import EXIT_STOPPED, Stopped, SunpipeError
from sunpipe.stage import Result, log


class StageFailed(SunpipeError):
    """A stage ended with an exit code other than 0; the pipeline ends with the same."""

    def __init__(self, stage: str, code: int) -> None:
        super().__init__(
            f"the pipeline ends here: {stage} failed (exit code {code}); once that is mended,"
            " the same command continues"
        )
        self.exit_code = code


def run_stages(names: Sequence[str], config: Path | None, overrides: Sequence[str]) -> Result:
    """Run stages one after the other as processes; their logs appear as they are written.

    Returns
    -------
    dict
        ``stages`` (name: seconds, result), ``seconds``, and the report's
        ``report`` and ``facts`` if that stage was run.

    Raises
    ------
    StageFailed
        At the first stage that fails.
    Stopped
        A stage stopped on request.
    """
    started = time.perf_counter()
    stages: dict[str, Any] = {}
    for place, name in enumerate(names, 1):
        log(f"[{place}/{len(names)}] {name}")
        before = time.perf_counter()
        code, out = run_here([*stage_argv(name, config, overrides), "--json"], capture=True)
        if code == EXIT_STOPPED:
            raise Stopped(f"{name} stopped; the same command continues")
        if code != 0:
            raise StageFailed(name, code)
        result = parse_result(name, out)
        stages[name] = {"seconds": round(time.perf_counter() - before, 2), "result": result}
        log(f"[{place}/{len(names)}] {name} took {stages[name]['seconds']:.1f} s")
    report = stages.get("report", {}).get("result", {})
    found = {key: report[key] for key in ("report", "facts") if key in report}
    return {"stages": stages, "seconds": round(time.perf_counter() - started, 2), **found}


def parse_result(stage: str, out: str) -> Any:
    """The JSON document that a stage printed."""
    try:
        return json.loads(out)
    except ValueError:
        raise SunpipeError(f"{stage} ended well but printed no JSON: {out[-200:]!r}") from None


def timing_lines(result: Result) -> list[str]:
    """One line per stage, and the sum."""
    rows = [(name, stage["seconds"]) for name, stage in result["stages"].items()]
    return [f"{name:<12}{seconds:8.1f} s" for name, seconds in [*rows, ("all", result["seconds"])]]


def resources(profile: Profile, stage: str) -> Resources:
    """What `profile` grants to a stage."""
    wanted: Resources = getattr(profile.stages, stage)
    return wanted


def plan_stages(
    names: Sequence[str], config: Path | None, overrides: Sequence[str], profile: Profile | None
) -> Result:
    """What would be run: command lines and, on Slurm, what each stage waits for."""
    plan = {}
    for name in names:
        count = resources(profile, name).array if profile else 1
        plan[name] = {
            "commands": [["sunpipe", *argv] for argv in all_parts(name, count, config, overrides)],
            "after": depends_on(name, names),
        }
    return {"dry_run": True, "stages": plan}


def scripts(names: Sequence[str], profile: Profile) -> str:
    """Batch scripts of all stages; job ids that are not known yet stand as ``<stage>``."""
    texts = []
    for name in names:
        wanted = resources(profile, name)
        after = [f"<{one}>" for one in depends_on(name, names)]
        texts.append(batch_script(name, wanted.array, profile, wanted, after))
    return "\n".join(texts)


def submit_stages(
    names: Sequence[str], config: Path | None, overrides: Sequence[str], profile: Profile
) -> Result:
    """Submit all stages; each starts when those that it needs have ended well.

    When one is refused, those already submitted are cancelled.
    """
    jobs: dict[str, str] = {}
    try:
        for name in names:
            wanted = resources(profile, name)
            commands = all_parts(name, wanted.array, config, overrides)
            after = [jobs[one] for one in depends_on(name, names)]
            jobs[name] = submit(name, commands, profile, wanted, after)
            log(f"{name}: job {jobs[name]}" + (f" after {', '.join(after)}" if after else ""))
    except BaseException:
        if jobs:
            log(f"cancelling {', '.join(jobs)}: not all stages were accepted")
            subprocess.run(["scancel", *jobs.values()], check=False)
        raise
    return {"jobs": jobs}
