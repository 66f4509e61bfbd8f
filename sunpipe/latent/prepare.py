"""What all fits of one set of samples share: held-out samples, labels, plain planes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.latent import labels
from sunpipe.latent.axes import Axes
from sunpipe.latent.direction import Floats
from sunpipe.latent.ridge import fit_ridge, normal_scores
from sunpipe.latent.samples import Samples
from sunpipe.latent.space import Space
from sunpipe.latent.svm import Planes, Scale, fit_svm, fit_svr
from sunpipe.latent_settings import DirectionsSettings


@dataclass(frozen=True)
class Prepared:
    """What every quantity's fit shares; the same in every array task.

    Attributes
    ----------
    samples : Samples
    space : Space
        Where the learners look and the walks move.
    x : ndarray of float32, shape (N, D)
        Flat latents of the samples in `space`.
    settings : DirectionsSettings
    seed : int
    test : ndarray of bool, shape (N,)
        Held-out samples.
    scale : Scale
        Standardisation from the training samples.
    extreme : dict
        Quantity to its labels (N,), for those that can be fitted.
    left_out : dict
        Quantity to the reason why it cannot.
    planes : Planes
        Of ``settings.learner``, one per quantity in `extreme`, in that order.
    axes : Axes
        Principal axes of the columns of x that may move.
    root : ndarray, shape (D, D)
        Square root of the metric in which x moves; 0 for columns that may not.
    """

    samples: Samples
    space: Space
    x: NDArray[np.float32]
    settings: DirectionsSettings
    seed: int
    test: NDArray[np.bool_]
    scale: Scale
    extreme: dict[str, NDArray[np.int8]]
    left_out: dict[str, str]
    planes: Planes
    axes: Axes
    root: Floats

    @property
    def names(self) -> list[str]:
        """Quantities that get a direction."""
        return list(self.extreme)

    @property
    def base_rows(self) -> NDArray[np.int64]:
        """Samples the walks start from: held out, so that no direction was trained on them."""
        return np.flatnonzero(self.test)[: self.settings.traverse_count].astype(np.int64)


def learn(
    samples: Samples, x: NDArray[np.float32], test: NDArray[np.bool_], scale: Scale,
    extreme: dict[str, NDArray[np.int8]], settings: DirectionsSettings,
    movable: NDArray[np.bool_],
) -> Planes:  # fmt: skip
    """Planes of the learner whose directions are walked, one per quantity in `extreme`."""
    if settings.learner == "svm":
        weights = np.where(test, 0, np.stack(list(extreme.values())))
        return fit_svm(x, weights, settings.svm_c, scale, settings.solver, movable)
    values = np.stack([samples.column(name) for name in extreme])
    if settings.learner == "svr":
        targets = np.where(test, np.nan, np.stack([normal_scores(row) for row in values]))
        return fit_svr(
            x, targets, settings.svr_c, settings.svr_epsilon, scale, settings.solver, movable
        )
    found = [fit_ridge(x, row, test, scale, movable).plane for row in values]
    return Planes(*(np.concatenate(each) for each in zip(*found, strict=True)))


def prepare(samples: Samples, settings: DirectionsSettings, seed: int) -> Prepared:
    """Choose held-out samples, label extremes, and fit all plain directions at once.

    Raises
    ------
    DataError
        When no quantity can be fitted; every reason is named.
    """
    asked = settings.quantities or tuple(samples.names)
    unmeasured = [name for name in asked if name not in samples.names]
    if unmeasured:
        raise DataError(
            f"{', '.join(unmeasured)} not measured in the samples; add to sample.quantities and"
            " run sunpipe sample again"
        )
    if len(samples) < 4:
        raise DataError(f"{len(samples)} samples are too few; raise sample.count")
    space = Space.asked(settings, samples)
    x = space.latents(samples)
    movable = space.columns(x.shape[1])
    test = labels.held_out(len(samples), settings.test_share, seed)
    extreme: dict[str, NDArray[np.int8]] = {}
    left_out: dict[str, str] = {}
    for name in asked:
        values = samples.column(name)
        marks = labels.extremes(values, settings.extremes)
        why = labels.unfit(values, marks, test, int(movable.sum()), settings.max_undefined)
        if why is None:
            extreme[name] = marks
        else:
            left_out[name] = why
    if not extreme:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise DataError(f"no direction can be fitted: {reasons}")
    scale = Scale.of(x[~test])
    planes = learn(samples, x, test, scale, extreme, settings, movable)
    axes = Axes.of(x, movable)
    root = axes.root(isotropic=settings.metric == "euclidean")
    return Prepared(
        samples, space, x, settings, seed, test, scale, extreme, left_out, planes, axes, root
    )
