"""Power spectra of fields whose spectrum is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sunpipe.evaluate.spectra import band_power, bands, decibels, octave_errors


@pytest.mark.parametrize("side", [8, 16, 64, 256])
def test_bands_cover_every_wavenumber_once_in_rising_order(side: int) -> None:
    band, octave = bands(side)
    assert band[0] == -1
    assert (np.diff(band) >= 0).all()
    assert set(band[1:]) == set(range(len(octave)))
    for k in range(1, side // 2):
        assert 2 ** octave[band[k]] <= k < 2 ** (octave[band[k]] + 1)
    assert octave[-1] == np.log2(side) - 2  # the Nyquist ring belongs to the last octave
    assert np.bincount(octave).max() <= 4


def test_white_noise_is_flat_at_its_variance_per_mode() -> None:
    source = torch.Generator().manual_seed(0)
    noise = 25 * torch.randn(200, 2, 32, 32, generator=source, dtype=torch.float64)
    power = band_power(noise).mean(dim=0)
    expected = torch.full_like(power, 25**2 / 32**2)
    # the window joins neighbouring modes: the lowest bands hold the fewest independent ones
    torch.testing.assert_close(power[:, 1:], expected[:, 1:], rtol=0.08, atol=0)


def test_a_wave_stands_in_its_band_with_its_mean_square() -> None:
    side, k = 64, 20
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float64),) * 2, indexing="ij")
    wave = 300 * torch.cos(2 * torch.pi * (12 * x + 16 * y) / side + 0.3)
    power = band_power(wave[None, None])[0, 0]
    band, _ = bands(side)
    assert int(power.argmax()) == band[k]
    ring = np.hypot(*np.meshgrid(np.fft.fftfreq(side) * side, np.fft.fftfreq(side) * side))
    many = np.bincount(band[np.minimum(np.rint(ring), side // 2).astype(int)].ravel() + 1)[1:]
    inside = [place for place in range(len(many)) if abs(place - band[k]) <= 1]
    total = sum(float(power[place]) * int((ring_band(ring, band, side) == place).sum())
                for place in inside)  # fmt: skip
    assert total == pytest.approx(300**2 / 2, rel=0.02)


def ring_band(ring: np.ndarray, band: np.ndarray, side: int) -> np.ndarray:
    whole = np.rint(ring).astype(int)
    return np.where(whole <= side // 2, band[np.minimum(whole, side // 2)], -1)


def test_an_offset_does_not_leak() -> None:
    source = torch.Generator().manual_seed(1)
    fields = torch.randn(3, 1, 64, 64, generator=source, dtype=torch.float64)
    torch.testing.assert_close(band_power(fields + 1e4), band_power(fields), rtol=1e-6, atol=0)


def test_parts_and_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    whole = band_power(fields)
    monkeypatch.setattr("sunpipe.evaluate.spectra.PIXELS_AT_ONCE", 2 * 32 * 32)
    torch.testing.assert_close(band_power(fields), whole, rtol=1e-12, atol=0)


def test_errors_are_decibels_per_octave_with_their_sign() -> None:
    _, octave = bands(32)
    real = np.ones((2, len(octave)))
    fake = np.where(octave == 2, 0.1, np.where(octave == 1, 100.0, 1.0)) * real
    size, sign = octave_errors(real, fake, 32)
    np.testing.assert_allclose(sign, [0, 20, -10, 0], atol=1e-6)
    np.testing.assert_allclose(size, [0, 20, 10, 0], atol=1e-6)
    fake = np.where(np.arange(len(octave)) % 2, 10.0, 0.1) * real
    size, sign = octave_errors(real, fake, 32)
    assert size[2] == pytest.approx(10, abs=1e-6)  # too much and too little do not cancel
    assert sign[2] == pytest.approx(0, abs=1e-6)


def test_no_power_at_all_is_a_hundred_decibels() -> None:
    assert decibels(np.ones((1, 4)), np.zeros((1, 4)))[0, 0] == pytest.approx(-100, abs=1e-6)
    assert decibels(np.zeros((1, 4)), np.zeros((1, 4)))[0, 0] == 0
