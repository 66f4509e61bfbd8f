"""``sunpipe train`` and ``sunpipe ssl``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sunpipe.settings import Config
from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, SetOption, run_stage

NewOption = Annotated[
    bool, typer.Option("--new", help="Start a new run folder instead of continuing the newest.")
]


def train(
    config: ConfigOption = None,
    set_: SetOption = None,
    new: NewOption = False,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Train StyleGAN2 on the shards; the same command continues a stopped run.

    Start it alone, with torchrun, or with srun (one task per GPU).
    """

    def work(cfg: Config) -> dict[str, Any] | None:
        from sunpipe.train.gan import train as run

        return run(cfg, new=new)

    def plan(cfg: Config) -> dict[str, Any]:
        from sunpipe.train.plan import plan_training

        return plan_training(cfg)

    run_stage("train", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
              sections=("train",), plan=plan)  # fmt: skip


def ssl(
    config: ConfigOption = None,
    set_: SetOption = None,
    new: NewOption = False,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Train the self-supervised encoder (SimSiam); the same command continues a stopped run."""

    def work(cfg: Config) -> dict[str, Any]:
        from sunpipe.train.ssl import train_ssl

        return train_ssl(cfg, new=new)

    def plan(cfg: Config) -> dict[str, Any]:
        from sunpipe.train.ssl import plan_ssl

        return plan_ssl(cfg)

    run_stage("ssl", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
              sections=("ssl",), plan=plan, locked=True)  # fmt: skip
