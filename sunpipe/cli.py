"""The ``sunpipe`` command: sub-commands are imported only when they are called (C1)."""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import sunpipe
from sunpipe.errors import EXIT_FAILURE, EXIT_STOPPED, SunpipeError
from sunpipe.paths import data_root

INTERRUPTED = 130  # what typer returns for ctrl-C

# name: (module:function or module:typer app, help line). Order is the flow of data.
CORE: dict[str, tuple[str, str]] = {
    "physics": ("sunpipe.physics.cli:physics", "SHARP keywords of one vector magnetogram."),
    "train": ("sunpipe.train.cli:train", "Train StyleGAN2 on the shards."),
    "ssl": ("sunpipe.train.cli:ssl", "Train the self-supervised encoder on the shards."),
    "sample": (
        "sunpipe.latent.cli:sample",
        "Draw w, generate patches, measure each.",
    ),
    "evaluate": ("sunpipe.evaluate.cli:evaluate", "How good the generator and the search are."),
    "directions": ("sunpipe.latent.cli:directions", "Linear SVM directions: fit, show."),
    "traverse": (
        "sunpipe.latent.traverse_cli:traverse",
        "Walk a direction by an amount of its quantity.",
    ),
    "invert": ("sunpipe.latent.invert_cli:invert", "Find the latent that makes an observed patch."),
    "embed": ("sunpipe.embed.cli:embed", "Embed the real archive with the encoder."),
    "index": ("sunpipe.index.cli:app", "FAISS index: build, search, info, verify."),
    "search": ("sunpipe.embed.cli:search", "Look generated patches up in the real archive."),
    "report": (
        "sunpipe.report.cli:report",
        "One HTML page about an experiment, a run, or runs compared.",
    ),
    "config": ("sunpipe.config_cli:show", "Print a resolved configuration and check it."),
}
PLUGIN_HELP = {
    "query": "Ask JSOC which records there are; they become wanted.",
    "fetch": "Bring FITS segments into the archive (bundled sample or JSOC).",
    "simulate": "Simulate active regions of known truth as a SHARP archive.",
    "shard": "FITS to HDF5 shards in physical units; ranks share the work.",
    "verify": "Re-read shards and say what is wrong.",
    "launch": "Submit one stage to Slurm through a cluster profile.",
    "pipeline": "Run or submit all stages in order, with dependencies.",
    "cluster": "A real Slurm on this one machine: up, down, info.",
    "plan": "What a training costs and whether it fits, before it is queued.",
    "status": "Runs and jobs at a glance.",
    "doctor": "Check this machine or allocation; each fault with the line that fixes it.",
    "monitor": "Prometheus metrics, dashboards and alerts: serve, preview, rules.",
}
ORDER = (
    "query",
    "fetch",
    "simulate",
    "shard",
    "verify",
    "physics",
    "train",
    "evaluate",
    "sample",
    "directions",
    "traverse",
    "invert",
    "ssl",
    "embed",
    "index",
    "search",
    "report",
    "doctor",
    "plan",
    "pipeline",
    "launch",
    "status",
    "monitor",
    "cluster",
    "config",
)


def commands() -> dict[str, tuple[str, str]]:
    """All sub-commands: our own, and those that packages add by entry points."""
    table = dict(CORE)
    for point in importlib.metadata.entry_points(group="sunpipe.commands"):
        table[point.name] = (point.value, PLUGIN_HELP.get(point.name, f"From {point.module}."))
    rank = {name: place for place, name in enumerate(ORDER)}
    return dict(sorted(table.items(), key=lambda item: rank.get(item[0], len(rank))))


def load_command(target: str, name: str) -> Any:
    """Import ``module:attribute`` and make it a click command."""
    module, _, attribute = target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        found_app = typer.Typer(add_completion=False)
        found_app.command(name=name)(found)
        found = found_app
    command = typer.main.get_command(found)
    command.name = name
    return command


class LazyGroup(TyperGroup):
    """Lists sub-commands from a table and imports one when it is invoked."""

    def __init__(self, table: dict[str, tuple[str, str]], **attrs: Any) -> None:
        self.table = table
        stubs = {name: TyperCommand(name=name, help=text) for name, (_, text) in table.items()}
        super().__init__(commands=stubs, **attrs)  # type: ignore[arg-type]

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Replace the listed stub by the real command."""
        name, stub, rest = super().resolve_command(ctx, args)
        if name is None or stub is None:
            return name, stub, rest
        return name, load_command(self.table[name][0], name), rest


def _version(value: bool) -> None:
    if value:
        print(f"sunpipe {sunpipe.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def group() -> LazyGroup:
    """Make the top-level command group."""
    base = typer.Typer(add_completion=False)
    base.callback()(_root)
    root = typer.main.get_group(base)
    return LazyGroup(
        commands(),
        name="sunpipe",
        help="From the SDO archive to an answer: fetch, shard, train, directions, search.",
        no_args_is_help=True,
        params=root.params,
        callback=root.callback,
    )


def guarded(call: Any) -> None:
    """Run a command outside click's standalone mode; a user's fault becomes one line.

    Faults of the environment (missing file, no permission, full disk) count as
    the user's to mend; everything else keeps its traceback because it is ours.
    """
    try:
        code = call()  # commands return None, or what they gave to typer.Exit
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            sys.exit(code)
    except typer.TyperException as error:  # options that do not fit: one line, or the help
        if text := error.format_message():  # a bare group has printed its help
            print(text if "\n" in text else f"sunpipe: {text}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SunpipeError as error:
        print(f"sunpipe: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("sunpipe: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(EXIT_STOPPED)
    except BrokenPipeError:
        sys.exit(EXIT_FAILURE)
    except OSError as error:
        if error.errno is None:
            raise
        hint = {
            errno.EROFS: "; choose a writable folder with SUNPIPE_ROOT",
            errno.EACCES: "; choose a writable folder with SUNPIPE_ROOT",
            errno.ENOSPC: "; free some space, then run the same command again",
            errno.EFBIG: "; raise the limit on file sizes (ulimit -f), then run the same again",
            errno.EDQUOT: "; free some of your quota, then run the same command again",
        }.get(error.errno, "")
        hint = hint or _no_root(error)
        where = f": {error.filename}" if error.filename else ""
        print(f"sunpipe: {error.strerror}{where}{hint}", file=sys.stderr)
        sys.exit(EXIT_FAILURE)


def _no_root(error: OSError) -> str:
    """What to do where the data root itself is not there and cannot be made."""
    root = data_root()
    if root.is_dir() or not isinstance(error.filename, str):
        return ""
    path = Path(error.filename)
    if not (path == root or path in root.parents or root in path.parents):
        return ""
    return f"; the data root {root} cannot be made, choose another folder with SUNPIPE_ROOT"


def main() -> None:
    """Entry point of ``sunpipe``."""
    # Threads that wait by spinning stall each other on a shared CPU: two trainings on two cores
    # took 350 s/kimg spinning and 24 s/kimg sleeping.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    guarded(lambda: group().main(prog_name="sunpipe", standalone_mode=False))
