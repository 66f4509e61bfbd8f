"""Start from the weights of another run, of the same or a lower resolution.

Modules are keyed by resolution, so weights match by name: up to the resolution
of the source every tensor is copied, or the source is refused. What a higher
resolution adds starts as `sunpipe.train.grown` says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn

from sunpipe import checkpoint
from sunpipe.errors import ConfigError, DataError
from sunpipe.files import read_json
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.paths import Layout
from sunpipe.train.grown import new_sizes, size_of, start_discriminator, start_generator
from sunpipe.train.warm_folder import is_checkpoint, warm_folder
from sunpipe.train_settings import TrainSettings

Names = tuple[str, ...]
Tensors = Mapping[str, torch.Tensor]
NORMALIZE = "train.normalize."
MODEL = ("g_architecture", "d_architecture", "z_dim", "w_dim", "mapping_layers", "mbstd_group")
SAME = frozenset({"data.channels", "data.units", *(f"train.model.{key}" for key in MODEL)})
# May differ where that changes nothing up to the source's resolution: a higher
# channel_min for the new, large sizes. Shapes decide.
WIDTHS = ("train.model.channel_base", "train.model.channel_max", "train.model.channel_min")


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
        No such run, no whole checkpoint, not of StyleGAN2, a ``config.json`` that
        lacks a key, other channels, units, normalisation, networks or widths, or a
        higher resolution than the new run's.
    ConfigError
        ``train.warm.freeze_d`` leaves no layer to be trained.
    """
    folder = warm_folder(layout, run)
    if is_checkpoint(folder):
        path, folder = folder, folder.parent.parent
        if why := checkpoint.fault(path):
            raise DataError(f"train.warm.run: {path} cannot be used: {why}")
    else:
        newest = checkpoint.newest(folder / "checkpoints", report)
        if newest is None:
            raise DataError(f"train.warm.run: {folder} has no whole checkpoint")
        path = newest
    theirs = read_json(folder / "config.json")
    if not isinstance(theirs, Mapping) or not {"train", "data"} <= theirs.keys():
        raise DataError(f"train.warm.run: {folder} is not a run of sunpipe train")
    # a new run's configuration has tuples where JSON has lists
    old, new = _flat(theirs), _flat(json.loads(json.dumps(config)))
    _compare(folder, old, new)
    widths = [key for key in WIDTHS if old[key] != new[key]]
    _try(path, config, old["data.resolution"], widths)
    return path


def _compare(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse a source by the keys of its configuration that are missing or differ."""
    fixed = sorted(key for key in {*old, *new} if key in SAME or key.startswith(NORMALIZE))
    lacks = sorted({*fixed, *WIDTHS, "data.resolution"} & new.keys() - old.keys())
    if lacks:
        raise DataError(f"train.warm.run: {folder / 'config.json'} has no {', '.join(lacks)}, as if"
                        " by another version; start from a run of this version")  # fmt: skip
    differ = [key for key in fixed if key not in new or old[key] != new[key]]
    if differ:
        raise DataError(f"train.warm.run: {folder.name} was trained with another"
                        f" {', '.join(differ)}; its weights mean something else")  # fmt: skip
    here, there = new["data.resolution"], old["data.resolution"]
    if there > here:
        raise DataError(f"train.warm.run: {folder.name} has {there} x {there} pixels, this run"
                        f" {here} x {here}; start from one that has no more")  # fmt: skip


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        inner = _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else None
        found |= {prefix + key: value} if inner is None else inner
    return found


def _try(source: Path, config: Mapping[str, Any], resolution: int, widths: Collection[str]) -> None:
    """Refuse shapes and `freeze_d` before there is a run: on networks without memory."""
    settings = TypeAdapter(TrainSettings).validate_python(config["train"])
    data = config["data"]
    with torch.device("meta"):
        shape = data["resolution"], len(data["channels"]), settings.model
        networks = {"G": Generator(*shape), "D": Discriminator(*shape)}
    copied: dict[str, Names] = {}
    for name, network in (*networks.items(), ("G_ema", networks["G"])):
        given, ours = checkpoint.load_tensors(source, name), network.state_dict()
        copied[name] = tuple(_fitting(name, given, ours, resolution, source, widths))
    frozen_names(networks["D"], settings.warm.freeze_d, resolution, copied=copied["D"])


def warm_start(networks: Mapping[str, nn.Module], source: Path) -> WarmReport:
    """Copy a checkpoint into `networks`, in place, and start what is new.

    Parameters
    ----------
    networks : mapping of str to Module
        ``G``, ``D`` and ``G_ema``, or some of them, freshly made.
    source : Path
        From `find_source`.

    Raises
    ------
    DataError
        A tensor up to the source's resolution is missing or of another shape.
    """
    resolution = read_json(source.parent.parent / "config.json")["data"]["resolution"]
    copied: dict[str, Names] = {}
    prepared: dict[str, Names] = {}
    random: dict[str, Names] = {}
    for name, network in networks.items():
        given, ours = checkpoint.load_tensors(source, name), network.state_dict()
        fits = _fitting(name, given, ours, resolution, source)
        with torch.no_grad():
            for key, value in fits.items():
                ours[key].copy_(value)
            start = start_discriminator if name == "D" else start_generator
            changed = start(ours, given, resolution)
        copied[name], prepared[name] = tuple(fits), changed
        random[name] = tuple(key for key in ours if key not in fits and key not in changed)
    return WarmReport(source, resolution, copied, prepared, random)


def _fitting(
    name: str, given: Tensors, ours: Tensors, resolution: int, source: Path,
    widths: Collection[str] = (),
) -> Tensors:  # fmt: skip
    """Tensors of the source, which must be all that `ours` has up to its resolution.

    The layer between the image and the source's largest features is left out where
    the new network has none there: its image is larger.
    """
    places = {key: value for key, value in ours.items() if size_of(key) <= resolution}
    top = f"blocks.{resolution}.from_image." if name == "D" else (
        f"synthesis.blocks.{resolution}.to_image.")  # fmt: skip
    grows = bool(new_sizes(ours, resolution))
    for key in sorted({*given, *places}):
        there, here = (tuple(side[key].shape) if key in side else "missing"
                       for side in (given, places))  # fmt: skip
        if there != here and not (grows and key.startswith(top) and key not in ours):
            why = f"was trained with another {', '.join(widths)}" if widths else "does not fit"
            raise DataError(f"train.warm.run: {source.parent.parent.name} {why}: {key} of {name} is"
                            f" {there} there and {here} here")  # fmt: skip
    return {key: given[key] for key in places}


def layers(discriminator: nn.Module) -> list[tuple[str, nn.Module]]:
    """Layers with weights, the one nearest to the image first.

    Each convolution and dense layer counts, those of the shortcuts too; a block's
    come in the order from_image, conv, shrink, shortcut.
    """
    return [(name, module) for name, module in discriminator.named_modules()
            if isinstance(getattr(module, "weight", None), nn.Parameter)]  # fmt: skip


def frozen_names(
    discriminator: nn.Module, count: int, resolution: int | None = None, *,
    copied: Collection[str] | None = None,
) -> Names:  # fmt: skip
    """Names of the parameters that Freeze-D keeps (arXiv:2002.10964, section 3).

    Parameters
    ----------
    count : int
        Layers, nearest to the image first.
    resolution : int, optional
        Of the source, where it was lower: layers above it are new, are trained, and
        do not count.
    copied : collection of str, optional
        Tensors that came from the source, see `WarmReport`: a layer of others is
        trained too, and does not count.

    Raises
    ------
    ConfigError
        `count` leaves no layer to be trained.
    """
    known = []
    for name, module in layers(discriminator):
        own = tuple(f"{name}.{key}" for key, _ in module.named_parameters(recurse=False))
        old = resolution is None or size_of(name) <= resolution
        if old and (copied is None or all(parameter in copied for parameter in own)):
            known.append(own)
    if count and count >= len(known):
        raise ConfigError(f"train.warm.freeze_d={count}: D has {len(known)} layers with weights of"
                          " the other run, and one at least must be trained")  # fmt: skip
    return tuple(parameter for own in known[:count] for parameter in own)
