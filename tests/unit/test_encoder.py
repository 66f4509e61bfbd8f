"""The encoder, and backbones by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sunpipe.models.backbone import TimmBackbone, make_backbone
from sunpipe.models.encoder import Encoder, stage_widths
from sunpipe.models.torchvision_ops import declare_operators
from sunpipe.train.ssl_norm import RankNorm, over_ranks


@pytest.mark.parametrize("resolution", [16, 32, 64, 128])
def test_any_power_of_two_from_16(resolution: int) -> None:
    encoder = Encoder(channels=1, resolution=resolution, width=4, dim=12).eval()
    assert encoder(torch.randn(2, 1, resolution, resolution)).shape == (2, 12)


@pytest.mark.parametrize("resolution", [0, 1, 8, 15, 48, 63, -16])
def test_other_sizes_are_refused(resolution: int) -> None:
    with pytest.raises(ValueError, match="powers of two from 16"):
        stage_widths(resolution, 8, 32)


def test_widths_double_up_to_dim() -> None:
    assert stage_widths(256, 16, 128) == [16, 32, 64, 128, 128]
    assert stage_widths(16, 16, 128) == [128]
    assert stage_widths(64, 64, 32) == [32, 32, 32]


def test_wrong_shape_is_refused_by_name() -> None:
    encoder = Encoder(3, 32, 4, 8)
    with pytest.raises(ValueError, match=r"\(3, 32, 32\)"):
        encoder(torch.zeros(2, 1, 32, 32))
    with pytest.raises(ValueError, match=r"\(3, 32, 32\)"):
        encoder(torch.zeros(2, 3, 64, 64))


def test_strength_of_the_field_is_not_normalised_away() -> None:
    torch.manual_seed(0)
    encoder = Encoder(3, 32, 8, 16).eval()
    weak = torch.randn(4, 3, 32, 32)
    ratio = encoder(3 * weak).norm(dim=1) / encoder(weak).norm(dim=1)
    assert (ratio > 1.5).all()


@pytest.mark.parametrize("channels", [1, 10])
@pytest.mark.parametrize("name", ["residual", "timm:resnet10t", "timm:vit_tiny_patch16_224"])
def test_backbones_take_one_to_ten_channels(name: str, channels: int) -> None:
    network = make_backbone(name, channels, 32, 4, 12)
    found = network.eval()(torch.randn(2, channels, 32, 32))
    assert found.shape == (2, network.dim)
    with pytest.raises(ValueError, match="the encoder takes"):
        network(torch.zeros(2, channels + 1, 32, 32))


def test_weights_come_from_a_file_of_this_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a backbone asked the network")

    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    x = torch.randn(2, 3, 32, 32)
    for name in ("residual", "timm:resnet10t"):
        ours = make_backbone(name, 3, 32, 4, 12).eval()
        save_file(ours.state_dict(), tmp_path / "own.safetensors")
        again = make_backbone(name, 3, 32, 4, 12, tmp_path / "own.safetensors").eval()
        assert torch.equal(again(x), ours(x))
    with pytest.raises(ValueError, match="of another network than residual"):
        make_backbone("residual", 1, 32, 4, 12, tmp_path / "own.safetensors")
    # as timm publishes them: three channels and a classifier
    declare_operators()
    import timm

    whole = timm.create_model("resnet10t", num_classes=7)
    save_file(whole.state_dict(), tmp_path / "timm.safetensors")
    one = make_backbone("timm:resnet10t", 1, 32, 4, 12, tmp_path / "timm.safetensors")
    assert isinstance(one, TimmBackbone)
    assert torch.equal(one.network.layer4[0].conv1.weight, whole.layer4[0].conv1.weight)
    (tmp_path / "torn.safetensors").write_bytes(b"{")
    for place in ("torn.safetensors", "none.safetensors"):
        with pytest.raises(ValueError, match="cannot read weights"):
            make_backbone("residual", 3, 32, 4, 12, tmp_path / place)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:resnet19", "timm has no model 'resnet19'"),
        ("resnet18", "unknown backbone 'resnet18'"),
        ("timm:inception_v3", "does not take 32 x 32 pixels"),
    ],
)
def test_backbones_that_do_not_fit_are_refused(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_backbone(name, 3, 32, 4, 12)


@pytest.mark.parametrize("device", ["cpu", "cuda"])  # of the ranks; nothing runs there
@pytest.mark.parametrize("name", ["residual", "timm:resnet10t", "timm:efficientnet_lite0"])
def test_norms_over_ranks_keep_what_follows_them(name: str, device: str) -> None:
    torch.manual_seed(0)
    network = make_backbone(name, 3, 32, 4, 12).eval()
    x = torch.randn(2, 3, 32, 32)
    several = over_ranks(copy.deepcopy(network), 2, torch.device(device))
    assert several.state_dict().keys() == network.state_dict().keys()
    kind = RankNorm if device == "cpu" else torch.nn.SyncBatchNorm
    norms = [m for m in several.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, kind) for norm in norms)
    with torch.no_grad():
        torch.testing.assert_close(several.eval()(x), network(x), rtol=1e-5, atol=1e-7)


def test_a_norm_that_does_more_is_refused_over_ranks() -> None:
    class Odd(torch.nn.BatchNorm2d):
        pass

    with pytest.raises(ValueError, match="its Odd is not known over several ranks"):
        over_ranks(torch.nn.Sequential(Odd(2)), 2, torch.device("cpu"))
