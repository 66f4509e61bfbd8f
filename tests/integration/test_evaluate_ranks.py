"""Metrics while training on several ranks: what one of them meets is met by all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sunpipe.run import read_stats
from tests.ranks import Ended, run_ranks
from tests.unit.shards_fake import write_dataset

JOBS = {"alone": (1, "nothing"), "two": (2, "nothing"), "inf": (2, "inf"), "flood": (2, "flood"),
        "fault": (3, "fault")}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Ended], Path]]:
    folder = tmp_path_factory.mktemp("metrics")
    write_dataset(folder / "fake", count=160, side=16)  # 128 of them to train on
    jobs = []
    for name, (world, wrong) in JOBS.items():
        (folder / name).mkdir()
        argv = [str(folder / "fake"), str(folder / name), wrong]
        jobs.append({"world": world, "argv": argv})
    ended = run_ranks("tests.metrics_check", *jobs)
    return {name: (each, folder / name) for name, each in zip(JOBS, ended, strict=True)}


def row(found: tuple[list[Ended], Path]) -> dict[str, Any]:
    ranks, folder = found
    assert [rank[0] for rank in ranks] == [0] * len(ranks), ranks
    (stored,) = read_stats(folder, "metric-generator")
    stored.pop("time")
    assert stored == json.loads(ranks[0][1].splitlines()[-1])
    return stored


def test_ranks_measure_what_one_process_does(runs: dict[str, Any]) -> None:
    alone, two = row(runs["alone"]), row(runs["two"])
    assert alone["images"] == 128  # no more than there are real ones
    assert alone["not_finite"] == 0
    timeless = {key: value for key, value in alone.items() if key != "seconds"}
    assert {key: two[key] for key in timeless} == pytest.approx(timeless, rel=1e-4)


def test_images_that_are_not_finite_are_left_out_and_counted(runs: dict[str, Any]) -> None:
    found, whole = row(runs["inf"]), row(runs["alone"])
    assert found["not_finite"] == pytest.approx(3 / 128)
    assert found["fd_random"] == pytest.approx(whole["fd_random"], rel=0.5)
    log = (runs["inf"][1] / "log.txt").read_text()
    assert "3 of 128 generated images not finite, left out" in log


def test_too_few_finite_images_have_no_distance(runs: dict[str, Any]) -> None:
    found, whole = row(runs["flood"]), row(runs["alone"])
    assert found["not_finite"] == pytest.approx(65 / 128)
    about = {"nimg", "kimg", "images", "not_finite", "seconds"}
    assert {name for name, value in found.items() if value is None} == set(whole) - about
    log = (runs["flood"][1] / "log.txt").read_text()
    assert "no distances: 65 of 128 generated images not finite" in log


def test_a_fault_on_one_rank_ends_all_with_one_reason(runs: dict[str, Any]) -> None:
    ranks, folder = runs["fault"]
    assert [rank[0] for rank in ranks] == [1, 1, 1], ranks
    assert "rank 2: the images of this rank are gone" in ranks[0][2]
    assert ranks[1][2].count("gone") == 0
    assert not (folder / "metric-generator.jsonl").exists()
