"""Times, splits, matching and grouping of records: arithmetic with plain values."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from preprocess.archive import parse_record, relative_path
from preprocess.dataset.groups import candidates_of, carry_over, split_candidates
from preprocess.dataset.inputs import Input, list_inputs
from preprocess.dataset.splits import held_out, split_of
from preprocess.manifest import Entry, Manifest
from preprocess.times import tai_seconds
from sunpipe.config import validate
from sunpipe.errors import ConfigError, DataError
from sunpipe.fitsfile import FitsError
from sunpipe.shard_settings import ShardSettings

SHARP = "hmi.sharp_cea_720s[{}][2011.02.15_02:{:02d}:00_TAI]"


def manifest(*records: str, segment: str = "image") -> Manifest:
    found = {}
    for record in records:
        entry = Entry(record, segment, relative_path(record, segment), "0" * 64, 1, "fetched", "",
                      "", "")  # fmt: skip
        found[entry.key] = entry
    return found


def settings(**changes: object) -> ShardSettings:
    return validate({"name": "x", "shard": changes}).shard


# --- times


def test_both_spellings_of_one_moment_are_one_number() -> None:
    # TAI was 34 s ahead of UTC in 2011 and 37 s from 2017 on (IERS Bulletin C)
    pairs = ["2011.02.15_02:00:34_TAI", "2011-02-15T02:00:00Z",
             "2018.08.20_00:00:37_TAI", "2018-08-20T00:00:00Z"]  # fmt: skip
    seconds = tai_seconds(pairs)
    assert seconds[0] == seconds[1]
    assert seconds[2] == seconds[3]


def test_seconds_go_on_through_a_leap_second() -> None:
    clock = ["2016-12-31T23:59:59Z", "2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"]
    assert np.diff(tai_seconds(clock)).tolist() == [1.0, 1.0]
    assert np.diff(tai_seconds([clock[2], "2017.01.01_00:00:37_TAI"])).tolist() == [0.0]


@pytest.mark.parametrize("text", ["2011-02-15", "2011.13.45_00:00:00_TAI", "", "x"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(DataError):
        tai_seconds([text])


# --- splits


def test_the_held_out_share_is_about_what_was_asked_for() -> None:
    share = np.mean([held_out("harp", number, 0.2) for number in range(1, 5001)])
    assert 0.18 < share < 0.22
    assert not any(held_out("harp", number, 0.0) for number in range(100))
    assert all(held_out("harp", number, 1.0) for number in range(100))


def test_a_harp_stands_on_one_side_at_all_times() -> None:
    wanted = settings(test_share=0.3, test_harps=[5])
    for harp in range(1, 50):
        sides = {split_of(parse_record(SHARP.format(harp, minute)), wanted)
                 for minute in range(0, 60, 12)}  # fmt: skip
        assert len(sides) == 1
    assert split_of(parse_record(SHARP.format(5, 0)), wanted) == "test"


def test_disks_near_the_other_side_are_left_out() -> None:
    wanted = settings(product="hmi_fulldisk", test_share=0.5, block_days=10, gap_days=1)
    sides: list[tuple[float, str]] = []
    left_out: Counter[str] = Counter()
    for day in range(1, 29):
        for month in range(1, 13):
            t_rec = f"2012.{month:02d}.{day:02d}_00:00:00_TAI"
            try:
                side = split_of(parse_record(f"hmi.M_720s[{t_rec}]"), wanted)
                sides.append((float(tai_seconds([t_rec])[0]), side))
            except FitsError as error:
                left_out[error.reason] += 1
    sides.sort()
    apart = [b[0] - a[0] for a, b in pairwise(sides) if a[1] != b[1]]
    assert {side for _, side in sides} == {"train", "test"}
    assert set(left_out) == {"split_gap"}
    assert left_out["split_gap"] > 10
    assert min(apart) > 86400


# --- matching


def test_images_of_one_time_are_matched_and_the_others_written_down() -> None:
    euv = "aia.lev1_euv_12s[2011-02-15T02:{:02d}:02Z][{}]"
    field = "hmi.M_720s[2011.02.15_02:{:02d}:34_TAI]"  # 2 s before AIA's :02 UTC
    wanted = settings(product="aia_fulldisk", wavelengths=[193, 171], magnetogram=True,
                      dtype="float16", max_dt_s=12)  # fmt: skip
    records = [euv.format(0, 193), euv.format(0, 171), field.format(0),
               euv.format(12, 193), euv.format(12, 171), field.format(24),
               euv.format(36, 171), euv.format(0, 304)]  # fmt: skip
    inputs = list_inputs(manifest(*records), wanted)
    whole = [item for item in inputs if item.refused is None]
    assert [[member.record for member in item.members] for item in whole] == [records[:3]]
    refused = {item.record: item.refused for item in inputs if item.refused}
    assert refused[records[3]] == ("unmatched", "no magnetogram within 12 s")
    assert set(refused) == set(records[3:7])  # 304 is not asked for


def test_one_series_per_dataset_and_what_is_left_out_is_said() -> None:
    definite, early = SHARP.format(377, 0), SHARP.format(377, 0).replace("720s", "720s_nrt")
    made_up = SHARP.format(900001, 0).replace("hmi.", "sim.")
    detector = SHARP.format(377, 0).replace("sharp_cea", "sharp")
    held = manifest(early, definite, made_up, detector, segment="Br")
    said: list[str] = []
    assert [item.record for item in list_inputs(held, settings(), said.append)] == [definite]
    assert said == [
        "1 records of hmi.sharp_cea_720s_nrt are left out (shard.series)",
        "1 records of sim.sharp_cea_720s are left out (shard.series)",
    ]
    named = settings(series=["hmi.sharp_cea_720s_nrt"])
    assert [item.record for item in list_inputs(held, named)] == [early]
    with pytest.raises(DataError, match=r"name one of them in shard\.series"):
        list_inputs(manifest(early, made_up, segment="Br"), settings())
    assert [i.record for i in list_inputs(manifest(made_up), settings())] == [made_up]


def test_cameras_of_one_time_are_one_image() -> None:
    fields = [f"hmi.M_720s[2011.02.15_02:00:00_TAI]{camera}" for camera in ("", "[3]")]
    inputs = list_inputs(manifest(*fields), settings(product="hmi_fulldisk"))
    assert [item.refused and item.refused[0] for item in inputs] == [None, "duplicate"]


def test_the_definitive_field_is_matched_whatever_lies_nearer() -> None:
    wanted = settings(product="aia_fulldisk", magnetogram=True, dtype="float16", max_dt_s=100)
    euv = "aia.lev1_euv_12s[2011-02-15T02:00:02Z][193]"
    field, early = (
        "hmi.M_720s[2011.02.15_02:00:00_TAI]",
        "hmi.M_720s_nrt[2011.02.15_02:00:36_TAI]",
    )
    (item,) = list_inputs(manifest(euv, field, early), wanted)
    assert [member.record for member in item.members] == [euv, field]


def test_a_split_cannot_share_an_image() -> None:
    with pytest.raises(ConfigError, match="gap_days"):
        settings(product="aia_fulldisk", wavelengths=[193, 171], dtype="float16", test_share=0.1,
                 gap_days=0.0)  # fmt: skip


def test_series_of_other_products_are_no_inputs() -> None:
    disk = "hmi.M_720s[2011.02.15_02:00:00_TAI]"
    held = manifest(disk, SHARP.format(377, 0))
    assert [i.record for i in list_inputs(held, settings())] == [SHARP.format(377, 0)]
    assert [i.record for i in list_inputs(held, settings(product="hmi_fulldisk"))] == [disk]


# --- groups


def test_candidates_in_order_and_faults_by_record() -> None:
    one, two, three = (
        list_inputs(manifest(SHARP.format(harp, 0), segment="Br"), settings())[0]
        for harp in (1, 2, 3)
    )
    refused = Input(three.members, ("duplicate", "of another"))

    def places(item: Input) -> list[tuple[int, int]]:
        if item is two:
            raise FitsError("truncated", "too short")
        return [(0, 0), (0, 8)]

    found, faults = candidates_of([one, two, refused], places)
    assert found == [(one.record, (0, 0)), (one.record, (0, 8)), (two.record, None),
                     (three.record, None)]  # fmt: skip
    assert faults == {two.record: ("truncated", "too short"), three.record: refused.refused}


def test_groups_are_runs_of_candidates() -> None:
    candidates = [(SHARP.format(1, 0), (0, x)) for x in range(5)]
    groups = split_candidates(candidates, 2, first=7)
    assert [group.number for group in groups] == [7, 8, 9]
    assert [one for group in groups for one in group.candidates] == candidates
    assert split_candidates([], 2) == []


def test_only_groups_that_lose_an_image_are_made_again() -> None:
    a, b, c = (SHARP.format(harp, 0) for harp in (9, 10, 11))
    old = {
        0: [(a, (0, 0), True), (b, (0, 0), True)],
        1: [(b, (0, 8), False), (c, (0, 0), True)],
        2: [(b, (0, 16), False)],
    }
    groups = carry_over(old, {b})
    assert [(group.number, group.keep) for group in groups] == [(0, False), (1, True)]
    assert groups[0].candidates == ((a, (0, 0)),)
    assert carry_over(old, set())[0].candidates == ((a, (0, 0)), (b, (0, 0)))  # 9 before 10
