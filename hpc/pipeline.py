"""All stages in order: as processes on this machine, or as Slurm jobs with dependencies.

What is done is not started again; `hpc.decide` says why the others are.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.argv import all_parts, stage_argv
from hpc.decide import Decision, decide, decide_one
from hpc.guard import (
    check_fit,
    check_inputs,
    in_queue,
    jobs_read,
    lacking,
    make_root,
    refuse_second,
)
from hpc.launch import batch_script, submit
from hpc.local import run_here
from hpc.new_run import all_that_need_new, refuse
from hpc.profile import Profile, Resources
from hpc.script import log_folder
from hpc.stages import depends_on
from hpc.submitted import last_logs
from sunpipe import receipts
from sunpipe.config import load_config
from sunpipe.errors import EXIT_STOPPED, Stopped, SunpipeError
from sunpipe.paths import Layout
from sunpipe.stage import Result, log


class StageFailed(SunpipeError):
    """A stage ended with an exit code other than 0; the pipeline ends with the same."""

    def __init__(self, stage: str, code: int) -> None:
        super().__init__(
            f"the pipeline ends here: {stage} failed (exit code {code}); once that is mended,"
            " the same command continues"
        )
        self.exit_code = code


@dataclass(frozen=True)
class Asked:
    """What a pipeline is asked for.

    Attributes
    ----------
    again : bool
        Stages that are done are started too.
    force : bool
        What does not fit, or is in the queue already, is submitted all the same, and
        does not wait for what is in the queue.
    new : bool
        Trainings whose run would refuse to go on begin another.
    cluster : Path, optional
        The profile's file, if it was named; for lines that repeat a part.
    """

    names: Sequence[str]
    config: Path | None
    overrides: Sequence[str] = ()
    again: bool = False
    force: bool = False
    new: bool = False
    cluster: Path | None = None


def run_stages(asked: Asked) -> Result:
    """Run stages one after the other as processes; their logs appear as they are written.

    Returns
    -------
    dict
        ``stages`` (name: seconds, why it ran or that it was done, result), ``seconds``,
        and the report's ``report`` and ``facts`` if that stage was among them.

    Raises
    ------
    StageFailed
        At the first stage that fails.
    Stopped
        A stage stopped on request.
    DataError
        A training would refuse to go on, and ``new`` is not asked for.
    """
    started = time.perf_counter()
    cfg, layout = load_config(asked.config, asked.overrides), Layout.current()
    begun_anew(asked, decisions(asked, None))  # before anything is replaced
    make_root(layout.root)
    stages: dict[str, Any] = {}
    for place, name in enumerate(asked.names, 1):
        made = decide_one(name, cfg, layout, again=asked.again)
        log(f"[{place}/{len(asked.names)}] {made.line(name)}")
        if not made.run:
            result = receipts.stored_result(name, cfg, layout)
            stages[name] = {"seconds": 0.0, "done": True, "result": result}
            continue
        # known for certain only now: fetch may have brought other records
        anew = begun_anew(asked, {name: made}, hint="")
        if name in anew:
            log(f"{name}: a new run, since {anew[name]}")
        extra = new_option(name, anew)
        before = time.perf_counter()
        argv = [*stage_argv(name, asked.config, asked.overrides, extra), "--json"]
        code, out = run_here(argv, capture=True)
        if code == EXIT_STOPPED:
            raise Stopped(f"{name} stopped; the same command continues")
        if code != 0:
            raise StageFailed(name, code)
        seconds = round(time.perf_counter() - before, 2)
        stages[name] = {"seconds": seconds, "done": False, "why": made.why,
                        "result": parse_result(name, out)}  # fmt: skip
        log(f"[{place}/{len(asked.names)}] {name} took {seconds:.1f} s")
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
    rows = [(name, "done" if stage["done"] else f"{stage['seconds']:.1f} s")
            for name, stage in result["stages"].items()]  # fmt: skip
    return [
        f"{name:<12}{took:>10}" for name, took in [*rows, ("all", f"{result['seconds']:.1f} s")]
    ]


def resources(profile: Profile, stage: str) -> Resources:
    """What `profile` grants to a stage."""
    wanted: Resources = getattr(profile.stages, stage)
    return wanted


def queued_now(asked: Asked) -> dict[str, list[str]]:
    """Stages of this experiment that Slurm has now, and their jobs; see `in_queue`.

    Slurm is not asked with ``force``: what is queued then is neither waited for nor in the way.
    """
    if asked.force:
        return {}
    name = load_config(asked.config, asked.overrides).name
    return in_queue(log_folder(Layout.current().root), name)


def decisions(
    asked: Asked, profile: Profile | None, queued: Collection[str] = ()
) -> dict[str, Decision]:
    """What has to be started of the stages that are asked for, `queued` being under way."""
    counts = {name: resources(profile, name).array if profile else 1 for name in asked.names}
    cfg = load_config(asked.config, asked.overrides)
    return decide(asked.names, cfg, Layout.current(), counts, asked.again, list(queued))


def begun_anew(
    asked: Asked, made: Mapping[str, Decision], hint: str = "; nothing was started"
) -> dict[str, str]:
    """Trainings that begin another run, and why; refused unless that is asked for."""
    cfg = load_config(asked.config, asked.overrides)
    found = all_that_need_new(made, cfg, Layout.current())
    if not asked.new:
        refuse(found, hint=hint)
    return found


def new_option(name: str, anew: Mapping[str, str]) -> list[str]:
    """``--new`` for a stage that begins another run."""
    return ["--new"] if name in anew else []


def commands_of(
    name: str, made: Decision, asked: Asked, profile: Profile | None, extra: Sequence[str] = ()
) -> list[list[str]]:
    """Command lines of a stage: all its parts, or those that are left."""
    count = resources(profile, name).array if profile else 1
    commands = all_parts(name, count, asked.config, asked.overrides, extra)
    return [commands[number - 1] for number in made.parts] if made.parts else commands


def plan_stages(asked: Asked, profile: Profile | None) -> Result:
    """What would be run and why: command lines and, on Slurm, what each stage waits for.

    ``new_run`` says why a training cannot go on with its run, ``lacks`` which stages have not
    made what one reads. ``refused`` is true where nothing would be started for the first
    (without ``--new``) or submitted for the second (without ``--force``).
    """
    queued = queued_now(asked) if profile else {}
    made = decisions(asked, profile, queued)
    cfg = load_config(asked.config, asked.overrides)
    return _plan(asked, profile, queued, made, all_that_need_new(made, cfg, Layout.current()))


def _plan(
    asked: Asked, profile: Profile | None, queued: Mapping[str, Sequence[str]],
    made: Mapping[str, Decision], anew: Mapping[str, str],
) -> Result:  # fmt: skip
    running = [name for name in asked.names if made[name].run]
    cfg, layout = load_config(asked.config, asked.overrides), Layout.current()
    plan = {}
    for name in asked.names:
        run = made[name].run
        extra = new_option(name, anew) if asked.new else []
        commands = commands_of(name, made[name], asked, profile, extra) if run else []
        plan[name] = {
            "run": run, "why": made[name].why,
            "commands": [["sunpipe", *argv] for argv in commands],
            "after": depends_on(name, running) if run else [],
            "after_jobs": jobs_read(name, queued) if run else [],
            "new_run": anew.get(name, ""),
            "lacks": lacking(name, cfg, layout, [*queued, *running]) if run else [],
        }  # fmt: skip
    lacks = profile is not None and any(stage["lacks"] for stage in plan.values())
    refused = (bool(anew) and not asked.new) or (lacks and not asked.force)
    return {"dry_run": True, "refused": refused, "stages": plan}


def plan_lines(plan: Result) -> list[str]:
    """One line per stage: whether it is run, as how many tasks, after which, and why."""
    lines = []
    for name, stage in plan["stages"].items():
        if not stage["run"]:
            lines.append(f"{name:<12}done")
            continue
        tasks = f" as {len(stage['commands'])} tasks" if len(stage["commands"]) > 1 else ""
        after = f", after {', '.join(stage['after'])}" if stage["after"] else ""
        jobs = f", after job {', '.join(stage['after_jobs'])}" if stage["after_jobs"] else ""
        why = "" if stage["why"].startswith("after ") else f": {stage['why']}"
        lines.append(f"{name:<12}run{tasks}{after}{jobs}{why}")
        if stage["new_run"]:
            begun = any("--new" in words for words in stage["commands"])
            word = "a new run" if begun else "refused without --new"
            lines.append(f"{'':<12}{word}: {stage['new_run']}")
        if stage["lacks"]:
            makers = " and ".join(stage["lacks"])
            word = "refused" if plan["refused"] else "it would fail"
            lines.append(f"{'':<12}{word}: it reads what {makers} makes, which is not there")
    return lines


def scripts(asked: Asked, profile: Profile) -> dict[str, str]:
    """Batch script of each stage that would be submitted; ids of jobs to come are ``<stage>``."""
    queued = queued_now(asked)
    made = decisions(asked, profile, queued)
    running = [name for name in asked.names if made[name].run]
    anew = begun_anew(asked, made)
    cfg, layout = load_config(asked.config, asked.overrides), Layout.current()
    texts = {}
    for name in running:
        check_inputs(name, cfg, layout, [*queued, *running], asked.force, told=True)
        after = [*jobs_read(name, queued), *(f"<{one}>" for one in depends_on(name, running))]
        commands = commands_of(name, made[name], asked, profile, new_option(name, anew))
        texts[name] = batch_script(name, commands, profile, resources(profile, name), after)
    return texts


def _name_failed(name: str, made: Decision, asked: Asked, count: int) -> None:
    """Say where the parts that did not end well have logged, and how one is run alone."""
    folder = log_folder(Layout.current().root)
    logs = last_logs(folder, name, load_config(asked.config, asked.overrides).name)
    same = ["-c", str(asked.config)] if asked.config else []
    same += [word for override in asked.overrides for word in ("--set", override)]
    same += ["--cluster", str(asked.cluster)] if asked.cluster else []
    for number in made.parts[:8]:
        part = f"{number}/{count}"
        seen = f"its last log is {logs[part]}; " if part in logs else ""
        alone = shlex.join(["sunpipe", "launch", name, *same, "--part", part])
        log(f"{name} {part}: {seen}alone: {alone}")


def submit_stages(asked: Asked, profile: Profile) -> Result:
    """Submit what is not done; each stage starts when those that it needs have ended well.

    When one is refused, those already submitted are cancelled.
    """
    queued = queued_now(asked)
    made = decisions(asked, profile, queued)
    running = [name for name in asked.names if made[name].run]
    cfg = load_config(asked.config, asked.overrides)
    refuse_second(queued, cfg.name, running)
    check_fit(cfg, profile, running, asked.force)
    for name in running:
        check_inputs(name, cfg, Layout.current(), [*queued, *running], asked.force)
    anew = begun_anew(asked, made)
    for line in plan_lines(_plan(asked, profile, queued, made, anew)):
        log(line)
    jobs: dict[str, str] = {}
    try:
        for name in running:
            wanted = resources(profile, name)
            _name_failed(name, made[name], asked, wanted.array)
            extra = new_option(name, anew)
            commands = commands_of(name, made[name], asked, profile, extra)
            after = [*jobs_read(name, queued), *(jobs[one] for one in depends_on(name, running))]
            jobs[name] = submit(name, commands, profile, wanted, cfg.name, after,
                                cluster=asked.cluster)  # fmt: skip
            log(f"{name}: job {jobs[name]}" + (f" after {', '.join(after)}" if after else ""))
    except BaseException:
        if jobs:
            log(f"cancelling {', '.join(jobs)}: not all stages were accepted")
            subprocess.run(["scancel", *jobs.values()], check=False)
        raise
    return {"jobs": jobs, "done": [name for name in asked.names if name not in running]}
