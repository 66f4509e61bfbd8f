"""The arithmetic of the preview page: units, ticks, paths, rows."""

from __future__ import annotations

import re

import pytest

from hpc.monitor import preview_numbers as numbers
from hpc.monitor.preview import NONE, chosen, refuse_idle, substituted
from hpc.monitor.preview_chart import Window, area, bounds, chart, dots, legend, path, stack
from hpc.monitor.preview_model import Choice, Header, Panel, load
from hpc.monitor.preview_panels import drawn, giver, table
from hpc.monitor.preview_source import Client, Series
from sunpipe.errors import SunpipeError, UsageError


def panel(**changes: object) -> Panel:
    given: dict[str, object] = {
        "kind": "timeseries", "title": "t", "description": "d", "unit": "short", "width": 8,
        "targets": (), "low": None, "high": None, "decimals": None, "steps": (), "lined": False,
        "stacked": False, "stairs": False, "named": False, "none": "no data",
        "colours": {}, "headers": (), "sort": None,
    }  # fmt: skip
    return Panel(**{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "unit", "text"), [
    (0, "short", "0"), (1234567, "short", "1.23 M"), (999, "short", "999"), (0.5, "short", "0.500"),
    (-1.5, "short", "−1.50"), (float("nan"), "short", "–"), (2**30, "bytes", "1 GiB"),
    (0.156, "percentunit", "15.6 %"), (0.0, "bytes", "0 B"), (25.9, "s", "25.9 s"),
    (41.4, "dtdurations", "41 s"), (76320, "dtdurations", "21 h 12 min"),
    (90061, "dtdurations", "1 d 1 h"), (3599.9, "dtdurations", "1 h 0 min"),
    (7, "apples", "7 apples"),
    (1e-7, "short", "1.00e−07"),
])  # fmt: skip
def test_values_with_units(value: float, unit: str, text: str) -> None:
    assert numbers.text(value, unit).replace("\u00a0", " ") == text


@pytest.mark.parametrize(("low", "high", "unit", "labels"), [
    (0, 100, "short", ["0", "20", "40", "60", "80", "100"]),
    (0, 1, "percentunit", ["0", "20 %", "40 %", "60 %", "80 %", "100 %"]),
    (-1.2, 1.2, "short", ["−1.0", "−0.5", "0", "0.5", "1.0"]),
    (0, 4 * 2**30, "bytes", ["0", "1 GiB", "2 GiB", "3 GiB", "4 GiB"]),
    (0, 3600, "dtdurations", ["0", "15 min", "30 min", "45 min", "60 min"]),
    (0, 5000, "short", ["0", "1 k", "2 k", "3 k", "4 k", "5 k"]),
])  # fmt: skip
def test_ticks_are_round(low: float, high: float, unit: str, labels: list[str]) -> None:
    found = numbers.ticks(low, high, unit)
    assert [label.replace("\u00a0", " ") for _, label in found] == labels
    assert all(low - 1e-9 <= place <= high * (1 + 1e-9) for place, _ in found)


def test_moments_are_round_and_inside() -> None:
    start = 1_800_000_123.0
    for length, form in ((120, r"\d\d:\d\d:\d\d"), (21600, r"\d\d:\d\d"), (864000, r"\w{3} \d\d")):
        found = numbers.moments(start, start + length)
        assert 3 <= len(found) <= 7
        assert all(start <= moment <= start + length for moment, _ in found)
        assert all(re.fullmatch(form, label) for _, label in found)


def test_curves_break_where_samples_are_missing() -> None:
    window = Window(0, 100, 10)
    drawn = path([(0, 0.0), (10, 1.0), (50, 1.0), (60, 0.5)], window, 0, 1)
    assert drawn == "M0.0 300.0h0L100.0 0.0M500.0 0.0h0L600.0 150.0"
    assert path([(0, 0.0), (10, 1.0)], window, 0, 1, stairs=True) == "M0.0 300.0h0H100.0V0.0"


def test_a_sample_that_stands_alone_is_a_dot() -> None:
    window = Window(0, 100, 10)
    points = [(0.0, 0.0), (10.0, 1.0), (50.0, 1.0)]
    assert dots(points, window, 0, 1) == "M500.0 0.0h0"
    (curve,) = chart(panel(low=0.0, high=1.0), [("a", points)], window, ())["curves"]
    assert curve["dots"].startswith("M500.0 ")
    assert dots(points[:2], window, 0, 1) == ""


def test_stacked_curves_stand_on_each_other() -> None:
    first, second = stack([[(0, 1.0), (10, 2.0)], [(10, 3.0)]])
    assert second == ([(10, 2.0)], [(10, 5.0)])
    assert area(*first, Window(0, 10, 10), 0, 4) == (
        "M0.0 225.0L1000.0 150.0L1000.0 300.0L0.0 300.0Z")  # fmt: skip


def test_areas_break_where_curves_do() -> None:
    window = Window(0, 1000, 100)
    points = [(float(moment), 1.0) for moment in (0, 100, 200, 800, 900, 1000)]
    shown = chart(panel(stacked=True), [("idle", points)], window, ())
    assert shown["curves"][0]["line"].count("M") == 2
    assert shown["curves"][0]["area"].count("Z") == 2


def test_numbers_of_the_past_are_not_those_of_now() -> None:
    window = Window(0, 21600, 60)
    (gpus,) = [one for board in load(("cluster",)) for group in board.groups
               for one in group.panels if one.title == "Idle GPUs"]  # fmt: skip

    class Quiet:
        """A Prometheus that scrapes nothing any more."""

        def newest(self, expr: str, at: float) -> list[Series]:
            return []

        def over(self, expr: str, start: float, end: float, step: float) -> list[Series]:
            return [Series({}, ((0.0, 8.0), (60.0, 8.0)))]

    known = {"sunpipe:gpus:count"}
    shown = drawn(gpus, Quiet(), window, str, known, ())  # type: ignore[arg-type]
    assert shown["kind"] == "empty"
    assert "without such a value at this moment" in shown["why"]
    old = chart(panel(), [("idle", [(0.0, 8.0), (60.0, 8.0)])], window, ())
    assert old["legend"][0]["last"] == numbers.DASH
    new = chart(panel(), [("idle", [(0.0, 8.0), (21600.0, 9.0)])], window, ())
    assert new["legend"][0]["last"] == "9"


@pytest.mark.parametrize(
    "url", ["http://h:port", "http://[::1", "http://", "h:9090", "http://me:secret@h:99999"]
)
def test_a_mistyped_address_is_one_line(url: str) -> None:
    with pytest.raises(SunpipeError, match="is no address of a Prometheus") as refused:
        Client(url)
    assert "secret" not in str(refused.value)


class Runs:
    """A Prometheus that has seen two runs: one ended before its job was seen."""

    def label_values(self, metric: str, label: str, start: float, end: float) -> list[str]:
        return {
            ("sunpipe_slurm_job_nodes_info", "slurm_job"): ["776", "777", "778"],
            ("sunpipe_train_info", "run"): ["00000-ended", "00001-b"],
            ('sunpipe_train_info{run="00001-b"}', "slurm_job"): ["776", "777"],
        }.get((metric, label), [])


def test_a_run_never_shows_the_hardware_of_another() -> None:
    job = Choice("slurm_job", "Job", "sunpipe_slurm_job_nodes_info", "slurm_job", False, "", True)

    def shown(run: str, asked: str | None = None) -> tuple[str, str]:
        options = {"run": run, "slurm_job": asked}
        return chosen(job, Runs(), Window(0, 600, 5), {}, options)  # type: ignore[arg-type]

    assert shown("00000-ended") == (NONE, NONE)
    assert shown("00001-b") == ("777", "777")  # its newest
    assert shown("00001-b", "778") == ("778", "778")
    with pytest.raises(UsageError, match="knows no run 'x'; it has seen: 00001-b, 00000-ended"):
        shown("x")


def test_options_that_no_dashboard_takes_are_refused() -> None:
    boards = {name: load((name,)) for name in ("cluster", "training", "hardware")}
    for name, option in (("cluster", "run"), ("cluster", "slurm_job"), ("training", "slurm_job")):
        with pytest.raises(UsageError, match=rf"chooses what .* show.*, not {name}"):
            refuse_idle(boards[name], {"run": None, "slurm_job": None, option: "1"})
    refuse_idle(boards["hardware"], {"run": "a", "slurm_job": "1"})
    refuse_idle(boards["cluster"] + boards["training"], {"run": "a", "slurm_job": None})


def test_who_offers_a_metric() -> None:
    assert giver("sunpipe_train_kimg", set()) == "sunpipe monitor serve."
    assert giver("node_load1", set()) == "node_exporter on the nodes."
    assert giver("sunpipe:gpu_power:watts", set()) == (
        "recording.rules.yml, made of what dcgm-exporter on the nodes tells.")  # fmt: skip
    assert giver("sunpipe:gpus:count", set()).endswith(
        " made of what sunpipe monitor serve (where there is Slurm) tells.")  # fmt: skip
    assert "loaded?" in giver("sunpipe:gpu_power:watts", {"DCGM_FI_DEV_POWER_USAGE"})
    loaded = {"sunpipe_train_state", "sunpipe:train_data_wait:ratio"}  # of runs that are done
    assert giver("sunpipe:train_quiet:seconds", loaded).startswith(
        "recording.rules.yml, which had nothing to record: Since the last tick of a running"
    )


def test_axis_holds_all_samples_and_a_near_limit() -> None:
    points = [[(0.0, 5.0), (1.0, 8.0)]]
    low, high = bounds(panel(), points)
    assert low < 5 < 8 < high
    near = panel(low=0.0, lined=True, steps=((float("-inf"), "green"), (10.0, "red")))
    assert bounds(near, points)[0] == 0
    assert bounds(near, points)[1] > 10
    far = panel(low=0.0, lined=True, steps=((100.0, "red"),))
    assert bounds(far, points)[1] < 10
    assert bounds(panel(high=6.0), points)[1] > 8  # never cut off
    assert bounds(panel(low=0.0), [[(0.0, 0.0)]]) == (0.0, 1.0)
    assert bounds(panel(low=0.0), [[(0.0, 0.02), (1.0, 0.02 + 1e-12)]])[1] > 0.021


def test_names_of_series() -> None:
    assert legend("{{node}} GPU {{gpu}}", {"node": "a", "gpu": "1"}, "x") == "a GPU 1"
    assert legend("{{name}} {{feature}}", {"name": "db"}, "x") == "db"
    assert legend("__auto", {}, "x") == "x"


def test_variables_are_replaced() -> None:
    window = Window(0, 21600, 68)
    filled = substituted('a{r="$run"}[$__rate_interval] ${run}', {"run": "x"}, window)
    assert filled == 'a{r="x"}[83s] x'


def test_answers_are_joined_into_rows() -> None:
    headers = (Header("run", "run", ""), Header("state", "state", ""),
               Header("Value #B", "kimg", "short"))  # fmt: skip
    shown = panel(kind="table", headers=headers, sort=("run", True))
    rows = table(shown, {
        "A": [Series({"run": "9-a", "state": "done"}, ((0, 1.0),)),
              Series({"run": "10-b", "state": "running"}, ((0, 1.0),))],
        "B": [Series({"run": "10-b"}, ((0, 5.0),)), Series({"run": "11-c"}, ((0, 6.0),))],
    })  # fmt: skip
    assert [[text for text, _ in row] for row in rows] == [
        ["11-c", "", "6"], ["10-b", "running", "5"], ["9-a", "done", ""]]  # fmt: skip
