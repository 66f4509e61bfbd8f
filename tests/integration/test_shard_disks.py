"""Datasets of whole disks: HMI, AIA in one and in several wavelengths, of a known sky."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.wcs import WCS

from preprocess.archive import compact_time, relative_path
from preprocess.dataset.disks import same_time
from preprocess.manifest import Entry, Manifest, write_manifest
from preprocess.shard import shard as shard_stage
from preprocess.verify import verify
from sunpipe.config import validate
from sunpipe.errors import ConfigError, DataError
from sunpipe.files import sha256
from sunpipe.fitswrite import write_image
from sunpipe.shards.reader import ShardReader
from tests.conftest import REPO
from tests.unit.disk_fake import aia_cards, dipole, hmi_cards, places, sky

SIZE, SIDE = 256, 64


def record(kind: str, when: datetime, wavelength: int = 193) -> str:
    if kind == "hmi":
        return f"hmi.M_720s[{when:%Y.%m.%d_%H:%M:%S_TAI}]"
    series = "aia.lev1_uv_24s" if wavelength >= 1600 else "aia.lev1_euv_12s"
    return f"{series}[{when:%Y-%m-%dT%H:%M:%SZ}][{wavelength}]"


class Sky:
    """An archive that is filled image by image."""

    def __init__(self, root: Path) -> None:
        self.archive = root / "archive"
        self.manifest: Manifest = {}

    def add(self, kind: str, when: datetime, wavelength: int = 193, **changes: Any) -> str:
        name = record(kind, when, wavelength)
        segment = "magnetogram" if kind == "hmi" else "image"
        path = self.archive / relative_path(name, segment)
        if kind == "hmi":
            header = hmi_cards(SIZE, rotation=179.9, shift=(1.5, -2.0))
            header["T_REC"] = header["T_OBS"] = name.partition("[")[2].rstrip("]")
            data, unit = dipole(*places(header, SIZE)), "Gauss"
        else:
            header = aia_cards(SIZE, rotation=0.4, shift=(-1.0, 2.5)) | {"WAVELNTH": wavelength}
            header["T_REC"] = f"{when:%Y-%m-%dT%H:%M:%SZ}"
            header["T_OBS"] = f"{when:%Y-%m-%dT%H:%M:%S.34Z}"
            data, unit = sky(*places(header, SIZE)) * wavelength / 100, "DN"
        data = changes.pop("data", data)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, data, header | changes, unit, bscale=0.1)
        self.manifest[name, segment] = Entry(
            name, segment, relative_path(name, segment), sha256(path), path.stat().st_size,
            "fetched", "", "test", "",
        )  # fmt: skip
        write_manifest(self.archive, self.manifest)
        return name


@pytest.fixture
def heaven(root: Path) -> Sky:
    return Sky(root)


DAY = datetime(2012, 6, 1)


def shard(product: str, **changes: object) -> dict[str, Any]:
    values = {"product": product, "resolution": SIDE, "images_per_shard": 4, "dtype": "float16",
              **changes}  # fmt: skip
    result = shard_stage(validate({"name": "test", "dataset": "disks", "shard": values}))
    assert result is not None
    return result


def rows(root: Path) -> list[dict[str, Any]]:
    return pq.read_table(root / "shards/disks/records.parquet").to_pylist()


def quarantine(root: Path) -> dict[str, str]:
    table = pq.read_table(root / "shards/disks/quarantine.parquet").to_pylist()
    return {line["record"]: line["reason"] for line in table}


def bright(image: np.ndarray, row: dict[str, Any]) -> tuple[float, float]:
    """Solar x, y in arcsec of the strongest pixel, by the coordinates of the row."""
    world = WCS(naxis=2)
    world.wcs.ctype = [row["ctype1"], row["ctype2"]]
    world.wcs.cunit = ["arcsec", "arcsec"]
    for key in ("crpix", "crval", "cdelt"):
        setattr(world.wcs, key, [row[f"{key}1"], row[f"{key}2"]])
    y, x = np.unravel_index(np.argmax(np.abs(image)), image.shape)
    west, north = (float(value) for value in world.pixel_to_world_values(x, y))
    west = west - 360 if west > 180 else west  # degrees
    return west * 3600, north * 3600


def test_fields_of_the_whole_disk(heaven: Sky, root: Path) -> None:
    for day in range(6):
        heaven.add("hmi", DAY + timedelta(days=day))
    result = shard("hmi_fulldisk", dtype="int16")
    assert (result["rows"], result["quarantined"]) == (6, 0)
    folder = root / "shards/disks"
    assert verify(folder, heaven.archive) == []
    reader = ShardReader(folder)
    assert reader.info.channels == ["magnetogram"]
    assert reader.info.units == ["Gauss"]
    row, image, mask = rows(root)[0], reader.images([0])[0, 0], reader.masks([0])[0]
    # north is up although the camera stands on its head; the leading spot is at (420, 210)
    assert bright(image, row) == pytest.approx((420, 210), abs=row["cdelt1"])
    assert image.max() > 700 > -500 > image.min()
    radius = row["RSUN_OBS"] / row["cdelt1"]  # the limb's place is one for all images
    assert radius == pytest.approx(976 / (0.6 * 2048) * SIDE / 2)
    yy, xx = np.indices(mask.shape) - (SIDE - 1) / 2
    assert mask[np.hypot(yy, xx) < radius - 1.5].all()
    assert not mask[np.hypot(yy, xx) > radius + 1.5].any()
    assert row["harpnum"] is None
    assert not row["simulated"]


def test_one_wavelength_of_aia(heaven: Sky, root: Path) -> None:
    for hour in range(5):
        heaven.add("aia", DAY + timedelta(hours=hour))
    assert shard("aia_fulldisk")["rows"] == 5
    assert verify(root / "shards/disks", heaven.archive) == []
    reader = ShardReader(root / "shards/disks")
    assert (reader.info.channels, reader.info.units) == (["193"], ["DN/s"])
    row = rows(root)[0]
    image = reader.images([0])[0, 0]
    assert bright(image, row) == pytest.approx((-300, 420), abs=row["cdelt1"])
    notes = json.loads(row["notes"])["193"]
    # the blob of 900 DN and the disk's 200, in 2 s, and the loss since launch
    expected = (900 + 200) * 1.93 / 2 / notes["degradation"]
    assert image.max() == pytest.approx(expected, rel=0.1)  # the blob is two pixels wide
    assert 0.5 < notes["degradation"] < 1
    assert "V10" in str(notes)


def test_aiapy_can_register_first(heaven: Sky, root: Path) -> None:
    heaven.add("aia", DAY)
    shard("aia_fulldisk")
    ours = ShardReader(root / "shards/disks").images([0])[0, 0]
    shard("aia_fulldisk", register="aiapy")
    theirs = ShardReader(root / "shards/disks").images([0])[0, 0]
    assert json.loads(rows(root)[0]["notes"])["193"]["register"] == "aiapy"
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


def test_matched_wavelengths_and_the_field(heaven: Sky, root: Path) -> None:
    for hour in range(3):
        when = DAY + timedelta(hours=hour)
        heaven.add("aia", when + timedelta(seconds=2), 171)
        heaven.add("aia", when + timedelta(seconds=4), 193)
        if hour != 1:
            heaven.add("hmi", when)
    result = shard("aia_fulldisk", wavelengths=[193, 171], magnetogram=True)
    assert (result["rows"], result["by_reason"]) == (2, {"unmatched": 2})
    # 193 without a field, and 171 that belongs to no whole set
    assert result["records_in"] == 4
    assert verify(root / "shards/disks", heaven.archive) == []
    reader = ShardReader(root / "shards/disks")
    assert reader.info.channels == ["193", "171", "magnetogram"]
    assert reader.info.units == ["DN/s", "DN/s", "Gauss"]
    image = reader.images([0])[0]
    row = rows(root)[0]
    assert row["companions"].split(",") == [
        record("aia", DAY + timedelta(seconds=2), 171), record("hmi", DAY)]  # fmt: skip
    assert bright(image[2], row) == pytest.approx((420, 210), abs=row["cdelt1"])
    assert bright(image[1], row) == pytest.approx((-300, 420), abs=row["cdelt1"])
    yy, xx = np.indices(image[0].shape) - (SIDE - 1) / 2
    off = np.hypot(yy, xx) > 976 / (0.6 * 2048) * SIDE / 2 + 2
    assert reader.masks([0])[0][off].all()  # the corona stays
    assert (image[0][off] > 0).any()
    assert (image[2][off] == 0).all()


def test_a_changed_table_makes_all_images_again(heaven: Sky, root: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.txt"
    shipped = (REPO / "preprocess/tables/aia_V10_20201023_180000_response_table.txt").read_text()
    table.write_text(shipped)
    heaven.add("aia", DAY)
    shard("aia_fulldisk", correction_table=str(table))
    table.write_text(shipped + shipped.splitlines()[-1] + "\n")
    heaven.add("aia", DAY + timedelta(hours=1))
    again = shard("aia_fulldisk", correction_table=str(table))
    assert (again["rows"], again["kept"]) == (2, 0)
    sums = {json.loads(row["notes"])["193"]["correction_sha256"] for row in rows(root)}
    assert len(sums) == 1


def test_short_exposures_of_worn_channels_fit(heaven: Sky, root: Path) -> None:
    heaven.add("aia", datetime(2019, 12, 1), 304, EXPTIME=0.05)
    assert shard("aia_fulldisk", wavelengths=[304])["rows"] == 1
    image = ShardReader(root / "shards/disks").images([0])
    assert image.max() > 65504


def test_what_is_wrong_with_a_disk_is_written_down(heaven: Sky, root: Path) -> None:
    good = heaven.add("aia", DAY)
    faults = {
        heaven.add("aia", DAY + timedelta(hours=1), QUALITY=1 << 31): "quality",
        heaven.add("aia", DAY + timedelta(hours=2), QUALITY=1 << 13): "eclipse",
        heaven.add("aia", DAY + timedelta(hours=3), EXPTIME=0.0): "exposure",
        heaven.add("aia", DAY + timedelta(hours=4), WAVELNTH=171): "wrong_wavelength",
        heaven.add("aia", DAY + timedelta(hours=5), TELESCOP="SOHO/EIT"): "wrong_instrument",
        heaven.add("aia", DAY + timedelta(hours=6), LVL_NUM=0.5): "wrong_level",
        heaven.add("aia", DAY + timedelta(hours=7), data=np.full((SIZE, SIZE), 16383.0)): "blank",
        heaven.add("aia", DAY + timedelta(hours=8), T_REC="2012-06-01T00:00:00Z"): "wrong_record",
        heaven.add("aia", DAY + timedelta(hours=9), CRPIX1=900.0): "cutout",
    }
    result = shard("aia_fulldisk")
    assert result["rows"] == 1
    assert rows(root)[0]["record"] == good
    assert quarantine(root) == faults
    assert verify(root / "shards/disks", heaven.archive) == []


def test_blocks_of_time_are_held_out_as_a_whole(heaven: Sky, root: Path) -> None:
    for day in range(0, 60, 2):
        heaven.add("hmi", DAY + timedelta(days=day))
    result = shard("hmi_fulldisk", test_share=0.5, block_days=8, gap_days=1, dtype="int16")
    assert result["train"] > 3
    assert result["test"] > 3
    assert result["records_in"] == 30
    assert set(result["by_reason"]) <= {"split_gap"}
    assert verify(root / "shards/disks") == []


def test_settings_that_cannot_hold_are_refused() -> None:
    with pytest.raises(ConfigError, match="int16"):
        shard("aia_fulldisk", dtype="int16")
    with pytest.raises(DataError, match="images_per_shard"):
        shard("aia_fulldisk", resolution=4096, images_per_shard=512)


def test_a_table_that_is_not_there_is_named(heaven: Sky, root: Path, tmp_path: Path) -> None:
    heaven.add("aia", DAY)
    with pytest.raises(DataError, match=r"none of 1 candidates.*absent\.txt"):
        shard("aia_fulldisk", correction_table=str(tmp_path / "absent.txt"))


@pytest.mark.parametrize(
    ("stated", "name", "same"),
    [
        ("2013-03-10T12:00:01.000", "2013-03-10T12:00:01Z", True),
        ("2013-03-10T12:00:01.84Z", "2013-03-10T12:00:01Z", True),
        ("2013-03-10T12:00:03Z", "2013-03-10T12:00:01Z", False),
        ("2013.03.10_12:00:00_TAI", "2013.03.10_12:00:00_TAI", True),
        ("2013.03.10_12:12:00_TAI", "2013.03.10_12:00:00_TAI", False),
        ("nonsense", "2013-03-10T12:00:01Z", False),
    ],
)
def test_spellings_of_one_time(stated: str, name: str, same: bool) -> None:
    assert same_time(stated, name) is same


def test_names_of_disks(heaven: Sky) -> None:
    heaven.add("hmi", DAY)
    path = heaven.archive / f"hmi.M_720s/20120601/{compact_time('2012.06.01_00:00:00_TAI')}"
    assert [found.name for found in path.iterdir()] == [
        "hmi.M_720s.20120601_000000_TAI.magnetogram.fits"]  # fmt: skip
