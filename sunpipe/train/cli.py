"""``sunpipe train`` and ``sunpipe ssl``."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from sunpipe.dist import discover
from sunpipe.errors import UsageError
from sunpipe.files import read_json
from sunpipe.paths import Layout
from sunpipe.provenance import command_line
from sunpipe.run import find_run, ssl_name
from sunpipe.settings import Config
from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, SetOption, log, run_stage

NewOption = Annotated[
    bool, typer.Option("--new", help="Start a new run folder instead of continuing the newest.")
]
RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")


def starts_new(new: bool, name: str) -> bool:
    """Whether to start a new run: ``--new`` holds for a job's first start, not for its restarts.

    Slurm and torchrun start a job again with the words it was submitted with. The
    newest run of that name is then the one this job began, and ``--new`` would
    throw away what it has reached, at every restart. A job that was lost before it
    had begun a run still begins one.

    Parameters
    ----------
    new : bool
        Whether ``--new`` was given.
    name : str
        Label of the run.
    """
    again = any(os.environ.get(key, "0") not in ("", "0") for key in RESTARTS)
    if not (new and again and discover().is_main):  # rank 0 opens the run
        return new
    run = find_run(Layout.current(), name)
    if run is None:
        return new
    made, job = read_json(run / "provenance.json"), os.environ.get("SLURM_JOB_ID")
    ours = made["slurm"].get("SLURM_JOB_ID") == job if job else made["command"] == command_line()
    if ours:
        log(f"sunpipe: this job was started again: --new is ignored, {run.name} is continued")
    return not ours


RanksOption = Annotated[
    int | None, typer.Option(min=1, help="With --dry-run: plan for so many GPUs, one rank each.")
]
MemoryOption = Annotated[
    float | None,
    typer.Option("--gpu-memory", min=0.1, help="With --dry-run: GiB of one GPU, to fit into."),
]


def train(
    config: ConfigOption = None,
    set_: SetOption = None,
    new: NewOption = False,
    dry_run: DryRunOption = False,
    ranks: RanksOption = None,
    gpu_memory: MemoryOption = None,
    json_: JsonOption = False,
) -> None:
    """Train StyleGAN2 on the shards; the same command continues a stopped run.

    Start it alone, with torchrun, or with srun (one task per GPU).
    """

    def work(cfg: Config) -> dict[str, Any] | None:
        from sunpipe.train.gan import train as run

        return run(cfg, new=starts_new(new, cfg.name))

    def plan(cfg: Config) -> dict[str, Any]:
        from sunpipe.train.plan import plan_training

        return plan_training(cfg, ranks, gpu_memory)

    if not dry_run and (ranks is not None or gpu_memory is not None):
        raise UsageError("--ranks and --gpu-memory are for --dry-run; srun or torchrun start ranks")

    run_stage("train", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
              sections=("train",), plan=plan)  # fmt: skip


def ssl(
    config: ConfigOption = None,
    set_: SetOption = None,
    new: NewOption = False,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Train the self-supervised encoder; the same command continues a stopped run.

    Start it alone, with torchrun, or with srun (one task per GPU).
    """

    def work(cfg: Config) -> dict[str, Any] | None:
        from sunpipe.train.ssl import train_ssl

        return train_ssl(cfg, new=starts_new(new, ssl_name(cfg.name)))

    def plan(cfg: Config) -> dict[str, Any]:
        from sunpipe.train.ssl import plan_ssl

        return plan_ssl(cfg)

    run_stage("ssl", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
              sections=("ssl",), plan=plan)  # fmt: skip
