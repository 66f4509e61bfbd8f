"""The dashboards' files: built from code, complete, and reading only names that exist."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from hpc.monitor.dash_cli import dashboards, seconds
from hpc.monitor.dashboards import build
from hpc.monitor.dialects import DIALECTS, metric_names, served_names, unknown_names
from hpc.monitor.expressions import in_rules as rules_of
from hpc.monitor.names import RECORDED, TRAIN_STATES
from hpc.monitor.rules import RULES, shipped
from sunpipe.errors import DataError, SunpipeError, UsageError


def boards() -> dict[str, Any]:
    folder = build.COMMITTED / "dashboards"
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in build.NAMES}


def panels() -> list[tuple[str, dict[str, Any]]]:
    return [(name, panel) for name, board in boards().items() for panel in board["panels"]
            if panel["type"] != "row"]  # fmt: skip


def expressions() -> list[tuple[str, str]]:
    """(where, expression) of every query and annotation."""
    found = [(f"{name}: {panel['title']}", target["expr"])
             for name, panel in panels() for target in panel["targets"]]  # fmt: skip
    found += [(f"{name}: {mark['name']}", mark["expr"]) for name, board in boards().items()
              for mark in board["annotations"]["list"]]  # fmt: skip
    return found


def test_committed_files_are_what_the_code_builds() -> None:
    assert build.differing(build.COMMITTED) == []


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    shutil.copytree(build.COMMITTED, tmp_path / "g")
    path = tmp_path / "g/dashboards/training.json"
    path.write_text(path.read_text().replace("Losses", "losses"))
    (tmp_path / "g/dashboards/cluster.json").unlink()
    shutil.rmtree(tmp_path / "g/provisioning/datasources")
    with pytest.raises(DataError) as refused:
        dashboards(tmp_path / "g", check=True)
    assert str(refused.value).startswith(
        "dashboards/cluster.json, dashboards/training.json, provisioning/datasources/sunpipe.yml in"
    )


def test_every_file_for_grafana_is_written(tmp_path: Path) -> None:
    written = {str(path.relative_to(tmp_path)) for path in build.write(tmp_path)}
    assert written == {
        "dashboards/cluster.json", "dashboards/training.json", "dashboards/hardware.json",
        "provisioning/datasources/sunpipe.yml", "provisioning/dashboards/sunpipe.yml",
    }  # fmt: skip
    assert build.differing(tmp_path) == []


def test_without_builders_one_line_says_where_the_built_ones_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.startswith("hpc.monitor.dashboards.")]:
        if name.rpartition(".")[2] in ("cluster", "training", "hardware", "frame", "panels"):
            monkeypatch.delitem(sys.modules, name)
            monkeypatch.delattr(f"hpc.monitor.dashboards.{name.rpartition('.')[2]}")
    for name in [name for name in sys.modules if name.startswith("grafana_foundation_sdk")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grafana_foundation_sdk", None)
    with pytest.raises(SunpipeError, match="needs grafana-foundation-sdk") as refused:
        dashboards(tmp_path)
    assert str(build.COMMITTED) in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_times_back() -> None:
    assert [seconds(text) for text in ("90s", "30m", "6h", "2d")] == [90, 1800, 21600, 172800]
    for wrong in ("6", "h", "-1h", "1w", "6 h"):
        with pytest.raises(UsageError, match="is no time"):
            seconds(wrong)


def test_every_panel_says_what_bad_looks_like() -> None:
    silent = [f"{name}: {panel['title']}" for name, panel in panels()
              if len(panel["description"]) < 15]  # fmt: skip
    assert silent == []
    told = [panel for _, panel in panels() if "Bad:" in panel["description"]]
    assert len(told) >= 0.85 * len(panels())


def test_ids_uids_and_places_are_sound() -> None:
    assert {board["uid"] for board in boards().values()} == {
        "sunpipe-cluster", "sunpipe-training", "sunpipe-hardware"}  # fmt: skip
    for name, board in boards().items():
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids), name
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                     for y in range(at["y"], at["y"] + at["h"])}  # fmt: skip
            assert not taken & cells, f"{name}: {panel['title']} lies on another panel"
            assert at["x"] + at["w"] <= 24, panel["title"]
            taken |= cells


def test_marks_look_back_over_a_whole_step() -> None:
    """Grafana's step for annotations grows with the time shown; `[2m]` would miss events."""
    marks = [mark for board in boards().values() for mark in board["annotations"]["list"]]
    assert len(marks) == 5
    for mark in marks:
        assert re.findall(r"\[([^]]*)\]|offset (\S+?)\)", mark["expr"]) in (
            [("$__rate_interval", "")], [("", "$__rate_interval")]), mark["name"]  # fmt: skip


def test_units_are_ones_that_the_preview_knows() -> None:
    from hpc.monitor.preview_numbers import SCALES

    used = {panel["fieldConfig"]["defaults"]["unit"] for _, panel in panels()}
    assert used <= set(SCALES)


def test_variables_used_are_defined_and_defined_are_used() -> None:
    built_in = {"__rate_interval", "__interval", "__range"}
    for name, board in boards().items():
        defined = {entry["name"] for entry in board["templating"]["list"]} - {"datasource"}
        text = json.dumps([[target["expr"] for target in panel["targets"]]
                           for panel in board["panels"] if panel["type"] != "row"])  # fmt: skip
        used = set(re.findall(r"\$(\w+)", text)) - built_in
        assert used == defined, name
        for panel in board["panels"]:
            if panel["type"] != "row":
                assert panel["datasource"]["uid"] == "${datasource}"
                assert all(t["datasource"]["uid"] == "${datasource}" for t in panel["targets"])


def test_links_lead_to_dashboards_and_variables_that_exist() -> None:
    known = {board["uid"]: {entry["name"] for entry in board["templating"]["list"]}
             for board in boards().values()}  # fmt: skip
    links = re.findall(r"/d/([\w-]+)\?var-(\w+)=", json.dumps(boards()))
    assert {("sunpipe-training", "run"), ("sunpipe-hardware", "slurm_job")} <= set(links)
    whole = re.findall(r'"(/d/[^"]+)"', json.dumps(boards()))
    assert len(whole) == 3
    assert all("&${datasource:queryparam}&${__url_time_range}" in link for link in whole)
    assert all(variable in known[uid] for uid, variable in links)


def test_metrics_exist() -> None:
    faults = [f"{where}: {name}" for where, expr in expressions()
              for name in sorted(unknown_names(expr))]  # fmt: skip
    assert faults == []
    assert all(metric_names(expr) for _, expr in expressions())
    assert unknown_names("sunpip_train_kimg{run='$run'}[$__rate_interval]") == {"sunpip_train_kimg"}


def test_every_metric_of_a_run_is_on_a_dashboard() -> None:
    shown = {name for _, expr in expressions() for name in metric_names(expr)}
    left = {name for name in served_names() if name.startswith(("sunpipe_train", "sunpipe_fetch"))}
    by_rules = {"sunpipe_train_data_wait_seconds", "sunpipe_train_started_timestamp_seconds"}
    assert left - shown == by_rules  # they stand behind recorded ratios and ages


def test_every_recorded_or_foreign_name_is_read() -> None:
    read = {name for _, expr in expressions() for name in metric_names(expr)}
    read |= {name for file in RULES for _, expr in rules_of(shipped(file))
             for name in metric_names(expr)}  # fmt: skip
    foreign = {name for names in DIALECTS.values() for name in names}
    assert (set(RECORDED) | foreign) - read == set()


def test_panels_read_what_is_recorded_rather_than_what_it_is_made_of() -> None:
    sources = {name for rule, expr in rules_of(shipped(RULES[0])) if rule.startswith("sunpipe:gpu_")
               or rule.startswith("sunpipe:node_") for name in metric_names(expr)}  # fmt: skip
    raw = {name for name in sources if "infiniband" not in name}  # recorded with Ethernet only
    counted = [(where, name) for where, expr in expressions()
               for name in sorted(metric_names(expr) & raw)]  # fmt: skip
    assert counted == [("hardware: Load per core", "node_cpu_seconds_total")]  # counts the cores


def test_a_number_is_that_of_now() -> None:
    """A range query would show the last value of hours ago when nothing is scraped any more."""
    numbers = [panel for _, panel in panels() if panel["type"] in ("stat", "bargauge", "table")]
    assert len(numbers) > 30
    assert all(target["instant"] and not target.get("range")
               for panel in numbers for target in panel["targets"])  # fmt: skip
    legends = {tuple(panel["options"]["legend"]["calcs"]) for _, panel in panels()
               if panel["type"] == "timeseries"}  # fmt: skip
    assert legends == {("last",)}  # Grafana puts a null behind a curve that ended


def test_every_state_of_a_run_has_its_colour() -> None:
    (state,) = [panel for _, panel in panels() if panel["title"] == "State"]
    colours = {each["matcher"]["options"]: each["properties"][0]["value"]["fixedColor"]
               for each in state["fieldConfig"]["overrides"]}  # fmt: skip
    assert set(TRAIN_STATES) <= set(colours)
    assert colours["failed"] == colours["lost"] == "red"


def test_restarts_follow_the_partition() -> None:
    (jobs,) = [panel for _, panel in panels() if panel["title"] == "Jobs"]
    assert all('partition=~"$partition"' in target["expr"] for target in jobs["targets"])
