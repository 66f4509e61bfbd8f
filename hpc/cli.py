"""``sunpipe launch``, ``sunpipe pipeline`` and ``sunpipe cluster``."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from sunpipe.stage import ConfigOption, JsonOption, SetOption, emit, log

ClusterOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Cluster profile (TOML).", envvar="SUNPIPE_CLUSTER"),
]
LocalOption = Annotated[bool, typer.Option("--local", help="Run here, without Slurm.")]
ScriptOption = Annotated[
    bool, typer.Option("--print-script", help="Print the batch script, submit nothing.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print what would be run.")]
NO_SCRIPT = "--local submits nothing, so there is no script to print"
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Submit also what does not fit, or is in the queue already; wait for no other job.",
    ),
]


def _one_config(file: Path, config: Path | None) -> Path:
    """The configuration, which may stand alone or behind ``--config``."""
    from sunpipe.errors import UsageError

    if config is not None:
        raise UsageError("the configuration is named twice; leave out --config")
    return file


def _print_scripts(texts: dict[str, str], as_json: bool) -> None:
    """Batch scripts one after the other, or one document of them by stage."""
    if as_json:
        emit({"scripts": texts}, True)
    else:
        print("\n".join(texts.values()), end="")


def launch(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="fetch, shard, train, ...")],
    extra: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG] [-- OPTIONS]", help="TOML file; options of the stage."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    cluster: ClusterOption = None,
    array: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Parts; default: the profile's.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only this part, for example one that failed.")
    ] = None,
    local: LocalOption = False,
    force: ForceOption = False,
    print_script: ScriptOption = False,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Submit one stage to Slurm through a cluster profile.

    For example: sunpipe launch train -c configs/demo.toml --cluster my.toml -- --new
    """
    from hpc.argv import accept_extra, all_parts
    from hpc.guard import (
        check_fit,
        check_inputs,
        check_root,
        in_queue,
        jobs_read,
        lacking,
        make_root,
        refuse_second,
    )
    from hpc.launch import batch_script, submit
    from hpc.local import run_here
    from hpc.new_run import needs_new, refuse
    from hpc.pipeline import parse_result, resources
    from hpc.profile import Profile, load_profile
    from hpc.script import log_folder
    from hpc.stages import find_stage
    from sunpipe.config import load_config
    from sunpipe.errors import UsageError
    from sunpipe.parts import parse_part
    from sunpipe.paths import Layout, data_root

    find_stage(stage)
    extra = list(extra or ())
    if extra and extra[0].endswith(".toml"):
        config = _one_config(Path(extra.pop(0)), config)
    options = accept_extra(stage, extra)
    if array and part:
        raise UsageError("--array and --part do not go together")
    if local and print_script:
        raise UsageError(NO_SCRIPT)
    cfg = load_config(config, set_ or ())
    profile = Profile() if local else load_profile(cluster)
    wanted = resources(profile, stage)
    one = parse_part(part) if part is not None else None
    count = array or wanted.array
    commands = all_parts(stage, count, config, set_ or (), extra, one)
    folder, layout = log_folder(data_root()), Layout.current()
    if not (dry_run or print_script):
        check_root(layout.root)
    if not local and (dry_run or print_script):  # what a submission would be refused for
        check_fit(cfg, profile, [stage], force=True)
        if lacking(stage, cfg, layout, ()):  # only then is Slurm asked: it may be away
            queued = {} if force else in_queue(folder, cfg.name)
            check_inputs(stage, cfg, layout, queued, force, told=True)
    if dry_run:
        emit({"dry_run": True, "commands": [["sunpipe", *argv] for argv in commands]}, json_)
    elif local:
        make_root(layout.root)
        results = []
        for argv in commands:
            code, out = run_here([*argv, *(["--json"] if json_ else [])], capture=json_)
            if code:
                raise typer.Exit(code)
            if json_:
                results.append(parse_result(stage, out))
        if json_:  # one document, also of several parts
            emit(results[0] if len(results) == 1 else {"parts": results}, True)
    elif print_script:
        for argv in commands:
            log(f"runs: sunpipe {shlex.join(argv)}")
        _print_scripts({stage: batch_script(stage, commands, profile, wanted)}, json_)
    else:
        queued = {} if force else in_queue(folder, cfg.name)
        if one is None:  # a part that failed may be repeated beside the others
            refuse_second(queued, cfg.name, [stage])
        check_inputs(stage, cfg, layout, queued, force)
        check_fit(cfg, profile, [stage], force)
        if not options.get("new") and (why := needs_new(stage, cfg, layout)):
            refuse({stage: why}, "`-- --new`", "; nothing was queued")
        after = jobs_read(stage, queued)
        if after:
            log(f"{stage}: after job {', '.join(after)}, which makes what it reads")
        job = submit(stage, commands, profile, wanted, cfg.name, after, cluster=cluster)
        emit({"stage": stage, "job": job, "tasks": len(commands),
              "logs": str(folder)}, json_)  # fmt: skip


def pipeline(
    file: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="Experiment configuration (TOML).")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    cluster: ClusterOption = None,
    local: LocalOption = False,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="This stage and those after it.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="STAGE", help="Only this one; repeatable.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also start the stages that are done.")
    ] = False,
    new: Annotated[
        bool,
        typer.Option("--new", help="Begin another run where the old one cannot be continued."),
    ] = False,
    force: ForceOption = False,
    print_script: ScriptOption = False,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Run all stages in order here, or submit them to Slurm with dependencies.

    What is done is left out, unless what it was made from has changed; --dry-run says why.
    A training whose settings or dataset changed begins another run only with --new.
    """
    from hpc.guard import check_fit, check_root
    from hpc.pipeline import (
        Asked,
        plan_lines,
        plan_stages,
        run_stages,
        scripts,
        submit_stages,
        timing_lines,
    )
    from hpc.profile import load_profile
    from hpc.stages import select
    from sunpipe.config import load_config
    from sunpipe.errors import UsageError
    from sunpipe.paths import data_root

    config = _one_config(file, config) if file is not None else config
    asked = Asked(select(from_, only or ()), config, set_ or [], again, force, new, cluster)
    cfg = load_config(config, asked.overrides)
    if local and print_script:
        raise UsageError(NO_SCRIPT)
    profile = None if local else load_profile(cluster)
    if not (dry_run or print_script):
        check_root(data_root())
    elif profile is not None:
        check_fit(cfg, profile, asked.names, force=True)  # what a submission would be refused for
    if dry_run:
        plan = plan_stages(asked, profile)
        if json_:
            emit(plan, True)
        else:
            print("\n".join(plan_lines(plan)))
    elif profile is None:
        result = run_stages(asked)
        if json_:
            emit(result, True)
            return
        print("\n".join([*timing_lines(result), "", *result.get("facts", [])]))
        if "report" in result:
            print(f"report: {result['report']}")
    elif print_script:
        _print_scripts(scripts(asked, profile), json_)
    else:
        emit(submit_stages(asked, profile), json_)


cluster = typer.Typer(
    add_completion=False, no_args_is_help=True, help="A real Slurm on this one machine."
)

FolderOption = Annotated[
    Path, typer.Option("--folder", help="Where the cluster lives.", show_default=".cluster")
]


@cluster.command()
def up(
    folder: FolderOption = Path(".cluster"),
    nodes: Annotated[int, typer.Option(min=1, max=64, help="Number of node daemons.")] = 4,
    json_: JsonOption = False,
) -> None:
    """Start it; prints the line that makes Slurm commands of this shell use it."""
    from hpc.cluster import Cluster

    started = time.perf_counter()
    one = Cluster(folder)
    fresh = one.up(nodes)
    seconds = round(time.perf_counter() - started, 1)
    log(f"{one.state['nodes']} nodes up in {seconds} s" if fresh else "the cluster is already up")
    if json_:
        emit({"conf": str(one.conf), "nodes": one.state["nodes"], "seconds": seconds}, True)
    else:
        print(f"export SLURM_CONF={shlex.quote(str(one.conf))}")


@cluster.command()
def down(folder: FolderOption = Path(".cluster"), json_: JsonOption = False) -> None:
    """Cancel its jobs, stop exactly what was started, remove the folder."""
    from hpc.cluster import Cluster

    stopped = Cluster(folder).down()
    log("the cluster is stopped" if stopped else f"no cluster in {folder}")
    if json_:
        emit({"stopped": stopped}, True)


@cluster.command()
def info(folder: FolderOption = Path(".cluster"), json_: JsonOption = False) -> None:
    """Which daemons live, how many nodes wait, where the configuration is."""
    from hpc.cluster import Cluster
    from sunpipe.errors import DataError

    one = Cluster(folder)
    if not one.daemons:
        raise DataError(f"no cluster in {folder}; start one: sunpipe cluster up --folder {folder}")
    emit({"conf": str(one.conf), "nodes": one.state["nodes"], "idle": one.idle_nodes(),
          "daemons": one.running()}, json_)  # fmt: skip
