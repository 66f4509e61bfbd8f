"""``[sample]`` and ``[directions]``: generated patches, and what changes along which direction."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from sunpipe.physics.measurable import check_measurable
from sunpipe.setting_types import STRICT, Count, CountOrNone, NonNegative, Positive, Share


def _measurable(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse quantities that images cannot be measured by."""
    check_measurable(names)
    return names


QuantityNames = Annotated[tuple[str, ...], AfterValidator(_measurable)]


@dataclass(frozen=True, config=STRICT)
class SampleSettings:
    """``[sample]``: draw w, generate, decode, measure.

    `quantities` are measured on every patch and at every step of a walk; empty
    means all that the generator's channels allow. With `styles` = 2 the layers of a
    sample take their w from two latents, as style mixing in training does, so that
    directions of single layers can be told apart.
    """

    count: Count = 20000
    batch: Count = 64
    psi: Share = 1.0
    noise: Literal["const", "none"] = "const"
    styles: Literal[1, 2] = 1
    quantities: QuantityNames = ()


@dataclass(frozen=True, config=STRICT)
class DirectionsSettings:
    """``[directions]``: a linear SVM per quantity over w.

    `quantities` may be any that were measured; empty means all of them.
    `extremes` is the share of samples in each class (top and bottom),
    `test_share` what is held out, `max_undefined` the largest share of samples
    in which a quantity may be undefined, `bootstrap` the refits that give the
    uncertainty of a direction. `metric` says how w moves: as it varies when the
    SVM's score does (``covariance``), or along the plane's normal
    (``euclidean``). `steps` are the positions of the traverse in standard
    deviations of w along the direction, `reach` how far from the mean of w, in
    the same unit, ``sunpipe traverse`` may go.

    `space` is where the learners look: ``z``, ``w``, or ``w_plus``, one w for each
    layer, of which `layers` (all when empty) may be used. `learner` says which
    direction is walked; all are judged: the SVM between the extremes, the linear
    SVR on normal scores of the ranks (`svr_c`, `svr_epsilon` in their unit), and
    ridge regression. The first `components` principal components of the space are
    read physically and are a control.
    """

    quantities: QuantityNames = ("USFLUX", "MEANGAM", "TOTUSJH", "NETFLUX", "POLSEP")
    extremes: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    max_undefined: Share = 0.5
    solver: Literal["newton", "sklearn"] = "newton"
    svm_c: Positive = 0.01
    space: Literal["z", "w", "w_plus"] = "w"
    layers: tuple[Annotated[int, Field(ge=0, lt=64)], ...] = ()
    learner: Literal["svm", "svr", "ridge"] = "svm"
    svr_c: Positive = 0.01
    svr_epsilon: NonNegative = 0.1
    components: CountOrNone = 10
    bootstrap: CountOrNone = 20
    metric: Literal["covariance", "euclidean"] = "covariance"
    steps: tuple[float, ...] = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
    traverse_count: Count = 64
    reach: Positive = 4.0

    def __post_init__(self) -> None:
        if len(self.steps) < 2 or any(b <= a for a, b in pairwise(self.steps)):
            raise ValueError("steps must be at least two numbers in rising order")
        if self.layers and self.space != "w_plus":
            raise ValueError("layers needs space = 'w_plus'")
        if len(set(self.layers)) != len(self.layers):
            raise ValueError("a layer stands twice in layers")
