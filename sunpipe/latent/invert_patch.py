"""One patch to one latent: the whole of an inversion, without files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sunpipe.invert_settings import InvertSettings
from sunpipe.latent.calibrate import finite
from sunpipe.latent.cloud import Cloud, length
from sunpipe.latent.inverter import Inverter
from sunpipe.latent.misfit import FieldMisfit, KeywordMisfit, measured, nearest_turn, quiet_noise
from sunpipe.latent.optimise import Criterion, optimise
from sunpipe.latent.starts import make_starts, nearest
from sunpipe.physics.quantities import QUANTITIES

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator, Noise

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Inverted:
    """A patch and the latent that makes it.

    Attributes
    ----------
    w : ndarray of float32, shape (w_dim,) or (num_ws, w_dim)
    reproduced : ndarray of float32, shape (C, H, H)
        What the generator makes of `w`, gauss.
    errors : dict
        Component to ``rms_g``, ``median_g``, ``correlation`` over valid pixels.
    keywords : dict
        Quantity to real, reproduced and their difference.
    starts : list of dict
        Of each start: name, criterion and its terms before and after.
    chosen : int
        The start that `w` comes from: the least total.
    length : float
        Mahalanobis length of `w` over the root of the dimension.
    """

    w: NDArray[np.float32]
    reproduced: Images
    errors: dict[str, dict[str, float | None]]
    keywords: dict[str, dict[str, Any]]
    starts: list[dict[str, Any]]
    chosen: int
    length: float


def _named(numbers: dict[str, float]) -> dict[str, float | None]:
    """The same for JSON: None where undefined."""
    return dict(zip(numbers, finite(np.array(list(numbers.values()))), strict=True))


def field_errors(
    real: Images, shown: Images, mask: NDArray[np.bool_], channels: list[str]
) -> dict[str, dict[str, float | None]]:
    """Root mean square, median magnitude and correlation of every component, in gauss."""
    found = {}
    for name, one, other in zip(channels, real, shown, strict=True):
        a, b = one[mask].astype(np.float64), other[mask].astype(np.float64)
        varies = a.std() > 0 and b.std() > 0
        found[name] = _named({
            "rms_g": np.sqrt(np.mean((b - a) ** 2)),
            "median_g": np.median(np.abs(b - a)),
            "correlation": np.corrcoef(a, b)[0, 1] if varies else np.nan,
        })  # fmt: skip
    return found


def keyword_errors(
    real: torch.Tensor, shown: torch.Tensor, cloud: Cloud, aimed: list[str]
) -> dict[str, dict[str, Any]]:
    """Real, reproduced, difference in the unit and in natural standard deviations."""
    found = {}
    for name, one, other in zip(cloud.spread, real.tolist(), shown.tolist(), strict=True):
        apart = nearest_turn(other - one, name)
        numbers = {"real": one, "reproduced": other, "difference": apart,
                   "difference_std": apart / (cloud.spread[name] or np.nan)}  # fmt: skip
        unit = QUANTITIES[name].unit("physical")
        found[name] = {"unit": unit, **_named(numbers), "aimed_at": name in aimed}
    return found


@dataclass(frozen=True)
class Problem:
    """One observed patch, ready to be inverted.

    Attributes
    ----------
    fields : Tensor, (1, C, H, H)
    mask : Tensor, (1, 1, H, H)
    criterion : Criterion
    real : Tensor, (Q,)
        All quantities of the cloud, measured on the valid pixels.
    """

    fields: torch.Tensor
    mask: torch.Tensor
    criterion: Criterion
    real: torch.Tensor


def pose(
    generator: Generator, cloud: Cloud, noise: Noise, fields: Images, mask: NDArray[np.bool_],
    settings: InvertSettings,
) -> Problem:  # fmt: skip
    """Make the criterion of one patch; keywords that it leaves undefined are not aimed at."""
    channels, pixel_cm = list(generator.channels), generator.pixel_cm
    wanted = torch.from_numpy(fields)[None].to(generator.device)
    valid = torch.from_numpy(mask)[None, None].to(wanted)
    sigma = quiet_noise(channels).to(wanted)
    with torch.no_grad():
        real = measured(wanted, valid, channels, pixel_cm, list(cloud.spread))[0]
    defined = dict(zip(cloud.spread, real.tolist(), strict=True))
    names = [name for name in cloud.names if np.isfinite(defined[name])]
    device = wanted.device
    keyword = KeywordMisfit(
        wanted=torch.tensor([[defined[name] for name in names]], dtype=torch.float64).to(device),
        spread=torch.tensor([cloud.spread[name] for name in names], dtype=torch.float64).to(device),
        names=names, channels=channels, mask=valid, pixel_cm=pixel_cm,
    )  # fmt: skip
    field = FieldMisfit(wanted, valid, sigma)
    criterion = Criterion(
        generator, cloud, noise, field, keyword, settings.prior, settings.keywords
    )
    return Problem(wanted, valid, criterion, real)


def invert_patch(
    problem: Problem, network: Inverter, settings: InvertSettings, seed: int,
    poll: Callable[[], None] = lambda: None,
) -> Inverted:  # fmt: skip
    """Find the latent of a patch: several starts in one batch, the least criterion wins."""
    criterion = problem.criterion
    generator, cloud, noise = criterion.generator, criterion.cloud, criterion.noise
    near = nearest(generator, cloud, criterion.field, noise, poll)
    layers = generator.num_ws if settings.space == "w_plus" else None
    names, starts = make_starts(problem.fields, network, cloud, near, settings.starts, seed, layers)
    found = optimise(criterion, starts, settings, poll)
    total = found.best["total"]
    chosen = int(torch.where(total.isfinite(), total, torch.inf).argmin())
    with torch.no_grad():
        u = found.u[chosen : chosen + 1]
        w, shown = cloud.to_w(u), criterion.fields(u)
        values = measured(
            shown, problem.mask, list(generator.channels), generator.pixel_cm, list(cloud.spread)
        )[0]
    rows = [
        {"start": name, "chosen": number == chosen, "best_step": found.at[number],
         "steps_without_gradient": found.dropped[number],
         "before": _named({key: float(value[number]) for key, value in found.first.items()}),
         "after": _named({key: float(value[number]) for key, value in found.best.items()})}
        for number, name in enumerate(names)
    ]  # fmt: skip
    real, image = problem.fields[0].cpu().numpy(), shown[0].cpu().numpy()
    mask = problem.mask[0, 0].cpu().numpy() > 0
    return Inverted(
        w=w[0].cpu().numpy().astype(np.float32), reproduced=image,
        errors=field_errors(real, image, mask, list(generator.channels)),
        keywords=keyword_errors(problem.real, values, cloud, criterion.keyword.names),
        starts=rows, chosen=chosen, length=length(u[0]),
    )  # fmt: skip
