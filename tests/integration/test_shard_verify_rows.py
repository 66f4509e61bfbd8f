"""``sunpipe verify``: rows, quarantine and settings that were tampered with are seen through."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from preprocess.dataset.check_quarantine import REASONS
from preprocess.verify import verify
from tests.conftest import REPO
from tests.integration.tampering import (
    Values,
    all_of,
    drop,
    edit,
    edit_info,
    native_root,
    only,
    rows_of,
    words,
)


@pytest.fixture(scope="module")
def sealed(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a dataset of native pixels. Do not write to it."""
    return native_root(tiny_root, tmp_path_factory.mktemp("verify") / "root")


@pytest.fixture
def dataset(sealed: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "native"
    shutil.copytree(sealed / "shards/native", folder)
    return folder


# --- rows

ROWS: dict[str, tuple[dict[str, Callable[[Values], Values]], str]] = {
    "flux": ({"flux_mx": only(3, lambda v: 10 * v)}, "its pixels allow"),
    "flux of the patch": ({"flux_mx": only(3, lambda v: v * 1.0001)}, "Mx for the patch"),
    "flux and share": (
        {"flux_mx": all_of(lambda v: v / 10), "flux_share": all_of(lambda v: v / 10)},
        "its pixels allow",
    ),
    "share of nothing": ({"flux_share": only(0, lambda v: 0.0)}, "only one is 0"),
    "USFLUX": ({"USFLUX": all_of(lambda v: 10 * v)}, "flux_mx and flux_share allow"),
    "keyword": ({"USFLUX": only(4, lambda v: v * 1.001)}, "USFLUX is not that of the record's"),
    "crpix": ({"crpix1": only(4, lambda v: v + 100)}, "crpix1 and tile_x do not fit"),
    "crval": ({"crval1": all_of(lambda v: v + 30)}, "mu is"),
    "cdelt": ({"cdelt1": all_of(lambda v: 2 * v)}, "its coordinates give"),
    "no coordinates": ({"crpix2": only(0, lambda v: float("inf"))}, "no world coordinates"),
    "projection": ({"ctype1": all_of(lambda v: "RA---TAN")}, "a sharp_vector has 'CRLN-CEA'"),
    "unit": ({"cunit2": only(1, lambda v: "rad")}, "cunit2 is 'rad'"),
    "mu": ({"mu": all_of(lambda v: 0.3)}, "mu is 0.300000"),
    "no mu": ({"mu": all_of(lambda v: None)}, "mu is nan"),
    "simulated": ({"simulated": all_of(lambda v: not v)}, "simulated is True"),
    "no quality": ({"quality": only(5, lambda v: None)}, "row 5 ("),
    "quality": ({"quality": all_of(lambda v: -(2**31))}, "NODATA"),
    "tile": ({"tile_y": only(6, lambda v: v + 3)}, "is not on the grid of the patch"),
    "far tile": ({"tile_x": only(6, lambda v: 10**12)}, "is in no patch"),
    "infinite": ({"RSUN_OBS": all_of(lambda v: float("inf"))}, "must be finite"),
    "place": ({"position": only(0, lambda v: 1)}, "two rows stand at one place"),
    "range": ({"nan_share": only(0, lambda v: 2.0)}, "outside of 0 .. 1"),
    "HARP": ({"harpnum": only(0, lambda v: 378)}, "is not its record"),
    "series": ({"record": all_of(lambda v: v.replace("cea_720s", "720s"))}, "is no record of"),
    "no series": (
        {"record": only(0, lambda v: v.replace("720s", "720s_nrt"))}, "mixes the series"),
    "no record": ({"record": only(0, lambda v: "x")}, "'x' is not a record"),
    "split": ({"split": all_of(lambda v: "train")}, "its settings say test"),
    "time": ({"t_rec": only(0, lambda v: "2011.02.15_03:00:00_TAI")}, "is not its record"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ROWS)
def test_rows_that_cannot_be(dataset: Path, kind: str) -> None:
    changes, text = ROWS[kind]
    edit(dataset, "records", **changes)
    problems = verify(dataset)
    assert any(text in line and "records.parquet" in line for line in problems), problems
    assert all("\n" not in line for line in problems)
    assert len(problems) < 40


def test_a_fault_of_many_rows_is_a_few_lines(dataset: Path) -> None:
    edit(dataset, "records", ctype1=all_of(lambda v: "RA---TAN"))
    count = len(rows_of(dataset))
    found = [line for line in verify(dataset) if "with this fault" in line or "ctype1" in line]
    assert len(found) == 4
    assert f"the last of {count} with this fault" in found[-1]


# --- quarantine and inputs

LINES: dict[str, tuple[str, dict[str, Callable[[Values], Values]], str]] = {
    "reason": ("quarantine", {"reason": only(0, lambda v: "banana")}, "'banana' is no reason"),
    "no detail": ("quarantine", {"detail": only(1, lambda v: "")}, "line 1 ("),
    "no reason": ("quarantine", {"reason": only(1, lambda v: None)}, "reason is null"),
    "half a place": ("quarantine", {"tile_y": only(0, lambda v: None)}, "has half a place"),
    "no place": (
        "quarantine",
        {"tile_y": only(0, lambda v: None), "tile_x": only(0, lambda v: None)},
        "a tile's reason, but no place",
    ),
    "HARP": ("quarantine", {"harpnum": all_of(lambda v: v + 1)}, "are not its record's"),
    "one HARP": ("quarantine", {"harpnum": only(9, lambda v: v + 1)}, "line 9 ("),
    "digest": ("inputs", {"digest": only(0, lambda v: "")}, "has no digest"),
    "twice": ("inputs", {"record": lambda values: [values[1], *values[1:]]}, "stands twice"),
    "other": ("inputs", {"record": only(0, lambda v: "x")}, "neither rows nor quarantine"),
}


@pytest.mark.parametrize("kind", LINES)
def test_lines_that_cannot_be(dataset: Path, kind: str) -> None:
    table, changes, text = LINES[kind]
    edit(dataset, table, **changes)
    problems = verify(dataset)
    assert any(text in line for line in problems), problems


def test_a_dropped_line_of_the_quarantine(dataset: Path) -> None:
    lines = rows_of(dataset, "quarantine")
    victim = next(line for line in lines if line["tile_y"] == 0 and line["tile_x"] == 64)
    assert drop(dataset, "quarantine", lambda line: line == victim) == 1
    assert f"({victim['record']}): has" in words(dataset)
    assert "tiles in rows and quarantine, its grid has" in words(dataset)


def test_a_tile_that_is_row_and_line(dataset: Path) -> None:
    row = rows_of(dataset)[0]
    of_record = [line["record"] == row["record"] for line in rows_of(dataset, "quarantine")]
    place = of_record.index(True)
    edit(dataset, "quarantine", tile_y=only(place, lambda v: row["tile_y"]),
         tile_x=only(place, lambda v: row["tile_x"]))  # fmt: skip
    assert "stands twice" in words(dataset)


def test_every_reason_is_known() -> None:
    """The words of the quarantine are those that are raised somewhere."""
    raised, texts = set(), set()
    for package in ("preprocess", "sunpipe"):
        for path in (REPO / package).rglob("*.py"):
            if path.name == "check_quarantine.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.add(node.value)
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "FitsError":
                    first = node.args[0]
                    both = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
                    raised |= {one.value for one in both if isinstance(one, ast.Constant)}
    assert raised <= REASONS
    assert texts >= REASONS


# --- the configuration


def test_settings_are_those_of_the_configuration(dataset: Path) -> None:
    info = json.loads((dataset / "dataset.json").read_text())
    edit_info(dataset, settings={**info["settings"], "test_harps": []})
    edit(dataset, "records", split=all_of(lambda v: "train"))
    assert verify(dataset) == [
        "config.json: shard.test_harps is [6060], dataset.json says []"
    ]  # fmt: skip


def test_the_configuration_is_there_and_of_this_dataset(dataset: Path) -> None:
    path = dataset / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "dataset": "other"}))
    assert "dataset is 'other'" in words(dataset)
    for text in ("[]", '{"dataset": "native", "shard": 3}', "{"):
        path.write_text(text)
        assert "config.json: cannot be read" in words(dataset)
    path.unlink()
    assert "config.json: missing" in words(dataset)
