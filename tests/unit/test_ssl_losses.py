"""Losses and heads against lightly's and against what the papers say; collapse is seen."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from sunpipe.models.encoder import Encoder
from sunpipe.models.ssl_heads import DinoHead, expander, predictor, projector
from sunpipe.models.torchvision_ops import declare_operators
from sunpipe.ssl_settings import DinoSettings, SslSettings, VicregSettings
from sunpipe.train.ssl_losses import (
    collapse_level,
    dino_loss,
    dino_spread,
    reachable_deviation,
    simsiam_loss,
    vicreg_terms,
)
from sunpipe.train.ssl_methods import Dino, make_method


@pytest.fixture(scope="module")
def lightly() -> Any:
    """Its losses and heads: an independent implementation of the same papers."""
    declare_operators()
    import lightly.loss
    import lightly.models.modules.heads

    return lightly


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=source, dtype=torch.float64).requires_grad_(True)


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    """Value and gradients."""
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    pairs = zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True)
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-12)


def test_simsiam_is_lightlys(lightly: Any) -> None:
    p1, p2, z1, z2 = (drawn(16, 7, seed=seed) for seed in range(4))
    cosine = lightly.loss.NegativeCosineSimilarity()
    theirs = 0.5 * (cosine(p1, z2.detach()) + cosine(p2, z1.detach()))
    assert_same(simsiam_loss(p1, p2, z1, z2), theirs, [p1, p2])


def test_vicreg_is_lightlys(lightly: Any) -> None:
    z1, z2 = drawn(16, 7), drawn(16, 7, seed=1)
    for scale in (0.3, 3.0):  # below and above the deviation that is wanted
        invariance, variance, covariance, deviation = vicreg_terms(scale * z1, scale * z2)
        ours = 25 * invariance + 25 * variance + covariance
        theirs = lightly.loss.VICRegLoss()(scale * z1, scale * z2)
        assert_same(ours, theirs, [z1, z2])
        assert deviation == pytest.approx(1 if scale > 1 else 0.3, abs=0.12)


def test_dino_is_lightlys(lightly: Any) -> None:
    teacher, student = (
        [drawn(16, 9, seed=s) for s in (0, 1)],
        [drawn(16, 9, seed=s) for s in (2, 3)],
    )
    theirs = lightly.loss.DINOLoss(9, teacher_temp=2**-4, student_temp=2**-3).double()
    center = torch.randn(9, dtype=torch.float64)
    theirs.center.copy_(center)
    ours, probabilities = dino_loss((teacher[0], teacher[1]), (student[0], student[1]), center,
                                    2**-4, 2**-3)  # fmt: skip
    assert_same(ours, theirs([t.detach() for t in teacher], student), student)
    assert all(torch.allclose(p.sum(1), torch.ones(16).double()) for p in probabilities)


def test_heads_are_lightlys(lightly: Any) -> None:
    heads = lightly.models.modules.heads
    x = torch.randn(8, 6)
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (projector(6, 10), heads.SimSiamProjectionHead(6, 10, 10)),
        (predictor(6), heads.SimSiamPredictionHead(6, 1, 6)),
        (expander(6, 10), heads.VICRegProjectionHead(6, 10, 10)),
    ]
    for ours, theirs in pairs:
        theirs.load_state_dict({f"layers.{key}": value for key, value in ours.state_dict().items()})
        assert torch.equal(ours(x), theirs(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its weight norm is torch's old one
        dino = heads.DINOProjectionHead(6, 10, 4, 12)
    ours = DinoHead(6, 10, 4, 12)
    state = {f"layers.{key}": value for key, value in ours.layers.state_dict().items()}
    gain = torch.ones(12, 1)
    dino.load_state_dict({**state, "last_layer.weight_g": gain,
                          "last_layer.weight_v": ours.prototypes.detach()})  # fmt: skip
    torch.testing.assert_close(ours(x), dino(x), rtol=1e-5, atol=1e-6)


def test_gradient_is_stopped_at_the_projections() -> None:
    p1, p2, z1, z2 = (torch.randn(8, 5, requires_grad=True) for _ in range(4))
    simsiam_loss(p1, p2, z1, z2).backward()
    assert z1.grad is None
    assert z2.grad is None
    assert p1.grad is not None
    assert p1.grad.abs().sum() > 0


def test_loss_is_the_symmetric_negative_cosine() -> None:
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    assert simsiam_loss(a, b, b, a).item() == pytest.approx(-1)  # each predicts the other
    assert simsiam_loss(a, a, -a, a).item() == pytest.approx(0)
    assert simsiam_loss(a, b, -b, -a).item() == pytest.approx(1)


def test_dino_spread_sees_both_ways_to_collapse() -> None:
    even = torch.full((8, 16), 1 / 16)
    one = torch.eye(16)[:1].expand(8, 16)
    each = torch.eye(16)[:8]
    for p, information, sharpness in ((even, 0, 0), (one, 0, 1), (each, math.log(8), 1)):
        found = dino_spread((p, p))
        most = math.log(16)  # 16 outputs of two views, 16 prototypes
        assert [float(f) for f in found] == pytest.approx([information / most, sharpness], abs=1e-6)


def test_collapse_level() -> None:
    generator = torch.Generator().manual_seed(1)
    spread = torch.randn(4096, 64, generator=generator)
    assert collapse_level(spread).item() < 0.01
    one = torch.randn(1, 64, generator=generator)
    assert collapse_level(one.expand(256, 64)).item() == pytest.approx(1, abs=1e-4)
    assert collapse_level(one + 0.01 * spread).item() > 0.9
    # Scale does not matter, direction does.
    assert collapse_level(one * torch.rand(256, 1, generator=generator)).item() > 0.99


@pytest.mark.parametrize(("count", "length"), [(8, 512), (16, 256), (64, 32)])
def test_vicreg_at_its_best_is_no_collapse_whatever_the_width(count: int, length: int) -> None:
    z = drawn(count, length)
    best = reachable_deviation(count, length, 25, 1)
    z = (best * z.detach()).requires_grad_(True)
    optimiser = torch.optim.Adam([z], lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        _, variance, covariance, deviation = vicreg_terms(z, z)
        (25 * variance + covariance).backward()
        optimiser.step()
    assert float(deviation) == pytest.approx(best, rel=0.05)
    if length > count:
        assert best < 0.6  # which says nothing of a collapse: there is no room for more


def test_deviation_without_a_term_that_limits_it_is_the_wanted_one() -> None:
    assert reachable_deviation(8, 4096, 25, 0) == 1
    assert reachable_deviation(8, 4096, 0, 0) == 1
    assert reachable_deviation(8, 7, 25, 1) == 1
    assert reachable_deviation(2, 4096, 25, 1) > 0


def test_vicreg_sees_one_vector_for_all_at_any_width() -> None:
    torch.manual_seed(0)
    settings = SslSettings(method="vicreg", hidden=1024, batch=8)
    model = make_method(Encoder(1, 16, 4, 8), settings)
    views = torch.randn(8, 1, 16, 16), torch.randn(8, 1, 16, 16)
    torch.nn.init.zeros_(model.expander[-1].weight)
    assert float(model("views", *views)[1]["collapse"]) > 0.9
    torch.nn.init.normal_(model.expander[-1].weight, std=0.05)
    assert float(model("views", *views)[1]["collapse"]) < 0.1


def small(method: str, **more: Any) -> SslSettings:
    return SslSettings(method=method, hidden=12, batch=8, dino=DinoSettings(outputs=6, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["simsiam", "vicreg", "dino"])
def test_every_trained_parameter_gets_a_gradient(method: str) -> None:
    torch.manual_seed(0)
    model = make_method(Encoder(3, 16, 4, 8), small(method))
    loss, seen = model("views", torch.randn(8, 3, 16, 16), torch.randn(8, 3, 16, 16))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert seen["loss"] == loss.detach()
    assert 0 <= float(seen["collapse"]) <= 1
    assert not any(value.requires_grad for value in seen.values())
    assert any(name.startswith(model.kept) for name in model.state_dict())


def test_teacher_and_centre_follow_as_the_paper_says() -> None:
    torch.manual_seed(0)
    model = make_method(Encoder(1, 16, 4, 8), small("dino", momentum=0.9, center_momentum=0.75))
    assert isinstance(model, Dino)
    views = torch.randn(8, 1, 16, 16), torch.randn(8, 1, 16, 16)
    with torch.no_grad():
        outputs = torch.cat([model.teacher(view) for view in views])
    model("views", *views)
    torch.testing.assert_close(model.center, 0.25 * outputs.mean(dim=0))
    before = [p.clone() for p in model.teacher.parameters()]
    with torch.no_grad():
        for parameter in [*model.encoder.parameters(), *model.head.parameters()]:
            parameter.add_(1)
    model.after_step(0.5)  # half of the way: 1 - 0.1 / 2
    for old, new in zip(before, model.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.05)
    model.after_step(1.0)
    torch.testing.assert_close(next(model.teacher.parameters()), before[0] + 0.05)


def test_weights_of_the_terms_are_settings() -> None:
    views = torch.randn(8, 1, 16, 16), torch.randn(8, 1, 16, 16)
    found = {}
    for weights in ((25.0, 25.0, 1.0), (1.0, 0.0, 0.0)):
        torch.manual_seed(0)
        settings = SslSettings(method="vicreg", hidden=12, vicreg=VicregSettings(*weights))
        loss, seen = make_method(Encoder(1, 16, 4, 8), settings)("views", *views)
        terms = torch.stack([seen[name] for name in ("invariance", "variance", "covariance")])
        torch.testing.assert_close(loss.detach(), torch.tensor(weights) @ terms)
        found[weights] = float(loss.detach())
    assert len(set(found.values())) == 2
