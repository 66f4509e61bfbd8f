"""Training the inversion encoder once per generator; it continues where it was stopped.

``latents/<name>/inverter/``::

    inverter.safetensors    weights and batch statistics; centre and axes of the cloud, in whose
                            coordinates the encoder answers: another eigensolver may turn them
    inverter.json           what it belongs to (generator, settings), held-out errors, SHA-256
    partial.safetensors     of an unfinished training: the same, Adam's moments, images shown
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sunpipe.errors import DataError, Stopped
from sunpipe.files import atomic_path, digest, read_json, sha256, write_json
from sunpipe.latent.cloud import Cloud
from sunpipe.latent.inverter import BATCH, BETAS, Inverter, Pairs, held_out, loss, rate
from sunpipe.lock import lock_file
from sunpipe.provenance import provenance
from sunpipe.settings import Config
from sunpipe.stage import log
from sunpipe.tensorfile import write_tensors

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator

SCHEMA = 2
SAVE_EVERY_S = 60.0
WAIT_S = 0.5  # between two looks at the lock; a wait in the kernel could not be stopped
TOLD = 20  # lines of progress


def folder_of(latents: Path) -> Path:
    """Where the inverter of a generator is."""
    return latents / "inverter"


def identity(generator: Generator, cfg: Config) -> dict[str, Any]:
    """All that decides the weights."""
    return {
        "schema": SCHEMA, "generator": generator.digest, "run": generator.run, "seed": cfg.seed,
        "psi": cfg.sample.psi, "noise": cfg.sample.noise, "kimg": cfg.invert.encoder_kimg,
    }  # fmt: skip


def why_not(folder: Path, wanted: dict[str, Any]) -> str | None:
    """Why the inverter in `folder` cannot be used; None when it can."""
    if not (folder / "inverter.json").is_file():
        return "there is none"
    try:
        about = read_json(folder / "inverter.json")
        if about.get("identity") != wanted:
            return "it is of another generator or other settings"
        if sha256(folder / "inverter.safetensors") != about["sha256"]:
            return "its file is damaged"
    except (DataError, FileNotFoundError, KeyError) as error:
        return f"it cannot be read ({error})"
    return None


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> str:
    with atomic_path(path) as temporary:
        return write_tensors(temporary, tensors)


def _key(wanted: dict[str, Any]) -> torch.Tensor:
    """The identity as a tensor, so that a partial file says what it is of."""
    return torch.tensor(list(bytes.fromhex(digest(wanted))), dtype=torch.uint8)


def _answered(network: Inverter, cloud: Cloud) -> dict[str, torch.Tensor]:
    """What an answer of the encoder needs: its weights, and the coordinates it is in."""
    weights = {f"network.{name}": value for name, value in network.state_dict().items()}
    return weights | {"cloud.centre": cloud.centre, "cloud.axes": cloud.axes}


def _restore(network: Inverter, cloud: Cloud, tensors: dict[str, torch.Tensor]) -> Cloud:
    """Take over what `_answered` gave: load the weights, return the cloud in its coordinates."""
    network.load_state_dict({
        name.removeprefix("network."): value for name, value in tensors.items()
        if name.startswith("network.")
    })  # fmt: skip
    return replace(cloud, centre=tensors["cloud.centre"].to(cloud.centre),
                   axes=tensors["cloud.axes"].to(cloud.axes))  # fmt: skip


class _Training:
    """Network, optimiser and images shown."""

    def __init__(self, pairs: Pairs, wanted: dict[str, Any]) -> None:
        generator = pairs.generator
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(pairs.seed)
            network = Inverter(len(generator.channels), generator.resolution, pairs.cloud.dim)
        self.network = network.to(generator.device).train()
        self.named = dict(self.network.named_parameters())
        self.adam = torch.optim.Adam(self.network.parameters(), lr=rate(0, 1), betas=BETAS)
        self.pairs, self.wanted, self.nimg = pairs, wanted, 0

    def step(self, total: int) -> None:
        for group in self.adam.param_groups:
            group["lr"] = rate(self.nimg, total)
        cost = loss(self.network, self.pairs, self.nimg, BATCH)
        if not bool(cost.isfinite()):
            raise DataError(
                f"the loss of the inversion encoder is not finite after {self.nimg} images;"
                " the generator makes fields that are no numbers: train it again"
            )
        self.adam.zero_grad()
        cost.backward()
        self.adam.step()
        self.nimg += BATCH

    def save(self, path: Path) -> None:
        tensors = _answered(self.network, self.pairs.cloud)
        for name, parameter in self.named.items():
            for moment in ("exp_avg", "exp_avg_sq", "step"):
                tensors[f"{moment}.{name}"] = self.adam.state[parameter][moment]
        tensors |= {"nimg": torch.tensor(self.nimg), "identity": _key(self.wanted)}
        _save(path, tensors)

    def load(self, path: Path) -> None:
        """Continue from a partial file, if there is one that belongs to this training."""
        if not path.exists():
            return
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found = load_file(path)
            if not torch.equal(found["identity"], _key(self.wanted)):
                return
            moments = {name: {key: found[f"{key}.{name}"].to(parameter.device)
                              if key != "step" else found[f"{key}.{name}"]
                              for key in ("exp_avg", "exp_avg_sq", "step")}
                       for name, parameter in self.named.items()}  # fmt: skip
            cloud = _restore(self.network, self.pairs.cloud, found)
        except (SafetensorError, OSError, KeyError, RuntimeError) as error:
            raise DataError(f"{path} is damaged ({error}); remove it and run again") from None
        for name, parameter in self.named.items():
            self.adam.state[parameter] = moments[name]
        self.nimg, self.pairs = int(found["nimg"]), replace(self.pairs, cloud=cloud)
        log(f"inversion encoder continues at {self.nimg / 1000:g} kimg")


def _train(folder: Path, pairs: Pairs, wanted: dict[str, Any], poll: Callable[[], None]) -> None:
    training = _Training(pairs, wanted)
    partial = folder / "partial.safetensors"
    training.load(partial)
    total = max(BATCH, round(1000 * wanted["kimg"] / BATCH) * BATCH)
    saved = time.monotonic()
    while training.nimg < total:
        try:
            poll()
        except Stopped:
            if training.nimg:
                training.save(partial)
            raise
        training.step(total)
        if training.nimg * TOLD // total != (training.nimg - BATCH) * TOLD // total:
            log(f"inversion encoder {training.nimg / 1000:g}/{total / 1000:g} kimg")
        if time.monotonic() - saved > SAVE_EVERY_S:
            training.save(partial)
            saved = time.monotonic()
    errors = held_out(training.network, training.pairs)
    sha = _save(folder / "inverter.safetensors", _answered(training.network, training.pairs.cloud))
    write_json(folder / "inverter.json", {
        "identity": wanted, "sha256": sha, "nimg": training.nimg, "held_out": errors,
        "cloud_dim": training.pairs.cloud.dim, "provenance": provenance(),
    })  # fmt: skip
    partial.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path, poll: Callable[[], None]) -> Iterator[None]:
    """Hold the folder's lock; wait while another process trains there, until `poll` raises."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as handle:
        told = False
        while True:
            try:
                lock_file(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    log(f"waiting: another process trains the inversion encoder in {folder}")
                told = True
                poll()
                time.sleep(WAIT_S)
        yield


def _read(folder: Path, wanted: dict[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """``inverter.json`` and the tensors that it is about.

    Raises
    ------
    DataError
        A process with other settings has replaced them since they were looked at.
    """
    from safetensors.torch import load

    about = read_json(folder / "inverter.json")
    content = (folder / "inverter.safetensors").read_bytes()
    if about.get("identity") != wanted or hashlib.sha256(content).hexdigest() != about["sha256"]:
        raise DataError(
            f"another process has just trained {folder} with other settings; run again, and give"
            " experiments with other settings other names"
        )
    return about, load(content)


def get_inverter(
    latents: Path, generator: Generator, cloud: Cloud, cfg: Config,
    poll: Callable[[], None] = lambda: None,
) -> tuple[Inverter, Cloud, dict[str, Any]]:  # fmt: skip
    """The inversion encoder of a generator, trained first if there is none or it is stale.

    Parameters
    ----------
    latents : Path
        ``latents/<name>``.
    cloud : Cloud
        Of this generator.
    poll : callable
        Called before every step; `Stopped` out of it is passed on after saving.

    Returns
    -------
    network : Inverter
        In evaluation mode.
    cloud : Cloud
        The one given, with the centre and axes that the encoder was trained in: use this one.
    about : dict
        ``inverter.json``.
    """
    folder, wanted = folder_of(latents), identity(generator, cfg)
    wanted = json.loads(json.dumps(wanted))  # as it comes back from the file
    if why_not(folder, wanted) is not None:
        with _alone(folder, poll):
            why = why_not(folder, wanted)  # another process may have trained it by now
            if why is not None:
                log(f"training an inversion encoder: {why}")
                pairs = Pairs(generator, cloud, cfg.sample.noise, cfg.sample.psi, cfg.seed)
                _train(folder, pairs, wanted, poll)
    about, tensors = _read(folder, wanted)
    network = Inverter(len(generator.channels), generator.resolution, about["cloud_dim"])
    cloud = _restore(network, cloud, tensors)
    return network.to(generator.device).eval().requires_grad_(False), cloud, about
