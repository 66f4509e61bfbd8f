"""The conditions of --where: what they mean, and that nothing else is read."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sunpipe.errors import UsageError
from sunpipe.index.columns import Columns
from sunpipe.index.where import where_mask, where_parts

TABLE = pa.table({
    "harpnum": pa.array([377, 6060, 6060, 7115], pa.int64()),
    "TOTUSJH": pa.array([3330.0, 250.5, float("nan"), None], pa.float64()),
    "split": pa.array(["train", "test", "test", None], pa.string()),
    "t_rec": ["2011.02.15_02:00:00_TAI", "2015.10.30_00:00:00_TAI", "2015.10.30_00:12:00_TAI",
              "2017.09.01_22:00:00_TAI"],
    "R_VALUE": pa.nulls(4),
    "flag": [True, False, True, False],
    "Mu": [0.9, 0.8, 0.7, 0.6],
    "mu": [0.1, 0.2, 0.3, 0.4],
})  # fmt: skip


@pytest.mark.parametrize("text", ["", "  \t"])
def test_an_empty_condition_is_a_mistake(text: str) -> None:
    with pytest.raises(UsageError, match="--where is empty"):
        where_mask(TABLE, text)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("harpnum = 6060", [1, 2]),
        ("harpnum == 6060 and TOTUSJH > 100", [1]),
        ("HARPNUM=377 OR harpnum=7115", [0, 3]),
        ("harpnum = 377 or harpnum = 6060 and TOTUSJH < 300", [0, 1]),  # and binds tighter
        ("(harpnum = 377 or harpnum = 6060) and TOTUSJH < 300", [1]),
        ("not harpnum = 6060", [0, 3]),
        ("not (harpnum = 6060 or harpnum = 377)", [3]),
        ("not not harpnum = 377", [0]),
        ("TOTUSJH != 250.5", [0]),  # NaN and missing satisfy nothing,
        ("not TOTUSJH = 250.5", [0]),  # nor does their negation
        ("TOTUSJH >= 2.505e2", [0, 1]),
        ("TOTUSJH > -1e3", [0, 1]),
        ("harpnum < 6060.5", [0, 1, 2]),
        ("split = 'test'", [1, 2]),
        ('split != "test"', [0]),
        ("t_rec >= '2015.10.30_00:12' and t_rec < '2016'", [2]),
        ("R_VALUE > 4", []),
        ("R_VALUE = 'x'", []),
        ("Mu > 0.85", [0]),
        ("mu > 0.35", [3]),
        ("harpnum = 99999999999999999999999", []),
        ("totusjh>100 and(harpnum=377)", [0]),
        ("TOTUSJH in 250.5..3330", [0, 1]),  # both ends belong to it
        ("TOTUSJH between 250.6 and 3330 and harpnum = 377", [0]),
        ("harpnum in 377..6060", [0, 1, 2]),
        ("not harpnum IN 377..6060", [3]),
        ("Mu in .7...8", [1, 2]),
        ("Mu in -1e3..0.75", [2, 3]),
        ("split in 'a'..'test'", [1, 2]),
        ("flag = true", [0, 2]),
        ("not flag = TRUE and harpnum > 0", [1, 3]),
        ("year in 2011..2015", [0, 1, 2]),
        ("year >= 2016", [3]),
        ("t_rec in 2011..2015", [0, 1, 2]),  # a time cut short means all of it
        ("t_rec <= '2015.10.30_00:00'", [0, 1]),
        ("t_rec <= '2015-10-30'", [0, 1, 2]),
        ("t_rec > '2015-10-30'", [3]),
        ("t_rec = '2015.10.30'", [1, 2]),
        ("t_rec between '2015-10-30T00:12Z' and 2017", [2, 3]),
        ("t_rec != 2011", [1, 2, 3]),
        ("t_rec > '2012.02.29_23:59:60'", [1, 2, 3]),
    ],
)
def test_meaning(text: str, rows: list[int]) -> None:
    assert where_mask(TABLE, text).nonzero()[0].tolist() == rows


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "harpnum",
        "harpnum =",
        "= 6060",
        "harpnum = 6060 and",
        "harpnum = 6060 6061",
        "harpnum = (6060)",
        "(harpnum = 6060",
        "harpnum = 6060)",
        "harpnum = split",
        "harpnum in (377)",
        "harpnum => 3",
        "harpnum = 'text'",
        "split = 3",
        "split = 'open",
        "flag = 1",
        "__import__('os').system('true')",
        "harpnum = 1; drop table records",
        "harpnum = 0x10",
        "TOTUSJH > 100and harpnum = 377",
        "harpnum = 1_000",
        "harpnum = nan",
        "harpnum = 1e",
        "harpnum = 1.2.3",
        "harpnum = 6060 # comment",
        "record[0] = 'x'",
        "harpnum = 6060\x00",
        "(" * 60 + "harpnum = 1" + ")" * 60,
        "not " * 100000 + "harpnum = 1",
        "not " * 60 + "harpnum = 1",
        "harpnum = 377 or " * 1000 + "harpnum = 1",
        "harpnum in 377",
        "harpnum in 377..",
        "harpnum between 377",
        "harpnum between 377 or 378",
        "harpnum in 1..2..3",
        "harpnum in 'a'..3",
        "harpnum = true",
        "t_rec > '20151'",
        "t_rec > '2015.1'",
        "t_rec > 20150101",
        "t_rec > 2015.5",
        "t_rec > '2014.13'",
        "t_rec > '2014.00'",
        "t_rec in '2014.01'..'2014.04.31'",
        "t_rec > '2015.02.29'",
        "t_rec > '2014.03.45'",
        "t_rec > '2014.03.00'",
        "t_rec > '2014.03.01_24'",
        "t_rec > '2014.03.01_23:60'",
        "t_rec > '2014.03.01_23:59:61'",
        "t_rec > '0000'",
        "t_rec = true",
        "year = '2015'",
    ],
)
def test_anything_else_is_one_clear_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--where") as caught:
        where_mask(TABLE, text)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_unknown_column_names_near_ones() -> None:
    with pytest.raises(UsageError, match="did you mean TOTUSJH"):
        where_mask(TABLE, "TOTUSJZ > 1")
    with pytest.raises(UsageError, match="known: harpnum, TOTUSJH"):
        where_mask(TABLE, "xyzzy > 1")
    with pytest.raises(UsageError, match="no column 'MU'"):  # Mu or mu?
        where_mask(TABLE, "MU > 0.5")


def test_long_flat_conditions_are_fine() -> None:
    text = " or ".join(["harpnum = 377"] * 200)
    assert where_mask(TABLE, text).nonzero()[0].tolist() == [0]


def test_empty_table() -> None:
    assert where_mask(TABLE.slice(0, 0), "harpnum = 377 and split = 'test'").tolist() == []


REGIONS = pa.table({
    "record": ["a", "a", "b", "c", "d", "e"],
    "t_rec": ["2011.02.15_02:00:00_TAI"] * 3 + ["2015.10.30_00:12:00_TAI", None,
                                                "2011.02.15_02:00:00_TAI"],
    "noaa_ars": ["11158", "11158", "MISSING", "12441", "11158", "11158"],
    "simulated": [False] * 5 + [True],
    "harpnum": pa.array([377, 377, 378, None, 377, 9], pa.int64()),
    "mu": [0.5, 0.5, -0.2, 1.0, None, 1.0],
})  # fmt: skip


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("flare_before_24h >= 'X2'", [0, 1]),
        ("flare_before_24h = 'X2.2'", [0, 1]),
        ("flare_24h >= 'M1'", []),
        ("flare_24h < 'M1'", [0, 1, 3]),  # unknown is not quiet
        ("not flare_24h < 'C1'", [0, 1]),
        ("flare_24h = 'none'", [3]),
        ("flare_flux_24h = 0", [3]),
        ("flare_flux_24h > 1e-6", [0, 1]),
        ("flare_24h > 1e-6", [0, 1]),
        ("flares_24h = 4", [0, 1]),
        ("flares_before_24h > 5 and flares_24h < 5", [0, 1]),
        ("angle > 59.9 and angle < 60.1", [0, 1]),
        ("angle > 90", [2]),
        ("angle < 10", [5]),  # the angle of a whole disk is not known
    ],
)
def test_computed_columns(text: str, rows: list[int]) -> None:
    assert where_mask(REGIONS, text).nonzero()[0].tolist() == rows


def test_computed_columns_need_what_they_are_made_of() -> None:
    with pytest.raises(UsageError, match="no column 'angle'"):
        where_mask(TABLE.drop_columns(["mu"]), "angle < 30")
    with pytest.raises(UsageError, match="no column 'flare_24h'"):
        where_mask(TABLE, "flare_24h > 'M1'")
    with pytest.raises(UsageError, match=r"^--where: flare_24h: 'Q1' is no GOES class"):
        where_mask(REGIONS, "flare_24h > 'Q1'")
    own = REGIONS.append_column("year", pa.array([1] * 6))
    assert where_mask(own, "year = 1").all()  # a column of the metadata comes first


def test_parts_are_what_and_joins() -> None:
    text = " harpnum = 6060 and (TOTUSJH > 1 or not Mu > 5)  and t_rec in 2011..2015 "
    parts = where_parts(TABLE, text)
    assert [(part.text, int(part.mask.sum())) for part in parts] == [
        ("harpnum = 6060", 2), ("(TOTUSJH > 1 or not Mu > 5)", 4), ("t_rec in 2011..2015", 3)
    ]  # fmt: skip
    (whole,) = where_parts(TABLE, "harpnum = 377 and Mu > 0 or harpnum = 7115")
    assert (whole.text, whole.mask.nonzero()[0].tolist()) == (
        "harpnum = 377 and Mu > 0 or harpnum = 7115", [0, 3]
    )  # fmt: skip


def test_flares_are_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from sunpipe.index import flares

    calls = []
    real = flares.windows
    monkeypatch.setattr(flares, "windows", lambda *args: calls.append(1) or real(*args))
    columns = Columns(REGIONS)
    where_mask(columns, "flare_24h > 'C1' and flares_24h > 1 and flare_before_24h > 'C1'")
    assert len(calls) == 1
