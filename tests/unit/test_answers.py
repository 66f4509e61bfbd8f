"""Answers: folding, limits, numbers instead of vectors, and what is said of nothing."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sunpipe.errors import DataError, UsageError
from sunpipe.index import text
from sunpipe.index.answer import Answer
from sunpipe.index.cli import app
from sunpipe.index.columns import Columns
from sunpipe.index.fold import fold_codes, key_of, keys, nearest_groups
from sunpipe.index.like import like
from sunpipe.index.limits import Limits
from sunpipe.index.nearest import record_codes
from sunpipe.index.search import Query, ask, record_query
from sunpipe.index.store import Index
from tests.unit.answers_fake import DIM, SERIES, TILES, make_index, name

ALL = Limits()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return make_index(tmp_path_factory.mktemp("answers"))


def records(answer: Answer) -> list[str]:
    return [hit["record"] for hit in answer.hits]


def test_keys_of_harps_and_days(index: Index) -> None:
    found = keys(index.table).to_pylist()
    assert set(found) == {f"{SERIES}|377", f"{SERIES}|700", f"{SERIES}|6060",
                          "hmi.M_720s|2019.01.01"}  # fmt: skip
    assert [key_of(name(number)) for number in range(6)] == [
        found[sum(TILES[:number])] for number in range(6)
    ]
    assert key_of("aia.lev1_euv_12s[2011-02-15T02:00:00Z][171]") == "aia.lev1_euv_12s|2011.02.15"
    assert key_of("nonsense") is None
    assert len(set(fold_codes(index.table, "record"))) == 6
    assert len(set(fold_codes(index.table, "none"))) == sum(TILES)


def brute(index: Index, query: Query, k: int, allowed: np.ndarray, codes: np.ndarray) -> list[int]:
    """Groups in the order of the distance to their records, computed apart."""
    stored = np.asarray(index.vectors, np.float64)
    unit = query.vectors / np.linalg.norm(query.vectors, axis=1, keepdims=True)
    far = 1 - stored @ unit.T
    record = record_codes(index)
    best: dict[int, float] = {}
    for one in np.unique(record[allowed]):
        mine = (record == one) & allowed
        group = int(codes[mine][0])
        best[group] = min(best.get(group, np.inf), far[mine].min(axis=0).mean())
    return sorted(best, key=lambda group: best[group])[:k]


@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize("where", [None, "flux_mx < 2.5e21", "harpnum != 377"])
def test_folding_loses_nothing(index: Index, vectors: int, where: str | None) -> None:
    for seed in range(6):
        made = np.random.default_rng(seed).normal(size=(vectors, DIM)).astype(np.float32)
        query = Query(made, {"kind": "test"})
        for fold in ("harp", "record"):
            codes = fold_codes(index.table, fold)
            allowed = np.ones(sum(TILES), bool)
            if where is not None:
                flux = np.asarray(index.table["flux_mx"])
                harp = np.array(index.table["harpnum"].to_pylist(), dtype=float)
                allowed = flux < 2.5e21 if "flux" in where else (harp != 377) & ~np.isnan(harp)
            for k in (1, 2, 9):
                answer = ask(index, query, Limits(where=where), k, fold)
                got = [int(codes[hit["row"]]) for hit in answer.hits]
                assert got == brute(index, query, k, allowed, codes)
                far = [hit["distance"] for hit in answer.hits]
                assert far == sorted(far)


@pytest.mark.parametrize("where", [None, "flux_mx < 2.5e21"])
def test_exact_compares_every_row_whatever_codes_find(
    index: Index, monkeypatch: pytest.MonkeyPatch, where: str | None
) -> None:
    """Codes that find nothing at all do not change an exact answer."""
    query = Query(np.random.default_rng(7).normal(size=(1, DIM)).astype(np.float32), {"kind": "t"})
    folds = ("harp", "record", "none")
    whole = [ask(index, query, Limits(where=where), 9, fold) for fold in folds]

    def blind(_: Index, vectors: np.ndarray, k: int, allowed: np.ndarray) -> tuple[Any, Any]:
        return np.zeros((len(vectors), 0)), np.zeros((len(vectors), 0), np.int64)

    monkeypatch.setattr("sunpipe.index.search.nearest_tiles", blind)
    monkeypatch.setattr("sunpipe.index.fold.nearest_tiles", blind)
    for fold, wanted in zip(folds, whole, strict=True):
        assert ask(index, query, Limits(where=where), 9, fold).hits == []
        found = ask(index, query, Limits(where=where), 9, fold, exact=True)
        assert [hit["row"] for hit in found.hits] == [hit["row"] for hit in wanted.hits]
        np.testing.assert_allclose([hit["distance"] for hit in found.hits],
                                   [hit["distance"] for hit in wanted.hits], atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("fold", ["harp", "none"])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("value", "message"), [(0, "is zero: it has no direction"),
                                                (np.nan, "has NaN or infinity")])  # fmt: skip
def test_vectors_that_mean_nothing_are_refused(
    index: Index, value: float, message: str, exact: bool, fold: Any
) -> None:
    for tiles in (1, 3):
        vectors = np.ones((tiles, DIM), np.float32)
        vectors[-1] = value
        with pytest.raises(DataError, match=message):
            ask(index, Query(vectors, {"kind": "test"}), ALL, 3, fold, exact=exact)


def test_what_is_folded_is_counted(index: Index) -> None:
    answer = ask(index, record_query(index, name(0)), Limits(include_self=True), 9)
    assert records(answer)[0] == name(0)
    by_harp = {hit["harpnum"]: hit["folded"] for hit in answer.hits}
    assert {harp: list(folded.values()) for harp, folded in by_harp.items()} == {
        377: [1, 11], 700: [0, 2], 6060: [1, 7], None: [0, 0]
    }  # fmt: skip
    assert answer.candidates == {"records": 6, "tiles": 24, "records_in_index": 6,
                                 "tiles_in_index": 24}  # fmt: skip
    limited = ask(index, record_query(index, name(0)), Limits(where="flux_mx > 2.5e21"), 9)
    hit = next(hit for hit in limited.hits if hit["harpnum"] == 377)
    assert (hit["record"], hit["folded"]) == (name(1), {"records": 0, "tiles": 1})
    tiles = ask(index, record_query(index, name(0)), ALL, 30, "none")
    assert len(tiles.hits) == 18
    assert all(hit["folded"] == {"records": 0, "tiles": 0} for hit in tiles.hits)


def test_a_crowd_of_near_tiles_does_not_end_the_search(index: Index) -> None:
    """Thousands of tiles of one HARP stand nearer than all others."""
    from types import SimpleNamespace

    calls = []
    rows = np.arange(5000)
    far = np.arange(5000) * 1e-4
    codes = np.concatenate([np.zeros(4990, np.int64), np.arange(1, 11)])

    def nearest(_: Any, vectors: np.ndarray, k: int, allowed: np.ndarray) -> tuple[Any, Any]:
        calls.append(k)
        mine = rows[allowed][:k]
        return far[mine][None].repeat(len(vectors), 0), mine[None].repeat(len(vectors), 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sunpipe.index.fold.nearest_tiles", nearest)
        vectors = np.zeros((2, 1), np.float32)
        found = nearest_groups(SimpleNamespace(), vectors, 4, np.ones(5000, bool), codes)  # type: ignore[arg-type]
        few = nearest_groups(SimpleNamespace(), vectors, 50, np.ones(5000, bool), codes)  # type: ignore[arg-type]
    assert [[row for _, row in one] for one in found] == [[0, 4990, 4991, 4992]] * 2
    assert len(few[0]) == 11  # all there are
    assert max(calls) <= 50 * 4**4


def test_limits(index: Index) -> None:
    query = record_query(index, name(0))

    def found(**limits: Any) -> set[str]:
        return set(records(ask(index, query, Limits(**limits), 9, "record")))

    assert found() == {name(number) for number in range(1, 6)}
    assert found(other_harps=True) == {name(number) for number in range(2, 6)}
    assert found(within=40) == {name(1), name(3), name(4)}  # a whole disk has no angle
    assert found(after="2013") == {name(number) for number in range(2, 6)}
    assert found(after="2015.10.30_00:12", before="2019") == {name(4)}
    assert found(before="2013-05") == {name(1)}
    assert found(where="simulated = false", after="2012", within=60) == {name(3), name(4)}
    assert found(where="flare_before_24h >= 'X1'") == {name(1)}
    disk = record_query(index, name(5))
    assert len(ask(index, disk, Limits(other_harps=True, include_self=True), 9).hits) == 3


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"within": -1}, "--within -1: an angle is from 0 to 180"),
        ({"within": float("nan")}, "--within nan"),
        ({"after": "yesterday"}, "--after: 'yesterday' is no time"),
        ({"before": "2011.2"}, "--before: '2011.2' is no time"),
        ({"before": "2011.13"}, "--before: '2011.13' is no time: there is no month 13"),
        ({"after": "2011.02.29"}, "--after: '2011.02.29' is no time: there is no day 29"),
        ({"other_harps": True}, "--other-harps: this query has no HARP"),
        ({"where": "USFLX > 3"}, "did you mean USFLUX"),
    ],
)
def test_limits_that_cannot_be_read(index: Index, limits: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask(index, None, Limits(**limits))


def test_numbers_alone(index: Index) -> None:
    answer = ask(index, None, Limits(where="USFLUX in 2e22..5e22"), fold="record")
    assert records(answer) == [name(number) for number in (1, 2, 3, 4)]  # by time
    assert all(hit["distance"] is None for hit in answer.hits)
    assert all(hit["flux_mx"] == 3e21 for hit in answer.hits)  # its strongest tile
    assert answer.about == {"kind": "numbers", "order": "t_rec"}
    down = ask(index, None, ALL, 3, order="USFLUX desc")
    assert [hit["keywords"]["USFLUX"] for hit in down.hits] == [6e22, 5e22, 3e22]
    missing_last = ask(index, None, ALL, 9, "record", order="TOTUSJH")
    assert records(missing_last)[-1] == name(2)
    for wrong in ("USFLUX up", "USFLUX desc asc", "nothing"):
        with pytest.raises(UsageError, match="--order"):
            ask(index, None, ALL, order=wrong)


def test_near_in_numbers(index: Index) -> None:
    answer = ask(index, None, ALL, 9, "record", like="USFLUX=3.2e22, totusjh=3000")
    spread = {"USFLUX": 2.5e22 / 1.349, "TOTUSJH": 3000 / 1.349}
    assert answer.about["spread"] == pytest.approx(spread)
    assert answer.about["records_without"] == 1
    wanted = {
        name(number): np.hypot((1e22 * (number + 1) - 3.2e22) / spread["USFLUX"],
                               (1000 * number - 3000) / spread["TOTUSJH"]) / np.sqrt(2)
        for number in (0, 1, 3, 4, 5)
    }  # fmt: skip
    assert records(answer) == sorted(wanted, key=lambda one: wanted[one])
    for hit in answer.hits:
        assert hit["distance"] == pytest.approx(wanted[hit["record"]])
    assert ask(index, None, ALL, 9, like="angle=20").hits[0]["harpnum"] == 377
    limited = ask(index, None, Limits(where="USFLUX < 2.5e22"), 9, "record", like="USFLUX=6e22")
    assert records(limited) == [name(1), name(0)]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("", "cannot read ''"),
        ("USFLUX", "cannot read 'USFLUX'"),
        ("USFLUX=", "cannot read"),
        ("USFLUX=nan", "cannot read"),
        ("USFLUX=many", "cannot read"),
        ("USFLUX=1,USFLUX=2", "stands twice"),
        ("USFLX=1", "--like: no column 'USFLX' .did you mean USFLUX"),
        ("split=3", "holds no numbers"),
        ("pixel_cm=3", "is 1e[+]08 for most records"),
        ("none_of_these=1", "--like: no column"),
    ],
)
def test_numbers_that_cannot_be_read(index: Index, asked: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        like(asked, Columns(index.table))


def test_hits_say_what_a_person_needs(index: Index) -> None:
    hit = ask(index, record_query(index, name(0)), ALL, 1).hits[0]
    assert (hit["record"], hit["rank"], hit["noaa"]) == (name(1), 1, [11158])
    assert hit["angle"] == pytest.approx(19.948, abs=1e-3)
    assert hit["flares"]["before"]["largest"] == "X2.2"
    assert hit["flares"]["after"]["count"] == 5  # one more than at 02:00
    disk = ask(index, None, Limits(where="year = 2019"))
    assert disk.hits[0]["angle"] is None
    assert disk.hits[0]["flares"] == {"after": None, "before": None}
    json.dumps(disk.hits, allow_nan=False)


def test_nothing_is_explained(index: Index) -> None:
    answer = ask(index, None, Limits(where="USFLUX > 5.5e22 and TOTUSJH < 2000", within=50))
    assert answer.hits == []
    assert [(one["condition"], one["records"]) for one in answer.conditions] == [
        ("USFLUX > 5.5e22", 1), ("TOTUSJH < 2000", 2), ("within 50 degrees of disk centre", 4)
    ]  # fmt: skip
    lines = text.nothing(answer)
    assert lines[1].split() == ["USFLUX", ">", "5.5e22", "alone", "leaves", "1", "records", "(1",
                                "tiles)"]  # fmt: skip
    assert lines[-1] == "  each leaves some, no observation satisfies all"


def test_tables(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(index, record_query(index, name(0)), Limits(where="TOTUSJH > 10"), 9)
    text.show(answer, "harp")
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].split()[:6] == ["#", "distance", "record", "tile", "NOAA", "angle"]
    assert name(1) in lines[1]
    assert "X2.2 (of 12)" in lines[1]
    assert lines[-1].startswith("4 of 6 records (15 of 24 tiles) may answer; one answer for each")
    assert text.keywords(answer) == ["TOTUSJH", "USFLUX"]  # what was asked for comes first
    rows = list(csv.DictReader(io.StringIO(text.csv_text(answer))))
    assert [row["record"] for row in rows] == records(answer)
    first = rows[0]
    assert float(first["USFLUX"]) == 2e22
    assert (first["flare_before_24h"], first["flare_peak_before_24h"]) == (
        "X2.2", "2011-02-15T01:56Z"
    )  # fmt: skip
    assert float(first["distance"]) == answer.hits[0]["distance"]


def test_a_narrow_terminal_loses_columns_never_the_record() -> None:
    head = ["#", "distance", "record", "tile", "NOAA", "angle", "USFLUX", "flare after", "also"]
    body = [["1", "0.01", name(0), "0,16", "11158", "19", "2.7e22", "C6.6 (of 4)", "+44 tiles"]]
    kept, lines, gone = text.fitting(head, body, 200)
    assert (kept, lines, gone) == (head, body, [])
    kept, lines, gone = text.fitting(head, body, 100)
    assert gone == ["tile", "also"]
    assert sum(map(len, lines[0])) <= 100
    kept, lines, gone = text.fitting(head, body, 62)
    assert kept == ["#", "distance", "record"]
    kept, lines, gone = text.fitting(head, body, 10)
    assert (kept, lines) == (["record"], [[name(0)]])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(2.71476e22, "2.71e22"), (3330.155, "3330"), (0.0213, "0.0213"), (None, "-"), (0.0, "0"),
     (12345678.0, "1.23e7"), (1.5e-9, "1.5e-9"), (-2.5e22, "-2.5e22"), (377, "377"), ("x", "x")],
)  # fmt: skip
def test_numbers_for_reading(value: Any, shown: str) -> None:
    assert text.number(value) == shown


def command(index: Index, *args: str) -> None:
    app(["search", str(index.folder), *args], standalone_mode=False)


def test_the_command_by_numbers(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hits.csv"
    command(index, "--where", "flare_24h < 'M1'", "--within", "30", "--csv", str(out), "--json")
    answer = json.loads(capsys.readouterr().out)
    assert [hit["harpnum"] for hit in answer["hits"]] == [377]
    assert answer["query"]["kind"] == "numbers"
    assert answer["query"]["exact"] is False
    assert len(out.read_text().splitlines()) == 2
    command(index, "--where", "USFLUX > 1e30")
    shown = capsys.readouterr()
    assert shown.out.startswith("no observation in the index satisfies this:\n  USFLUX > 1e30")
    command(index, "--where", "USFLUX > 1e30", "--json")
    empty = json.loads(capsys.readouterr().out)
    assert empty["hits"] == []
    command(index, "--record", name(0), "--exact", "--json")
    near = json.loads(capsys.readouterr().out)
    assert near["query"]["exact"] is True
    assert near["hits"][0]["record"] == name(1)
    assert empty["conditions"] == [{"condition": "USFLUX > 1e30", "records": 0, "tiles": 0}]


def test_a_table_without_hits_still_names_its_columns(index: Index, tmp_path: Path) -> None:
    some, none = tmp_path / "some.csv", tmp_path / "none.csv"
    command(index, "--where", "USFLUX > 1", "--csv", str(some))
    command(index, "--where", "USFLUX > 1e30", "--csv", str(none))
    assert none.read_text().splitlines() == some.read_text().splitlines()[:1]
    assert {"record", "flare_24h", "also_tiles", "USFLUX"} <= set(none.read_text()[:-1].split(","))


@pytest.mark.parametrize("option", ["--csv", "--html"])
def test_a_file_that_cannot_be_written_is_named_before_the_search(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr("sunpipe.index.store.load_index", lambda folder: pytest.fail("searched"))
    (tmp_path / "file").write_text("mine")
    for place, message in (
        (tmp_path, "this is a folder; give a file in it"),
        (tmp_path / "typo/deep/hits", f"there is no folder {tmp_path}/typo/deep"),
        (tmp_path / "file/hits", f"there is no folder {tmp_path}/file"),
    ):
        with pytest.raises(UsageError) as caught:
            command(index, "--where", "USFLUX > 1", option, str(place))
        assert str(caught.value) == f"{option} {place}: {message}"
    same = str(tmp_path / "both")
    with pytest.raises(UsageError, match="--csv and --html name one file"):
        command(index, "--where", "USFLUX > 1", "--csv", same, "--html", same)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "takes one of --fits"),
        (("--like", "USFLUX=1", "--record", "x"), "not --record and --like"),
        (("--record", "x", "--run", "y"), "--seed and --run|--run goes with --seed or --latent"),
        (("--seed", "1"), "--seed and --run go together"),
        (("--where", "USFLUX > 1", "--frame", "1"), "--frame goes with --latent"),
        (("--where", "USFLUX > 1", "--psi", "1"), "--psi goes with --seed"),
        (("--like", "USFLUX=1", "--exact"), "--exact goes with --fits or --record"),
        (("--like", "USFLUX=1", "--order", "t_rec"), "--order goes with conditions alone"),
        (("--where", "USFLUX > 1", "--other-harps"), "this query has no HARP"),
        (("--record", "hmi.sharp_cea_720s[377][2011.02.15_02:24:00_TAI]"), "near: "),
    ],
)
def test_questions_that_make_no_sense(index: Index, args: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        command(index, *args)
    assert "\n" not in str(caught.value)
