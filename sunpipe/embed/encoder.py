"""A trained encoder that takes gauss: loaded from its run, named by its digest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from sunpipe import checkpoint
from sunpipe.embed.signed_maps import SignedMap, signed_map
from sunpipe.errors import DataError
from sunpipe.files import digest, read_json
from sunpipe.fitsorigin import GAUSS
from sunpipe.models.backbone import RESIDUAL, make_backbone
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.paths import Layout
from sunpipe.physics.channels import orbit as list_ways
from sunpipe.run import require_run, ssl_name
from sunpipe.shards.loader import to_physical
from sunpipe.shards.normalize import encode
from sunpipe.shards.tiles import check_scale
from sunpipe.stage import log


@dataclass(frozen=True)
class EncoderCard:
    """What identifies an encoder and says what it takes.

    Attributes
    ----------
    run : str
        Name of the run folder.
    nimg : int
        Images it was trained with.
    digest : str
        SHA-256 over weights, channels, size, normalisation and orbit.
    channels, units : list of str
    resolution : int
        H = W of its input.
    dim : int
        Length of its vectors.
    normalize : dict
        `NormalizeSettings` from gauss to the network's range.
    symmetries : list of str
        Under which views of one patch it was trained to agree.
    orbit : bool
        Whether a vector is the mean over all combinations of `symmetries`.
    method, backbone : str
        How it was trained, and what network it is.
    pixel_cm : float or None
        Median side of a pixel of the patches it was trained with, cm; None in runs
        that did not keep it.
    """

    run: str
    nimg: int
    digest: str
    channels: list[str]
    units: list[str]
    resolution: int
    dim: int
    normalize: dict[str, Any]
    symmetries: list[str]
    orbit: bool
    method: str = "simsiam"
    backbone: str = RESIDUAL
    pixel_cm: float | None = None


def _card(run: Path, path: Path, orbit: bool) -> tuple[EncoderCard, dict[str, Any]]:
    state = checkpoint.load_state(path)
    if state.get("kind") != "ssl":
        raise DataError(f"{run} is not an encoder's run; give the folder of sunpipe ssl")
    about = state["encoder"]
    weights = read_json(path / "COMPLETE")["encoder.safetensors"]
    identity = digest({"weights": weights, "encoder": about, "orbit": orbit})
    card = EncoderCard(
        run=run.name, nimg=state["nimg"], digest=identity,
        channels=about["channels"], units=about["units"], resolution=about["resolution"],
        dim=about["dim"], normalize=about["normalize"], symmetries=about["symmetries"], orbit=orbit,
        **{key: about[key] for key in ("method", "backbone", "pixel_cm") if key in about},
    )  # fmt: skip
    return card, about


@lru_cache(maxsize=4)
def _table(scale: float, settings: NormalizeSettings) -> torch.Tensor:
    """Network values of the counts -32768 to 32767."""
    counts = torch.arange(-(2**15), 2**15, dtype=torch.int32)
    return encode(to_physical(counts, scale), settings)


def encoder_run(layout: Layout, name: str) -> Path:
    """Newest encoder run of an experiment; one that is not done says so.

    Raises
    ------
    DataError
        There is none, or it failed: its vectors may be one for all patches. A run
        that is named by its folder or by a digest is not asked (`FieldEncoder.load`).
    """
    run = require_run(layout, ssl_name(name), "run sunpipe ssl first")
    path = run / "status.json"
    status = read_json(path) if path.is_file() else {"state": "unfinished"}
    state = status.get("state")
    if state == "failed":
        raise DataError(
            f"{run.name} failed: {status.get('reason', 'no reason kept')}; continue it with"
            " sunpipe ssl, or train another with sunpipe ssl --new"
        )
    if state != "done":
        log(f"{run.name} is {state}, not done; its newest checkpoint is taken")
    return run


def _spelled_alike(units: Sequence[str]) -> list[str]:
    """Units with one spelling of gauss."""
    return ["Gauss" if unit in GAUSS else unit for unit in units]


@dataclass(frozen=True)
class FieldEncoder:
    """Weights and card; `vectors` is what it is for."""

    card: EncoderCard
    network: torch.nn.Module
    device: torch.device
    ways: list[tuple[str, ...]]

    @classmethod
    def load(cls, run: Path, orbit: bool = True, wanted: str | None = None) -> FieldEncoder:
        """Load the newest whole checkpoint of a run, or the one with digest `wanted`.

        Parameters
        ----------
        run : Path
            Run folder of ``sunpipe ssl``.
        orbit : bool
            Average vectors over the symmetries; part of the digest.
        wanted : str, optional
            Digest of the encoder that made an index.

        Raises
        ------
        DataError
            No usable checkpoint, a run of another kind, or none with that digest.
        """
        folder = Path(run) / "checkpoints"
        newest = checkpoint.newest(folder, log)
        if newest is None:
            raise DataError(f"{run} has no complete checkpoint; run sunpipe ssl first")
        paths = [newest] if wanted is None else [newest, *reversed(checkpoint.complete(folder))]
        for path in paths:
            card, about = _card(Path(run), path, orbit)
            if wanted in (None, card.digest) and checkpoint.fault(path) is None:
                break
        else:
            card, _ = _card(Path(run), newest, orbit)
            raise DataError(
                f"the encoder of {Path(run).name} is {card.digest[:12]}, not the wanted"
                f" {str(wanted)[:12]}: run sunpipe embed and sunpipe index build again, or give the"
                " run that made the index"
            )
        try:
            network = make_backbone(
                card.backbone, len(card.channels), card.resolution, about["width"], card.dim
            )
        except ValueError as error:
            raise DataError(f"the encoder of {card.run}: {error}") from None
        network.load_state_dict(checkpoint.load_tensors(path, "encoder"))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        ways = list_ways(card.channels, card.symmetries if orbit else ())
        return cls(card, network.eval().requires_grad_(False), device, ways)

    def check(
        self, channels: Sequence[str], resolution: int, what: str,
        units: Sequence[str] | None = None, pixel_cm: float | None = None,
    ) -> None:  # fmt: skip
        """Refuse data that the encoder was not trained for, by name.

        Parameters
        ----------
        channels, resolution
            Of the data.
        what : str
            The data, for the message.
        units : sequence of str, optional
            Of the channels.
        pixel_cm : float, optional
            Side of a pixel, cm.

        Raises
        ------
        DataError
            Other channels, size or units, or a pixel that differs by more than `SAME_SCALE`.
        """
        card = self.card
        if list(channels) != card.channels or resolution != card.resolution:
            raise DataError(
                f"the encoder of {card.run} takes {', '.join(card.channels)} at {card.resolution}"
                f" x {card.resolution}, but {what} has {', '.join(channels)} at {resolution} x"
                f" {resolution}; train an encoder on it with sunpipe ssl"
            )
        if units is not None and _spelled_alike(units) != _spelled_alike(card.units):
            raise DataError(
                f"the encoder of {card.run} takes {', '.join(card.units)}, but {what} is in"
                f" {', '.join(units)}; train an encoder on it with sunpipe ssl"
            )
        if pixel_cm is not None and card.pixel_cm is not None:
            check_scale(pixel_cm, card.pixel_cm, what, f"the encoder of {card.run}")

    @torch.no_grad()
    def vectors(self, fields: NDArray[np.float32] | torch.Tensor) -> NDArray[np.float32]:
        """Vectors of fields.

        Parameters
        ----------
        fields : array or Tensor, (B, C, H, H)
            Physical units, 0 where invalid.

        Returns
        -------
        ndarray of float32, (B, dim)
            Not normalised.

        Raises
        ------
        DataError
            A vector is not finite: the fields are not, or not in gauss.
        """
        x = torch.as_tensor(fields, dtype=torch.float32).to(self.device, non_blocking=True)
        return self._vectors(self._encoded(x) if self._commutes else x, self._commutes)

    def stored_vectors(
        self, stored: NDArray[Any], scale: float | Sequence[float]
    ) -> NDArray[np.float32]:
        """`vectors` of images as a dataset stores them (B, C, H, H), with its `scale`."""
        return self.prepared_vectors(self.prepared(stored, scale), scale)

    def prepared(self, stored: NDArray[Any], scale: float | Sequence[float]) -> torch.Tensor:
        """What a thread can do for stored images while the network is at others.

        For a CPU they come as the network takes them. 16-bit counts are looked up in a
        table: asinh takes as long as half a pass of a small network. For a GPU they stay
        counts: half the bytes to carry, and normalised there.
        """
        counts = torch.from_numpy(stored)
        if self.device.type != "cpu":
            return counts
        if isinstance(scale, int | float) and self._commutes and stored.dtype == np.int16:
            table = _table(float(scale), self._settings)
            places = counts.to(torch.int32).add_(2**15)
            ready = table.index_select(0, places.flatten()).view(counts.shape)
        else:
            fields = to_physical(counts, scale)
            ready = self._encoded(fields) if self._commutes else fields
        return ready.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def prepared_vectors(
        self, ready: torch.Tensor, scale: float | Sequence[float]
    ) -> NDArray[np.float32]:
        """`vectors` of what `prepared` gave."""
        if self.device.type == "cpu":
            return self._vectors(ready, self._commutes)
        return self.vectors(to_physical(ready.to(self.device, non_blocking=True), scale))

    def _vectors(self, x: torch.Tensor, encoded: bool) -> NDArray[np.float32]:
        total = torch.zeros(len(x), self.card.dim, device=self.device)
        for turned in self._orbit(x):
            total += self.network(turned if encoded else self._encoded(turned))
        found = (total / len(self.ways)).cpu().numpy()
        if not np.isfinite(found).all():
            raise DataError("the encoder gave a vector that is not finite; check the fields")
        return found

    @cached_property
    def _settings(self) -> NormalizeSettings:
        return TypeAdapter(NormalizeSettings).validate_python(self.card.normalize)

    @cached_property
    def _commutes(self) -> bool:
        """Whether symmetries may come after normalisation: one odd map for all channels.

        A turn makes Bt of Bp, so that a scale of its own for each would not go with it.
        """
        return self._settings.channels is None and self._settings.zero == 0

    def _encoded(self, x: torch.Tensor) -> torch.Tensor:
        return encode(x, self._settings)

    @cached_property
    def _maps(self) -> list[SignedMap]:
        return [signed_map(self.card.channels, way) for way in self.ways]

    def _orbit(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Each of `ways` applied to `x`."""
        x = x.contiguous(memory_format=torch.channels_last)  # as convolutions like it
        for one in self._maps:
            yield one(x)

    def describe(self) -> dict[str, Any]:
        """The card, JSON-able."""
        return asdict(self.card)
