"""``sunpipe physics``: its JSON, its table, and what it says to bad files."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from sunpipe.cli import group
from sunpipe.errors import SunpipeError, UsageError
from sunpipe.files import write_json
from sunpipe.physics import QUANTITIES
from sunpipe.sidecar import sidecar
from tests.conftest import Cli

SAMPLES = Path(__file__).resolve().parents[2] / "sunpipe/samples"
PREFIX = "hmi.sharp_cea_720s.377.20110215_020000_TAI"
CARDS = {
    "TELESCOP": "SDO/HMI", "INSTRUME": "HMI_SIDE1", "HARPNUM": 9,
    "T_REC": "2012.01.02_03:00:00_TAI", "BUNIT": "Mx/cm^2", "CTYPE1": "CRLN-CEA",
    "CTYPE2": "CRLT-CEA", "CDELT1": 0.03,
    "RSUN_REF": 696000000, "RSUN_OBS": 971.67, "DSUN_OBS": 1.4774622e11,
}  # fmt: skip


def sample(name: str) -> Path:
    return SAMPLES / f"{PREFIX}.{name}.fits"


def vector_options(**files: Path) -> list[str]:
    chosen = {"br": sample("Br"), "bt": sample("Bt"), "bp": sample("Bp"), **files}
    return [
        word for name, path in chosen.items() for word in ("--" + name.replace("_", "-"), str(path))
    ]


def write(path: Path, data: Any, **cards: Any) -> Path:
    header = fits.Header({**CARDS, **cards})
    fits.PrimaryHDU(data, header).writeto(path)
    return path


def patch(folder: Path, shape: tuple[int, int] = (16, 20), scale: float = 500) -> dict[str, Path]:
    """A small valid SHARP of strong smooth fields."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    waves = [np.sin(x / 3), np.cos(y / 4), np.cos((x + y) / 5)]
    return {
        name: write(folder / f"{name}.fits", (scale * wave).astype(np.float32))
        for name, wave in zip(("br", "bt", "bp"), waves, strict=True)
    }


def run(*options: str) -> Any:
    """The command in this process: its JSON, or the error that it raises."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        group().main(["physics", *options, "--json"], standalone_mode=False)
    return json.loads(printed.getvalue())


def test_json_of_harp_377(cli: Cli) -> None:
    done = cli(
        "physics",
        *vector_options(bitmap=sample("bitmap"), conf_disambig=sample("conf_disambig")),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["record"] == "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"
    assert set(result["keywords"]) == set(result["units"]) == set(QUANTITIES)
    assert result["mask"] == "given"
    assert result["cmask"] == result["header"]["CMASK"] == 45703
    assert result["keywords"]["USFLUX"] == pytest.approx(result["header"]["USFLUX"], rel=1e-6)
    assert set(result["reasons"]) == {"R_VALUE", "USFLUXL", "MEANGBL", "CMASKL"}
    assert all(result["keywords"][name] is None for name in result["reasons"])
    assert "R_VALUE" not in result["header"]  # the card says nan
    assert result["seconds"] > 0


def test_table_for_people() -> None:
    options = [*vector_options(los=sample("magnetogram")), "--convention", "physical"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        group().main(["physics", *options], standalone_mode=False)
    lines = printed.getvalue().splitlines()
    assert "mask estimated" in lines[0]
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert rows["USFLUX"][2] == "Mx"
    assert rows["MEANGBZ"][2] == "G/Mm"
    assert rows["MEANGBZ"][5] == "-"  # not the header's unit: no difference is shown


def test_formal_errors_need_all_three(tmp_path: Path) -> None:
    files = patch(tmp_path)
    noise = {
        f"{name}_err": write(tmp_path / f"{name}_err.fits", np.full((16, 20), 10, np.float32))
        for name in ("br", "bt", "bp")
    }
    result = run(*vector_options(**files, **noise))
    assert result["errors"].keys() == {q.error for q in QUANTITIES.values() if q.error}
    pixel = result["pixel_cm"]
    expected = pixel**2 * 10 * math.sqrt(result["cmask"])
    assert result["errors"]["ERRVF"] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(SunpipeError, match="--bt-err"):
        run(*vector_options(**files, br_err=noise["br_err"]))


def test_bare_headers_take_their_keywords_from_the_archive(tmp_path: Path) -> None:
    files = patch(tmp_path)
    expected = run(*vector_options(**files))
    for path in files.values():
        data = fits.getdata(path)
        path.unlink()
        fits.PrimaryHDU(data).writeto(path)
    with pytest.raises(SunpipeError, match="TELESCOP"):
        run(*vector_options(**files))
    units = dict.fromkeys(("Br", "Bt", "Bp"), CARDS["BUNIT"])
    write_json(tmp_path / "keywords.json", sidecar(expected["record"], CARDS, units))
    assert run(*vector_options(**files))["keywords"] == expected["keywords"]


def test_empty_mask_is_null_with_its_reason(tmp_path: Path) -> None:
    files = patch(tmp_path)
    bitmap = write(tmp_path / "bitmap.fits", np.ones((16, 20), np.int16))
    conf = write(tmp_path / "conf.fits", np.full((16, 20), 90, np.int16))
    result = run(*vector_options(**files, bitmap=bitmap, conf_disambig=conf))
    assert result["cmask"] == 0
    assert result["keywords"]["USFLUX"] is None
    assert "bitmap >= 30" in result["reasons"]["USFLUX"]
    assert result["keywords"]["AREA_MM2"] == 0


def test_a_quiet_patch_says_so(tmp_path: Path) -> None:
    result = run(*vector_options(**patch(tmp_path, scale=20)))
    assert result["mask"] == "estimated"
    assert result["keywords"]["TOTUSJH"] is None
    assert "200 G" in result["reasons"]["TOTUSJH"]


def test_every_null_has_a_reason(tmp_path: Path) -> None:
    files = patch(tmp_path)
    for convention in ("jsoc", "physical"):
        for name in ("bt", "bp"):
            files[name].unlink()
            write(files[name], np.zeros((16, 20), np.float32))
        files["br"].unlink()
        write(files["br"], np.full((16, 20), 900, np.float32))
        result = run(*vector_options(**files), "--convention", convention)
        nulls = {name for name, value in result["keywords"].items() if value is None}
        assert nulls == set(result["reasons"])
        assert "only one polarity" in result["reasons"]["POLSEP"]
        assert "undefined for this field" not in result["reasons"].values()


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (2, 2), (7, 40)])
def test_tiny_images_are_null(tmp_path: Path, shape: tuple[int, int]) -> None:
    result = run(*vector_options(**patch(tmp_path, shape)))
    assert set(result["keywords"].values()) == {None}
    assert set(result["reasons"]) == set(QUANTITIES)
    assert f"{shape[0]} x {shape[1]} pixels is too small" in result["reasons"]["USFLUX"]


def test_line_of_sight_alone() -> None:
    result = run("--los", str(sample("magnetogram")), "--bitmap", str(sample("bitmap")))
    assert result["record"] == "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"
    assert result["mask"] == "given"
    assert result["keywords"]["USFLUXL"] == pytest.approx(2.296e22, rel=1e-4)
    assert result["keywords"]["MEANGBL"] == pytest.approx(35.97, abs=5e-3)
    assert result["keywords"]["R_VALUE"] == pytest.approx(4.607, abs=5e-4)
    assert result["keywords"]["CMASKL"] == result["cmask"] == 123890
    assert result["keywords"]["AREA_ACR"] == pytest.approx(result["header"]["AREA_ACR"], rel=2e-4)
    assert result["reasons"]["USFLUX"] == "needs the vector field: Br, Bt and Bp"
    assert result["errors"] == {}
    assert run("--los", str(sample("magnetogram")))["mask"] == "estimated"


def test_the_table_of_a_line_of_sight_field_is_short() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        group().main(["physics", "--los", str(sample("magnetogram"))], standalone_mode=False)
    lines = printed.getvalue().splitlines()
    assert [line.split()[0] for line in lines[3:8]] == [
        "R_VALUE", "AREA_ACR", "USFLUXL", "MEANGBL", "CMASKL",
    ]  # fmt: skip
    assert "null: needs the bitmap" in lines[4]
    assert lines[-1] == "21 more keywords need the vector field: --br, --bt and --bp"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "nothing to measure: give --br, --bt and --bp, or --los"),
        (["bitmap"], "nothing to measure"),
        (["br"], "needs all of --br, --bt, --bp; --bt and --bp missing"),
        (["br", "bp", "los"], "--bt missing"),
        (["los", "conf-disambig"], "--conf-disambig goes with the vector field"),
        (["los", "br-err", "bt-err", "bp-err"], "--br-err goes with the vector field"),
    ],
)
def test_mixtures_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(*(word for name in names for word in (f"--{name}", "x.fits")))
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_simulated_fields_keep_their_own_series(tmp_path: Path) -> None:
    marks = {"TELESCOP": "SIMULATED", "SERIES": "sim.sharp_cea_720s"}
    square = np.full((16, 20), 300, np.float32)
    square[:, 10:] *= -1
    result = run("--los", str(write(tmp_path / "los.fits", square, **marks)))
    assert result["record"] == "sim.sharp_cea_720s[9][2012.01.02_03:00:00_TAI]"
    assert result["keywords"]["USFLUXL"] == pytest.approx(result["pixel_cm"] ** 2 * 300 * 320)
    files = {name: tmp_path / f"{name}.fits" for name in ("br", "bt", "bp")}
    for scale, path in enumerate(files.values(), 1):
        write(path, square / scale, **marks)
    assert run(*vector_options(**files))["record"] == result["record"]


def test_a_lone_magnetogram_must_be_one(tmp_path: Path) -> None:
    square = np.ones((16, 20), np.float32)

    def refused(words: str, path: Path) -> None:
        with pytest.raises(SunpipeError, match=words) as caught:
            run("--los", str(path))
        assert "\n" not in str(caught.value)

    refused("is named Br", sample("Br"))
    refused("SOHO", write(tmp_path / "mdi.fits", square, TELESCOP="SOHO", INSTRUME="MDI"))
    refused("HPLN-TAN", write(tmp_path / "disk.fits", square, CTYPE1="HPLN-TAN"))
    refused("BUNIT", write(tmp_path / "unit.fits", square, BUNIT="DN/s"))
    refused("DSUN_OBS", write(tmp_path / "place.fits", square, DSUN_OBS=0.0))


def test_bad_files_get_one_line(tmp_path: Path, cli: Cli) -> None:
    truncated = tmp_path / f"{PREFIX}.Br.fits"
    truncated.write_bytes(sample("Br").read_bytes()[:100_000])
    done = cli("physics", *vector_options(br=truncated))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "truncated" in done.stderr
    done = cli("physics", *vector_options(br=tmp_path / "nowhere.fits"), "--json")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "nowhere.fits" in done.stderr


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    files = patch(tmp_path)
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    square = np.ones((16, 20), np.float32)

    def refused(words: str, **changed: Path) -> None:
        with pytest.raises(SunpipeError, match=words) as caught:
            run(*vector_options(**{**files, **changed}))
        assert caught.value.exit_code == 1
        assert "\n" not in str(caught.value)

    refused("no image", bt=write(wrong / "empty.fits", None))
    refused("pixels", bt=write(wrong / "shape.fits", square[:, 2:]))
    refused("SOHO", br=write(wrong / "mdi.fits", square, TELESCOP="SOHO", INSTRUME="MDI"))
    name = "mdi.smarp_cea_96m.13520.20100714_124800_TAI.magnetogram.fits"
    refused("SOHO", br=write(wrong / name, square, TELESCOP="SOHO", INSTRUME="MDI"))
    refused("HARP 8", bp=write(wrong / "harp.fits", square, HARPNUM=8))
    refused("pixels", bitmap=write(wrong / "bitmap.fits", square[2:]))
    refused("HARP 7", conf_disambig=write(wrong / "conf.fits", square, HARPNUM=7))
    refused("DSUN_OBS", br=write(wrong / "place.fits", square, DSUN_OBS=0.0))
    nan = write(wrong / "nan.fits", np.full((16, 20), np.nan, np.float32))
    refused("DN/s", los=write(wrong / "unit.fits", square, BUNIT="DN/s"))
    refused("no valid pixel", br=nan, bt=nan, bp=nan)
    text = wrong / "text.fits"
    text.write_text("this is no FITS file")
    refused("FITS", los=text)


def test_another_segment_is_refused_by_name(tmp_path: Path) -> None:
    for option, name in (("conf_disambig", "bitmap"), ("bitmap", "conf_disambig"), ("los", "Br")):
        with pytest.raises(SunpipeError, match=f"is named {name}, not"):
            run(*vector_options(**{option: sample(name)}))


@pytest.mark.parametrize(
    ("option", "name"),
    [("bitmap", "conf_disambig"), ("bitmap", "Br"), ("conf_disambig", "bitmap"),
     ("conf_disambig", "magnetogram"), ("los", "Br"), ("los", "Bp")],
)  # fmt: skip
def test_another_segment_is_refused_by_content(tmp_path: Path, option: str, name: str) -> None:
    renamed = tmp_path / "renamed.fits"
    renamed.write_bytes(sample(name).read_bytes())
    with pytest.raises(SunpipeError, match="does not hold"):
        run(*vector_options(**{option: renamed}))


def test_weak_confidences_are_no_bitmap_and_errors_are_positive(tmp_path: Path) -> None:
    files = patch(tmp_path)
    weak = np.full((16, 20), 60, np.int16)
    weak[:4] = 0
    other = write(tmp_path / "weak.fits", weak)
    with pytest.raises(SunpipeError, match="codes of a bitmap"):
        run(*vector_options(**files, bitmap=other))
    noise = {f"{name}_err": files[name] for name in ("br", "bt", "bp")}
    with pytest.raises(SunpipeError, match="negative"):
        run(*vector_options(**files, **noise))


def test_a_folder_is_no_segment(cli: Cli) -> None:
    done = cli("physics", *vector_options(br=Path(".")))
    assert done.returncode == 1
    assert done.stderr.strip() == "sunpipe: Is a directory: ."
