"""What nobody should write into a data root, and how little of it may be felt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.monitor.data import Data
from hpc.monitor.rows import METRICS_SHOWN
from hpc.monitor.runs import Runs
from sunpipe.paths import Layout
from tests.unit.test_monitor_runs import ROW, make_run, values

HUGE = "9" * 400  # a whole number beyond all floats


@pytest.mark.parametrize("line", [
    "[" * 100_000, f'{{"tick_s": {HUGE}, "kimg": {HUGE}, "time": {HUGE}, "rank_work_s": [{HUGE}]}}',
    f'{{"kimg": {HUGE * 20}}}',
])  # fmt: skip
def test_a_line_of_statistics_costs_itself_only(root: Path, line: str) -> None:
    layout = Layout(root)
    make_run(layout, "00000-good")
    (make_run(layout, "00001-odd") / "stats.jsonl").write_text(line + "\n")
    found = values(layout)
    assert found["train_kimg", "00000-good"] == 2
    assert found["train_state", "00001-odd", "running"] == 1
    assert ("train_kimg", "00001-odd") not in found


def test_links_in_a_circle_cost_themselves_only(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(root)
    make_run(layout, "00000-good")
    for parent in (layout.runs, root / "index", root / "shards"):
        parent.mkdir(exist_ok=True)
        (parent / "00001-circle").symlink_to("00001-circle")
    (root / "index/i").mkdir()
    (root / "index/i/index.json").write_text('{"count": 3}')
    found = values(layout)
    assert found["train_kimg", "00000-good"] == 2
    assert found["collector_faults", "runs"] == 1
    assert "runs: 00001-circle: " in capsys.readouterr().err
    assert [one.value for one in Data(layout).read() if one.name == "sunpipe_index_vectors"] == [3]


def test_distances_of_a_run_are_bounded_over_all_its_files(root: Path) -> None:
    layout = Layout(root)
    folder = make_run(layout, rows=(ROW,))
    for file in range(20):
        row = {f"fd_{file}_{key}": 1.0 for key in range(20)}
        (folder / f"metric-{file:02d}.jsonl").write_text(json.dumps(row) + "\n")
    shown = [one for one in Runs(layout).read() if one.name == "sunpipe_train_metric"]
    assert len(shown) == METRICS_SHOWN
