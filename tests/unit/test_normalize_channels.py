"""Normalisation per channel, and how much float16 costs."""

from __future__ import annotations

import pytest
import torch

from sunpipe.config import to_dict, validate
from sunpipe.errors import ConfigError
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.shards.normalize import decode, describe, encode, rounding_error

# kind, scale, limit, zero: a field of both signs, and intensities of AIA.
CASES = [("asinh", 100.0, 3000.0, 0.0), ("asinh", 500.0, 3000.0, 0.0),
         ("asinh", 200.0, 9800.0, -1.0),
         ("asinh", 200.0, 340.0, -1.0), ("signed_log", 100.0, 3000.0, 0.0),
         ("signed_log", 200.0, 9800.0, -1.0), ("linear", 1.0, 70000.0, -1.0),
         ("linear", 1.0, 3000.0, 0.0)]  # fmt: skip


def values(limit: float, zero: float) -> torch.Tensor:
    up = torch.cat([torch.logspace(-3, 0, 20001), torch.linspace(0, 1.2, 60001)]) * limit
    return up if zero else torch.cat([up, -up])


@pytest.mark.parametrize(("kind", "scale", "limit", "zero"), CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rounding_stays_within_its_budget(
    kind: str, scale: float, limit: float, zero: float, dtype: torch.dtype
) -> None:
    settings = NormalizeSettings(kind=kind, scale=scale, limit=limit, zero=zero)  # type: ignore[arg-type]
    field = values(limit, zero)
    back = decode(encode(field, settings).to(dtype), settings)
    share = (back.double() - field.double()).abs() / rounding_error(field, settings, dtype)
    assert float(share.max()) <= 1
    if dtype is not torch.float32:
        assert float(share.max()) > 0.9  # the budget is no larger than it must be


@pytest.mark.parametrize(("scale", "limit", "zero", "budget"), [
    (100.0, 3000.0, 0.0, 0.00201), (500.0, 3000.0, 0.0, 0.00124), (200.0, 9800.0, -1.0, 0.00113),
])  # fmt: skip
def test_float16_costs_at_most_two_thousandths(
    scale: float, limit: float, zero: float, budget: float
) -> None:
    settings = NormalizeSettings(scale=scale, limit=limit, zero=zero)
    field = torch.linspace(limit / 3, limit, 1001)
    assert float((rounding_error(field, settings) / field).max()) < budget


def test_each_channel_has_its_own_parameters() -> None:
    listed = NormalizeSettings(scale=(100.0, 200.0, 1000.0), limit=(3000.0, 9800.0, 8800.0),
                               zero=(0.0, -1.0, -1.0))  # fmt: skip
    field = torch.rand(2, 3, 4, 5) * 3000
    image = encode(field, listed)
    for channel in range(3):
        one = NormalizeSettings(scale=listed.scale[channel], limit=listed.limit[channel],  # type: ignore[index]
                                zero=listed.zero[channel])  # type: ignore[index]  # fmt: skip
        torch.testing.assert_close(image[:, channel], encode(field[:, channel], one))
    torch.testing.assert_close(decode(image, listed), field, rtol=2e-5, atol=1e-3)
    torch.testing.assert_close(encode(field[0], listed), image[0])
    ends = torch.tensor([[0.0] * 3, [3000.0, 9800.0, 8800.0]])[:, :, None, None]
    found = encode(ends, listed)[:, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([[0.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))


def test_one_list_is_enough() -> None:
    mixed = NormalizeSettings(scale=100.0, limit=(1000.0, 3000.0))
    assert mixed.channels == 2
    assert NormalizeSettings().channels is None
    assert encode(torch.ones(2, 1, 1) * 3000, mixed)[1].item() == pytest.approx(1.0)


def test_lists_must_fit_the_images() -> None:
    listed = NormalizeSettings(scale=(1.0, 2.0))
    for shape in ((3, 4, 4), (2, 3, 4, 4), (2,)):
        with pytest.raises(ValueError, match="2 channels"):
            encode(torch.zeros(shape), listed)


def test_missing_values_stay_missing() -> None:
    field = torch.tensor([float("nan"), 1.0])
    for kind in ("asinh", "signed_log", "linear"):
        back = decode(encode(field, NormalizeSettings(kind=kind)), NormalizeSettings(kind=kind))  # type: ignore[arg-type]
        assert torch.isnan(back).tolist() == [True, False]


def test_precision_of_the_input_is_kept() -> None:
    settings = NormalizeSettings(zero=-1.0)
    assert encode(torch.zeros(3, dtype=torch.float64), settings).dtype == torch.float64
    assert decode(torch.zeros(3, dtype=torch.float16), settings).dtype == torch.float32
    field = torch.logspace(-6, 4, 1001, dtype=torch.float64)
    torch.testing.assert_close(
        decode(encode(field, settings), settings), field, rtol=1e-9, atol=1e-9
    )


def config(**normalize: object) -> dict[str, object]:
    return {"name": "n", "train": {"normalize": normalize}}


def test_configurations_take_a_number_or_a_list() -> None:
    single = validate(config(scale=500, limit=3000)).train.normalize
    assert (single.scale, single.limit, single.zero) == (500.0, 3000.0, 0.0)
    listed = validate(
        config(scale=[100, 200], limit=[3000.0, 9800.0], zero=[0, -1])
    ).train.normalize
    assert (listed.scale, listed.zero) == ((100.0, 200.0), (0.0, -1.0))
    again = validate({"name": "n", "train": {"normalize": to_dict(listed)}}).train.normalize
    assert again == listed


@pytest.mark.parametrize(("wrong", "message"), [
    ({"scale": 0}, "train.normalize.scale: every number must be greater than 0"),
    ({"limit": [1, -1]}, "train.normalize.limit: every number must be greater than 0"),
    ({"zero": 1}, "train.normalize.zero: every number must be at least -1 and less than 1"),
    ({"scale": []}, "train.normalize.scale: write one number"),
    ({"scale": "big"}, "train.normalize.scale: write one number"),
    ({"scale": True}, "train.normalize.scale: write one number"),
    ({"limit": float("nan")}, "train.normalize.limit: write one number"),
    ({"scale": [1, 2], "limit": [1, 2, 3]}, "train.normalize: scale, limit and zero list"),
    ({"kind": "log"}, "train.normalize.kind"),
])  # fmt: skip
def test_a_wrong_configuration_is_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(config(**wrong))
    assert message in str(caught.value)


def test_it_is_described_in_words() -> None:
    assert describe(NormalizeSettings(), "G") == "asinh, bends at 100 G, 3000 G to 1, 0 to 0"
    listed = NormalizeSettings(kind="linear", limit=(3000.0, 9800.0), zero=(0.0, -1.0))
    assert describe(listed) == "linear, 3000 / 9800 to 1, 0 to 0 / -1"
