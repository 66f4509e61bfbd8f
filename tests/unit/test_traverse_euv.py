"""What a walk leaves of a generator of the corona and the field: FITS keywords, colours."""

import numpy as np
import pytest

from sunpipe.latent import walk_files
from sunpipe.latent.movie import render
from sunpipe.latent.patch_fits import keyword, quantity_cards
from sunpipe.latent.shades import shades
from sunpipe.latent.strip import draw_strip
from sunpipe.latent.walk_files import Seen
from sunpipe.latent.walks import Walk
from sunpipe.physics.measurable import measurable
from tests.unit.latent_fake import FakeGenerator

CHANNELS = ["Br", "171", "Bt", "94"]
UNITS = ["Gauss", "DN/s", "Gauss", "DN/s"]
NAMES = ["LOGI171", "CHFRAC171", "PSLOPE171", "CHFRAC94"]


@pytest.fixture(scope="module")
def walk():
    random = np.random.default_rng(0)
    field = random.normal(0, 300, (1, 3, 4, 16, 16))
    field[:, :, [1, 3]] = np.exp(random.normal(0, 1, (1, 3, 2, 16, 16))) * [[[150]], [[2]]]
    values = np.array([[[2.1, 0.25, -1.5, np.nan]] * 3])
    return Walk("CHFRAC171", "plain", np.arange(3.0), 1.0, np.array([3]), NAMES,
                ["log10 DN/s", "", "", ""], values, field.astype(np.float32), CHANNELS,
                1e8)  # fmt: skip


def test_components_share_a_scale_and_wavelengths_have_their_own(walk):
    field, bright, faint = shades(walk.images, UNITS)
    assert (field.rows, bright.rows, faint.rows) == ((0, 2), (1,), (3,))
    assert field.norm.vmin == -field.norm.vmax
    assert field.norm.vmax >= np.abs(walk.images[:, :, [0, 2]]).max() / 2
    assert bright.norm.vmin >= 0
    assert bright.norm.vmax > 20 * faint.norm.vmax
    assert bright.cmap != field.cmap
    assert [each.label(CHANNELS) for each in (field, faint)] == ["field (G)", "94 (DN/s)"]
    assert 0.2 < bright.norm(np.median(walk.images[:, :, 1])) < 0.6  # neither black nor white
    dark = shades(np.zeros((1, 8, 8)), ["DN/s"])[0].norm
    assert dark(0.0) == 0


def test_the_strip_and_the_movie_have_a_bar_for_each_scale(walk, tmp_path, monkeypatch):
    from sunpipe import plots

    made = []
    new = plots.new_figure
    monkeypatch.setattr(plots, "new_figure", lambda *size: made.append(new(*size)) or made[-1])
    draw_strip(walk, tmp_path / "strip.png", "title", ["a", "b", "c"], UNITS)
    frames = list(render(walk.images[0], CHANNELS, ["a", "b", "c"], UNITS, 1e8))
    assert len(frames) == 3
    assert (frames[0] != frames[1]).any()
    for figure in made:
        labels = [axes.get_ylabel() for axes in figure.axes]
        assert [text for text in labels if "(" in text] == ["field (G)", "171 (DN/s)", "94 (DN/s)"]


def test_every_quantity_has_a_keyword_of_its_own():
    for channels in (["Br", "Bt", "Bp"], ["magnetogram", "94", "171", "193"]):
        names = measurable(channels)
        short = [keyword(name) for name in names]
        assert len(set(short)) == len(names)
        assert max(map(len, short)) <= 8
    assert [keyword(name) for name in ("USFLUX", "LOGI193", "CHFRAC94")] == [
        "USFLUX", "LOGI193", "CHF94"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no FITS keyword"):
        keyword("LONGERTHAN8")
    assert quantity_cards(["TILT", "ARFRAC193"], [np.nan, 0.5]) == (
        {"ARF193": 0.5}, ["ARF193 is ARFRAC193."]
    )  # fmt: skip


def test_fits_hold_the_quantities_of_the_corona(walk, tmp_path):
    from astropy.io import fits

    generator = FakeGenerator()
    generator.channels, generator.units = CHANNELS, UNITS
    seen = Seen(walk, walk.images[0], np.zeros((3, 8)), np.zeros((3, 8), np.float32))
    names = walk_files._write_fits(tmp_path, seen, False, generator, {"seed": 3, "from": None})
    assert "after.171.fits" in names
    header = fits.getheader(tmp_path / "after.171.fits")
    assert (header["CHF171"], header["PSL171"], header["LOGI171"]) == (0.25, -1.5, 2.1)
    assert "CHF94" not in header
    assert "CHF171 is CHFRAC171." in list(header["HISTORY"])
    assert header["BUNIT"] == "DN/s"
