"""Pages about runs: one alone, several compared, on really trained generators."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from sunpipe.errors import DataError, UsageError
from sunpipe.paths import Layout
from sunpipe.report.cli import report as command
from sunpipe.report.folders import resolve
from sunpipe.report.runs import plan_runs, report_runs
from sunpipe.run import read_stats
from tests.conftest import run_json
from tests.integration.test_report import HOSTILE, Page, chromium

ONE = {"card", "training", "quality", "progress", "compare", "directions", "search", "scorecard",
       "cost", "timings", "reproduce"}  # fmt: skip
SEVERAL = {"vs_glance", "vs_settings", "vs_curves", "vs_final", "vs_samples", "vs_progress",
           "vs_directions", "vs_search", "vs_data", "vs_origin"}  # fmt: skip
METRIC = {"fd_random": 50.0, "spectrum_db": 3.0, "images": 64, "not_finite": 0.0, "seconds": 1.0}


def change(path: Path, **keys: Any) -> None:
    """Replace keys of a JSON object."""
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**old, **keys}))


def evaluated(run: Path, mean: float) -> None:
    """What ``sunpipe evaluate generator`` leaves behind, and distances of two moments."""
    rows = [{"nimg": nimg, "kimg": nimg / 1000, **METRIC} for nimg in (32, 64)]
    (run / "metric-generator.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "metrics").mkdir()
    change(run / "metrics/generator-kimg-000000.064.json", kimg=0.064, count=64, seeds=[0, 1, 2],
           side_mm=46.6, scale={"real_halves": None, "held_out": None},
           metrics={"fd_random": {"mean": mean, "spread": 0.5}})  # fmt: skip


def second(root: Path) -> Path:
    """A run like the first with another learning rate, more speed, and hostile words in it."""
    run = root / "runs/00001-tiny"
    shutil.copytree(root / "runs/00000-tiny", run)
    config = json.loads((run / "config.json").read_text())
    config["train"]["lr_g"] = 0.123
    config[HOSTILE] = HOSTILE
    change(run / "config.json", **config)
    change(run / "status.json", state=HOSTILE, reason=HOSTILE, signal=HOSTILE, requeues=3)
    change(run / "provenance.json", host=HOSTILE, command=[HOSTILE], git=HOSTILE)
    change(run / "plan.json", gpu=HOSTILE, memory_bytes=9e8, parts={HOSTILE: 1e6})
    (run / f"hang-{HOSTILE.replace('/', '')}.txt").write_text("stack")
    with open(run / "log.txt", "a", encoding="utf-8") as handle:
        handle.write(f"warning: {HOSTILE}\nresumed from kimg-000000.032\n")
    rows = [{**row, "tick_s": 360.0, "energy_j": 3.6e6} for row in read_stats(run)]
    (run / "stats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


@pytest.fixture(scope="module")
def twins(tiny_run_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with two runs of one dataset. Do not write to it."""
    root = tmp_path_factory.mktemp("twins") / "root"
    shutil.copytree(tiny_run_root, root)
    run = second(root)
    evaluated(root / "runs/00000-tiny", 40.0)
    evaluated(run, 50.0)
    return root


@pytest.fixture(scope="module")
def made(twins: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What the command said of the comparison, and the copy that was asked for."""
    out = tmp_path_factory.mktemp("out") / "mailed.html"
    return out, run_json("report", "00000-tiny", "1", "--out", out, root=twins)


def self_contained(path: Path) -> Page:
    """The page, once it is whole, small, and loads and runs nothing."""
    page = Page(path)
    source = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 2e6
    assert len(set(page.ids)) == len(page.ids), "an id stands twice"
    assert not page.all("script") + page.all("link")
    assert not re.search(r"url\((?!#)", source)
    for _, attrs in page.tags:
        assert not any(key.startswith("on") for key in attrs), attrs
        for key in ("src", "href", "srcset"):
            value = attrs.get(key)
            assert value is None or value.startswith(("#", "data:image/png;base64,")), value
    for word in ("nan", "None", "Undefined", "inf"):
        assert not re.search(rf"\b{word}\b", page.text), word
    return page


def test_a_comparison_says_what_differs(made: tuple[Path, dict[str, Any]], twins: Path) -> None:
    out, result = made
    assert set(result["sections"]) == SEVERAL
    assert set(result["sections"].values()) == {"current"}
    assert result["notes"] == []
    assert result["best"] == {"fd_random": "00000-tiny"}
    assert result["report"] == str(twins / "reports/compare-00000-tiny-00001-tiny/report.html")
    assert result["out"] == str(out)
    assert out.read_bytes() == Path(result["report"]).read_bytes()
    page = self_contained(out)
    text = page.text.replace("\u00a0", " ")
    assert "Curves on each other: 00000-tiny, 00001-tiny." in text, "they are copies"
    for words in ("train.lr_g", "0.123", "40.00 ± 0.50", "Restarted by itself", "The latents of a"
                  " column are the same", "All runs were trained on the same images"):  # fmt: skip
        assert words in text, words
    assert text.count("<script>alert(1)</script>") >= 5, "hostile words are shown"
    assert "sunpipe" not in [attrs.get("src") for attrs in page.all("img")]
    alts = [str(attrs.get("alt")) for attrs in page.all("img")]
    assert sum("kimg" in alt for alt in alts) == 2, "a grid of each run"
    assert len(alts) == 24 + 2
    assert str(twins) not in out.read_text(encoding="utf-8"), "no path of this machine"


def test_made_again_only_when_something_changes(
    made: tuple[Path, dict[str, Any]], twins: Path, root: Path
) -> None:
    shutil.copytree(twins, root, dirs_exist_ok=True)
    layout = Layout.current()
    runs = resolve(layout, ["1"])
    assert not plan_runs(runs)["up_to_date"]
    assert not (root / "reports/00001-tiny").exists()
    first = report_runs(runs)
    assert plan_runs(runs)["up_to_date"]
    again = report_runs(runs)
    assert {**again, "skipped": False} == first
    assert again["skipped"]
    (root / "runs/00001-tiny/hang-2.txt").write_text("stack")
    assert not plan_runs(runs)["up_to_date"]
    change(root / "runs/00001-tiny/status.json", state="running")
    assert not plan_runs(resolve(layout, ["1"]))["up_to_date"]

    assert set(first["sections"]) == ONE
    assert first["sections"] | {"search": "missing", "scorecard": "missing"} == first["sections"]
    for key in ("card", "training", "quality", "progress", "cost", "timings", "reproduce"):
        assert first["sections"][key] == "current", key
    page = self_contained(Path(first["report"]))
    text = page.text.replace("\u00a0", " ")
    assert "50.00 ± 0.50" in first["facts"][0]
    assert "node-hours" in first["facts"][1]
    for words in ("kWh", "Plan against actual", "900.0 MB", "hang-", "sunpipe sample -c",
                  "Measured 2 times while training", "Configuration of the run"):  # fmt: skip
        assert words in text, words
    assert text.count("<script>alert(1)</script>") >= 6


def test_a_run_of_another_root_is_reported_here(
    twins: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its experiment is called like a number, which is a name."""
    out = tmp_path / "sub" / "page.html"
    bare = tmp_path / "there/runs/00000-tiny"
    shutil.copytree(twins / "runs/00000-tiny", bare)
    (bare / "provenance.json").unlink()
    change(bare / "config.json", name="1024")
    command(runs=[str(bare)], out=out, json_=True)
    result = json.loads(capsys.readouterr().out)
    assert Path(result["report"]).parent.parent == root / "reports"
    assert result["sections"]["card"] == "missing"
    assert result["sections"]["training"] == result["sections"]["cost"] == "current"
    assert "Not made yet" in self_contained(out).text
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_the_command_refuses_clearly(twins: Path, monkeypatch: pytest.MonkeyPatch,
                                     tmp_path: Path) -> None:  # fmt: skip
    monkeypatch.setenv("SUNPIPE_ROOT", str(twins))
    with pytest.raises(UsageError, match=r"no run 'x'; there are 00000-tiny, 00001-tiny"):
        command(runs=["x"])
    with pytest.raises(UsageError, match="not both"):
        command(runs=["0"], set_=["name=a"])
    with pytest.raises(UsageError, match="is a folder; name a file"):
        command(runs=["0"], out=tmp_path)
    with pytest.raises(UsageError, match="is no file; the page would take its place"):
        command(runs=["0"], out=Path("/dev/null"))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        command(runs=["0", "1"], out=tmp_path / "file/page.html")


def test_damage_costs_its_section_only(twins: Path, root: Path) -> None:
    shutil.copytree(twins, root, dirs_exist_ok=True)
    run = root / "runs/00001-tiny"
    change(run / "status.json", state="failed", reason=f"{run}/checkpoints: no space left")
    with open(run / "log.txt", "a", encoding="utf-8") as handle:
        handle.write(f"warning: {run}/stats.jsonl is slow\n")
    alone = report_runs(resolve(Layout.current(), ["1"]))
    page = self_contained(Path(alone["report"])).text
    assert "00001-tiny failed: runs/00001-tiny/checkpoints: no space left" in page
    assert "runs/00001-tiny/stats.jsonl is slow" in page
    assert str(root) not in page, "no path of this machine"
    (run / "metric-generator.jsonl").write_text("torn\n{}\n")
    (run / "plan.json").write_text("[")
    (run / "checkpoints/latest").unlink()
    for folder in run.glob("checkpoints/kimg-*"):
        shutil.rmtree(folder)
    found = report_runs(resolve(Layout.current(), ["0", "1"]))
    states = found["sections"]
    assert {key for key, state in states.items() if state == "broken"} == {
        "vs_glance", "vs_curves"}  # fmt: skip
    assert states["vs_samples"] == "current", "of the run that has a checkpoint"
    text = self_contained(Path(found["report"])).text
    assert "Not readable" in text
    assert "runs/00001-tiny has no complete checkpoint" in text
    assert str(root) not in text, "no path of this machine"
    assert found["notes"] == ["00001-tiny failed: runs/00001-tiny/checkpoints: no space left"]
    shutil.rmtree(root / "runs/00000-tiny/checkpoints")
    found = report_runs(resolve(Layout.current(), ["0", "1"]))
    assert found["sections"]["vs_samples"] == "missing", "it is not damaged, it is not there"


def test_encoders_are_compared_with_encoders(root: Path) -> None:
    for number, rate in ((0, 0.1), (1, 0.2)):
        run = root / f"runs/0000{number}-e-ssl"
        run.mkdir(parents=True)
        change(run / "config.json", kind="ssl", ssl={"method": "vicreg", "batch": 16, "lr": rate},
               data={"name": "tiny", "id": f"{number}" * 64})  # fmt: skip
        rows = [{"nimg": 64 * k, "kimg": 0.064 * k, "sec_per_kimg": 2.0, "loss": rate / k,
                 "collapse": 0.5} for k in range(1, 5)]  # fmt: skip
        (run / "stats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = resolve(Layout.current(), ["0", "1"])
    found = report_runs(runs)
    assert "different versions of dataset tiny" in found["notes"][0]
    page = self_contained(Path(found["report"]))
    assert "Mind:" in page.text
    assert "ssl.lr" in page.text
    alone = report_runs(runs[:1])
    assert set(alone["sections"]) == {"card", "training", "scorecard", "cost", "reproduce"}
    assert alone["sections"]["training"] == "current"
    assert "loss of vicreg" in self_contained(Path(alone["report"])).text


@pytest.mark.browser
def test_a_comparison_fits_a_laptop(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    source = made[0].read_text(encoding="utf-8")
    probe = """<script>addEventListener("load", () => {
      const images = [...document.images], charts = [...document.querySelectorAll("svg")];
      document.body.dataset.probe = JSON.stringify({
        empty: images.filter(i => !i.naturalWidth).length, charts: charts.length,
        flat: charts.filter(c => c.getBoundingClientRect().height < 40).length,
        wide: document.documentElement.scrollWidth - innerWidth});
    })</script>"""
    policy = "default-src 'none';"
    assert source.count(policy) == 1
    copy = tmp_path / "copied.html"
    copy.write_text(source.replace(policy, f"{policy} script-src 'unsafe-inline';")
                    .replace("</body>", probe + "</body>"), encoding="utf-8")  # fmt: skip
    done = chromium(copy, tmp_path, "--dump-dom", "--window-size=1024,768")
    match = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert match, done.stderr
    found = json.loads(match[1].replace("&quot;", '"'))
    assert found["charts"] >= 8
    assert (found["empty"], found["flat"]) == (0, 0)
    assert found["wide"] <= 0, "the page scrolls sideways"
    assert "CONSOLE" not in done.stderr, done.stderr
