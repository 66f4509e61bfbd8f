"""Start from the weights of another run, of the same or a lower resolution.

Modules are keyed by resolution, so weights match by name. What a higher
resolution adds starts as `sunpipe.train.grown` says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn

from sunpipe import checkpoint
from sunpipe.config import changed_keys
from sunpipe.errors import ConfigError, DataError
from sunpipe.files import read_json
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.paths import Layout
from sunpipe.run import trained_run
from sunpipe.train.grown import start_discriminator, start_generator
from sunpipe.train_settings import TrainSettings

Names = tuple[str, ...]
Tensors = Mapping[str, torch.Tensor]
SAME_DATA = ("channels", "units")
SAME_MODEL = ("g_architecture", "d_architecture")


@dataclass(frozen=True)
class WarmReport:
    """What a warm start did; as text, one line for the log.

    Attributes
    ----------
    source : Path
        Checkpoint folder.
    resolution : int
        Of the source, pixels.
    copied, prepared, random : dict of str to tuple of str
        Per network the tensors that came from the source, those that were set so
        that the new layers change nothing at first, and those left at random.
    """

    source: Path
    resolution: int
    copied: dict[str, Names]
    prepared: dict[str, Names]
    random: dict[str, Names]

    def __str__(self) -> str:
        parts = [
            f"{name} {len(self.copied[name])} tensors copied, {len(self.prepared[name])} set so"
            f" that new layers change nothing, {len(self.random[name])} at random"
            for name in self.copied
        ]
        run, size = self.source.parent.parent.name, self.resolution
        return f"{run} {self.source.name} ({size} x {size}): {'; '.join(parts)}"


def find_source(
    layout: Layout, run: str, config: Mapping[str, Any], report: Callable[[str], None]
) -> Path:
    """Checkpoint to start from; one that does not fit the new run is refused by what differs.

    Parameters
    ----------
    run : str
        Name of a run (the newest of that name with a checkpoint), name or path of a
        run folder, or path of one checkpoint.
    config : mapping
        The new run's, as ``config.json`` will hold it.
    report : callable
        Gets a line for each broken checkpoint that is passed over.

    Raises
    ------
    DataError
        No such run, no whole checkpoint, not of StyleGAN2, other channels, units,
        normalisation, architecture or shapes, or a higher resolution than the new
        run's.
    ConfigError
        ``train.warm.freeze_d`` leaves no layer to be trained.
    """
    folder = _folder(layout, run)
    if folder.name.startswith("kimg-"):
        path, folder = folder, folder.parent.parent
        if why := checkpoint.fault(path):
            raise DataError(f"train.warm.run: {path} cannot be used: {why}")
    else:
        newest = checkpoint.newest(folder / "checkpoints", report)
        if newest is None:
            raise DataError(f"train.warm.run: {folder} has no whole checkpoint")
        path = newest
    theirs = read_json(folder / "config.json")
    if "train" not in theirs or "data" not in theirs:
        raise DataError(f"train.warm.run: {folder} is not a run of sunpipe train")
    differ = changed_keys(_must_agree(theirs), _must_agree(config))
    if differ:
        raise DataError(f"train.warm.run: {folder.name} was trained with another"
                        f" {', '.join(differ)}; its weights mean something else")  # fmt: skip
    here, there = config["data"]["resolution"], theirs["data"]["resolution"]
    if there > here:
        raise DataError(f"train.warm.run: {folder.name} has {there} x {there} pixels, this run"
                        f" {here} x {here}; start from one that has no more")  # fmt: skip
    _try(path, config, there)
    return path


def _try(source: Path, config: Mapping[str, Any], resolution: int) -> None:
    """Refuse shapes and `freeze_d` before there is a run: on networks without memory."""
    settings = TypeAdapter(TrainSettings).validate_python(config["train"])
    data = config["data"]
    with torch.device("meta"):
        shape = data["resolution"], len(data["channels"]), settings.model
        networks = {"G": Generator(*shape), "D": Discriminator(*shape)}
    for name, network in networks.items():
        _fitting(name, checkpoint.load_tensors(source, name), network.state_dict(), source)
    frozen_names(networks["D"], settings.warm.freeze_d, resolution)


def _folder(layout: Layout, run: str) -> Path:
    given = Path(run).expanduser()
    for folder in (given, layout.runs / run):
        if (folder / "checkpoints").is_dir() or (folder / "COMPLETE").is_file():
            return folder.resolve()
    named = trained_run(layout, run)
    if named is None:
        raise DataError(f"train.warm.run: no run called {run!r} under {layout.runs}, and no such"
                        " folder")  # fmt: skip
    return named


def _must_agree(config: Mapping[str, Any]) -> dict[str, Any]:
    train, data = config["train"], config["data"]
    model = {key: train["model"].get(key) for key in SAME_MODEL}
    fixed = {
        "data": {key: data[key] for key in SAME_DATA},
        "train": {"normalize": train["normalize"], "model": model},
    }
    # a new run's configuration has tuples where JSON has lists
    found: dict[str, Any] = json.loads(json.dumps(fixed))
    return found


def warm_start(networks: Mapping[str, nn.Module], source: Path) -> WarmReport:
    """Copy into `networks` what fits from a checkpoint, in place.

    Parameters
    ----------
    networks : mapping of str to Module
        ``G``, ``D`` and ``G_ema``, or some of them, freshly made.
    source : Path
        From `find_source`.

    Raises
    ------
    DataError
        Not even half of a network's numbers fit: it is of another shape.
    """
    resolution = read_json(source.parent.parent / "config.json")["data"]["resolution"]
    copied: dict[str, Names] = {}
    prepared: dict[str, Names] = {}
    random: dict[str, Names] = {}
    for name, network in networks.items():
        given, ours = checkpoint.load_tensors(source, name), network.state_dict()
        fits = _fitting(name, given, ours, source)
        with torch.no_grad():
            for key, value in fits.items():
                ours[key].copy_(value)
            start = start_discriminator if name == "D" else start_generator
            changed = start(ours, given, resolution)
        copied[name], prepared[name] = tuple(fits), changed
        random[name] = tuple(key for key in ours if key not in fits and key not in changed)
    return WarmReport(source, resolution, copied, prepared, random)


def _fitting(name: str, given: Tensors, ours: Tensors, source: Path) -> Tensors:
    """Tensors of the source that have a place of their shape; at least half of the numbers."""
    fits = {key: value for key, value in given.items()
            if key in ours and ours[key].shape == value.shape}  # fmt: skip
    if 2 * sum(map(torch.numel, fits.values())) < sum(map(torch.numel, given.values())):
        raise DataError(f"train.warm.run: {name} of {source.parent.parent.name} has other shapes"
                        f" ({_misfit(given, ours)}); give train.model the values of that"
                        " run")  # fmt: skip
    return fits


def _misfit(given: Tensors, ours: Tensors) -> str:
    for key, value in given.items():
        if key not in ours:
            return f"no {key} here"
        if ours[key].shape != value.shape:
            return f"{key} is {tuple(value.shape)} there and {tuple(ours[key].shape)} here"
    return "too few tensors"


def layers(discriminator: nn.Module) -> list[tuple[str, nn.Module]]:
    """Layers with weights, the one nearest to the image first.

    Each convolution and dense layer counts, those of the shortcuts too; a block's
    come in the order from_image, conv, shrink, shortcut.
    """
    return [(name, module) for name, module in discriminator.named_modules()
            if isinstance(getattr(module, "weight", None), nn.Parameter)]  # fmt: skip


def frozen_names(
    discriminator: nn.Module, count: int, resolution: int | None = None
) -> tuple[str, ...]:
    """Names of the parameters that Freeze-D keeps (arXiv:2002.10964, section 3).

    Parameters
    ----------
    count : int
        Layers, nearest to the image first.
    resolution : int, optional
        Of the source, where it was lower: layers above it are new, are trained, and
        do not count.

    Raises
    ------
    ConfigError
        `count` leaves no layer to be trained.
    """
    known = [
        (name, module)
        for name, module in layers(discriminator)
        if resolution is None or _size(name) <= resolution
    ]
    if count and count >= len(known):
        raise ConfigError(f"train.warm.freeze_d={count}: D has {len(known)} layers with weights of"
                          " the other run, and one at least must be trained")  # fmt: skip
    return tuple(
        f"{name}.{own}" for name, module in known[:count]
        for own, _ in module.named_parameters(recurse=False)
    )  # fmt: skip


def _size(name: str) -> int:
    """Resolution in ``blocks.64.conv``; the layers behind the blocks work at 4 x 4."""
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blocks" else 4


def frozen_parameters(
    discriminator: nn.Module, count: int, resolution: int | None = None
) -> list[nn.Parameter]:
    """Parameters that Freeze-D keeps, see `frozen_names`."""
    return [discriminator.get_parameter(n) for n in frozen_names(discriminator, count, resolution)]


def trainable(
    discriminator: nn.Module, count: int, resolution: int | None = None
) -> tuple[str, ...]:
    """Names of all other parameters of D."""
    frozen = set(frozen_names(discriminator, count, resolution))
    return tuple(name for name, _ in discriminator.named_parameters() if name not in frozen)
