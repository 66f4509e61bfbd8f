"""The conditions of --where: what they mean, and that nothing else is read."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sunpipe.errors import UsageError
from sunpipe.index.where import where_mask

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
