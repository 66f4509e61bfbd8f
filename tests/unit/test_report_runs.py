"""Parts of the report on runs, on plain values: who is meant, cost, plan, faults, differences."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sunpipe.config import load_config
from sunpipe.errors import DataError, UsageError
from sunpipe.paths import Layout
from sunpipe.report import numbers
from sunpipe.report.charts import BLUE, thin
from sunpipe.report.cost import cost, hosts, starts, tick_hours
from sunpipe.report.faults import faults
from sunpipe.report.folders import config_of, kind, labels, layout_of, resolve
from sunpipe.report.lines import Line, apart, calm, lines_chart
from sunpipe.report.over_time import alike
from sunpipe.report.planned import LABELS, planned
from sunpipe.report.principal import principal
from sunpipe.report.progress import small, spaced
from sunpipe.report.quality import Measured, measured, table
from sunpipe.report.runfolder import RunFolder, read_run
from sunpipe.report.runs import fingerprint, folder_of
from sunpipe.report.scorecard import extract
from sunpipe.report.settings_diff import differences
from sunpipe.report.spent import cost_rows, energy, several
from sunpipe.report.training import cost as pace
from sunpipe.report.typed import CONFIG, SET, command, options, typed
from sunpipe.report.verdict import failure
from sunpipe.report.versus import glance, notes
from sunpipe.report.winners import best, measured_rows

DATA = {"dataset": "tiny", "dataset_id": "a" * 64, "channels": ["Br"], "resolution": 32}
START = (
    "00000-a: 71 images 3 x 32 x 32, G 0.1 M, D 0.1 M parameters, {} rank(s) (slurm), {}, ZeRO-1"
)


def tick(kimg: float, **more: Any) -> dict[str, Any]:
    return {"nimg": round(1000 * kimg), "kimg": kimg, "sec_per_kimg": 36.0, "loss_G": 0.7, **more}


def put(root: Path, folder: str, name: str = "a", rows: Any = (), **files: Any) -> Path:
    """A run folder; `files` are JSON (or text) by stem."""
    run = root / "runs" / folder
    run.mkdir(parents=True)
    config = {"schema": 1, "name": name, "seed": 0, "train": {"lr_g": 0.002}, "data": DATA}
    for stem, content in {"config": config, **files}.items():
        if stem == "log":
            (run / "log.txt").write_text(content)
        else:
            (run / f"{stem}.json").write_text(json.dumps(content))
    (run / "stats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


ROWS = [tick(1, time=1000.0), tick(2, time=1036.0), tick(3, time=5000.0)]


def test_runs_are_found_by_name_number_experiment_and_folder(root: Path, tmp_path: Path) -> None:
    old, new = put(root, "00000-a", rows=ROWS), put(root, "00001-a", rows=ROWS)
    other = put(tmp_path / "elsewhere", "00007-b", "b", rows=ROWS)
    layout = Layout.current()
    assert [run.folder for run in resolve(layout, ["00000-a", "1"])] == [old, new]
    assert resolve(layout, ["a"])[0].folder == new
    found = resolve(layout, [str(other), "0"])
    assert found[0].folder == other
    assert layout_of(found[0]).root == tmp_path / "elsewhere"
    assert folder_of(found[1:]) == root / "reports/00000-a"
    assert folder_of(found).parent == root / "reports"
    assert folder_of(found).name.startswith("compare-00007-b-00000-a-")
    six = [f"{'n' * 40}-{place}" for place in range(6)]
    many = [RunFolder(root / "runs" / name, {}, [], {}, {}) for name in six]
    assert len(folder_of(many).name) < 200


def test_a_folder_of_the_working_directory_does_not_hide_an_experiment(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = put(root, "00000-a", rows=ROWS)
    here = tmp_path / "here"
    (here / "a").mkdir(parents=True)
    monkeypatch.chdir(here)
    layout = Layout(root)
    assert resolve(layout, ["a"])[0].folder == run
    with pytest.raises(UsageError, match=r"\./a is not the folder of a run"):
        resolve(layout, ["./a"])
    copy = put(here, "x", rows=ROWS)
    copy.rename(here / "00000-a")
    assert resolve(layout, ["00000-a"])[0].folder == here / "00000-a"


def test_a_page_depends_on_the_newest_encoder(root: Path) -> None:
    runs = [read_run(put(root, f"0000{n}-a", rows=ROWS)) for n in range(2)]
    before = fingerprint(runs[:1]), fingerprint(runs)
    ssl = put(root, "00002-a-ssl", rows=ROWS)
    after = fingerprint(runs[:1]), fingerprint(runs)
    (ssl / "checkpoints").mkdir()
    (ssl / "checkpoints/latest").write_text("kimg-000003.000\n")
    last = fingerprint(runs[:1]), fingerprint(runs)
    assert len({before[0], after[0], last[0]}) == 3
    assert len({before[1], after[1], last[1]}) == 3


def test_what_cannot_be_reported_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    layout = Layout.current()
    with pytest.raises(UsageError, match=r"there is none .* run sunpipe train"):
        resolve(layout, ["a"])
    put(root, "00000-a", rows=ROWS)
    put(root, "00001-b")
    put(root, "00002-a-ssl", rows=ROWS, config={"kind": "ssl", "ssl": {}, "data": {
        "name": "tiny", "id": "a" * 64}})  # fmt: skip
    put(root, "00003-bad", rows=[{"nimg": "x"}])
    put(root, "00004-bad", rows=ROWS, config={"schema": 1})
    put(root, "00005-bad", rows=ROWS, config=[1])
    put(root, "00006-bad", "../x", rows=ROWS)
    put(root, "copy-of-mine", rows=ROWS)
    for asked, words in [
        (["c"], r"no run 'c'; there are 00000-a, .*, copy-of-mine"), (["../runs"], "no run"),
        ([str(tmp_path)], "no config.json"), (["0", "00000-a"], "00000-a is named twice"),
        (list("abcdefg"), "7 runs: more than 6"), ([""], "needs a name"),
        (["00000-a", "00002-a-ssl"], "no curve in common.*sunpipe report 00000-a, and"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=words):
            resolve(layout, asked)
    for asked, words in [
        ("1", "no tick yet"),
        ("3", "stats.jsonl:1 is not a tick"),
        ("4", "not that of sunpipe train"),
        ("5", "no JSON object"),
    ]:
        with pytest.raises(DataError, match=words):
            resolve(layout, [asked])
    with pytest.raises(DataError, match=r"00006-bad/config.json: name: must be lower-case"):
        config_of(resolve(layout, ["6"])[0])


def test_the_configuration_comes_from_the_run(root: Path) -> None:
    run = read_run(put(root, "00000-a", rows=ROWS))
    cfg = config_of(run)
    assert (cfg.name, cfg.dataset, cfg.report.title) == ("a", "tiny", "00000-a")
    assert kind(run) == "gan"
    ssl = read_run(put(root, "00001-a-ssl", rows=ROWS, config={
        "kind": "ssl", "ssl": {}, "data": {"name": "tiny", "id": "b" * 64}}))  # fmt: skip
    assert (config_of(ssl).name, kind(ssl)) == ("a", "ssl")
    (root / "index/a").mkdir(parents=True)
    (root / "index/a/index.json").write_text('{"encoder": {"orbit": false}}')
    assert config_of(run).embed.orbit is False


def test_an_encoder_in_a_folder_of_another_name_is_reported(root: Path) -> None:
    config = {"kind": "ssl", "ssl": {}, "data": {"name": "tiny", "id": "b" * 64}}
    for folder, name in (
        ("My encoder (2)", "my-encoder-2-"),
        ("00003-x-ssl", "x"),
        ("-", "encoder"),
    ):
        run = read_run(put(root, folder, rows=ROWS, config=config))
        assert config_of(run).name == name


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("-c configs/a.toml", "-c configs/a.toml"),
        ("-c configs/large.toml -cconfigs/a.toml", "-c configs/a.toml"),
        ("--config=a.toml -s name=b --set=a.b=2", "-c a.toml --set name=b --set a.b=2"),
        ("-c /home/me/a.toml --set fetch.email=me@here", "-c CONFIG"),
        ("-c a.toml -s fetch={email=*** --set name=b", "-c a.toml --set name=b"),
        ("--config -sa.toml --set -cb=1 --new", "-c -sa.toml --set -cb=1"),
        ("--new", "-c CONFIG"),
    ],
)  # fmt: skip
def test_the_commands_of_a_page_are_those_of_the_run(root: Path, words: str, line: str) -> None:
    made = {"command": ["/x/sunpipe/__main__.py", "train", *words.split()]}
    run = read_run(put(root, "00000-a", rows=ROWS, provenance=made))
    assert command("sample", *typed(run)) == f"sunpipe sample {line}"
    assert typed(read_run(put(root, "00001-a", rows=ROWS))) == (None, ())


def test_a_value_is_no_option() -> None:
    words = ["-sa=1", "--set", "--config"]
    assert (options(words, SET), options(words, CONFIG)) == (["a=1"], [])
    words = ["-c", "-sx.toml", "-s", "-cy=1", "--set=--config=z", "-s", "--set=b"]
    assert options(words, CONFIG) == ["-sx.toml"]
    assert options(words, SET) == ["-cy=1", "--config=z", "--set=b"]


@pytest.mark.parametrize("text", [
    "fetch.email=me@site.org", " fetch.email = 'me@site.org'", 'fetch={email="me@site.org"}',
    'fetch={url="http://x.org/", "email" = "me@site.org"}', "fetch.email=\nme@site.org",
])  # fmt: skip
def test_no_command_of_a_page_holds_an_email(text: str) -> None:
    load_config(None, [text.replace("\n", "")])  # it is one that works
    assert command("shard", None, ["seed=1", text]) == "sunpipe shard -c CONFIG --set seed=1"


def test_runs_of_the_same_folder_name_are_told_apart(tmp_path: Path, root: Path) -> None:
    one, two = (put(tmp_path / there / "root", "00000-a", rows=ROWS) for there in "xy")
    three = put(root, "00001-b", rows=ROWS)
    runs = resolve(Layout.current(), [str(one), str(two), "1"])
    assert [run.name for run in runs] == ["x/root/00000-a", "y/root/00000-a", "00001-b"]
    assert labels([three]) == ["00001-b"]
    assert labels([Path("/d/runs/00000-a"), Path("/d/00000-a")]) == ["runs/00000-a", "d/00000-a"]
    many = [Path(each) / "00000-a" for each in ("/", "/d", "/d/runs", "/runs", "/e/d", "/runs/d")]
    for places in itertools.permutations(range(len(many)), 3):
        assert len(set(labels([many[place] for place in places]))) == 3
    assert len(set(labels(many))) == len(many)
    link = root / "runs/00002-c"
    link.symlink_to(one)
    for asked in (str(link), "2"):
        assert layout_of(resolve(Layout.current(), [asked])[0]).root == root
    with pytest.raises(UsageError, match="named twice"):
        resolve(Layout.current(), [str(one), "2"])


@pytest.mark.parametrize(
    ("nodelist", "count"),
    [("", 0), ("n1", 1), ("gpu[01-04,7],login", 6), ("a[1-2]b[1-3]", 6), ("n1,n2,n3", 3),
     ("x[a-b]", 1)],
)  # fmt: skip
def test_nodes_of_a_slurm_list(nodelist: str, count: int) -> None:
    assert hosts(nodelist) == count


def test_hours_come_from_ticks_and_their_ranks(root: Path) -> None:
    rows = [tick(100, tick_s=3600.0, energy_j=7.2e6), tick(200), tick(300, rank_work_s=[1.0] * 16)]
    log = "\n".join([START.format(8, "cuda"), START.format(4, "cuda"),
                     "resumed from kimg-000100.000"])  # fmt: skip
    slurm = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NTASKS": "8"}
    run = read_run(put(root, "00000-a", rows=rows, log=log, provenance={"slurm": slurm},
                       status={"energy_j": 1.08e7}))  # fmt: skip
    assert starts(log) == [(0.0, 8, "cuda"), (100.0, 4, "cuda")]
    spent = cost(run)
    assert spent.hours.tolist() == [1.0, 1.0, 1.0]
    assert spent.ranks.tolist() == [8, 4, 16]
    assert spent.nodes.tolist() == [2, 1, 4]
    assert (spent.node_hours, spent.gpu_hours) == (7.0, 28.0)
    assert spent.spent.tolist() == [2.0, 3.0, 7.0]
    assert spent.kwh == pytest.approx(2.0)
    assert spent.metered == pytest.approx(1 / 3)
    text = energy(spent).replace(numbers.SPACE, " ")
    assert text == "2.00 kWh, of 33 % of the time; 3.00 kWh with what was done twice"
    assert several(spent.nodes) == "1 to 4"
    assert (spent.told, spent.node_hours_text) == (False, "about 7.00"), "later starts are guessed"
    bare = cost(read_run(put(root, "00001-a", rows=ROWS)))
    assert (bare.gpu_hours, bare.kwh, bare.node_hours) == (None, None, pytest.approx(0.03))
    assert energy(bare) == "not told by the devices"
    assert starts("e: vicreg, 9 patches, 0.128 of 4 kimg, 2 rank(s) (slurm), cpu") == [
        (0.128, 2, "cpu")]  # fmt: skip
    assert tick_hours([{"nimg": 10}, {"nimg": 20, "sec_per_kimg": float("inf")}]).tolist() == [0, 0]


def test_nodes_are_those_that_the_training_tells(root: Path) -> None:
    log = "\n".join([START.format(1, "cuda"), START.format(8, "cuda"), "resumed from kimg-000100"
                     ".000"])  # fmt: skip
    one, eight = [tick(100, tick_s=3600.0, rank_work_s=[1.0])], [1.0] * 8
    slurm = {"slurm": {"SLURM_JOB_NODELIST": "gpu01"}}
    told = cost(read_run(put(root, "00000-a", rows=[*one, tick(
        200, tick_s=3600.0, rank_work_s=eight, nodes=2)], log=log, provenance=slurm)))  # fmt: skip
    assert (told.nodes.tolist(), told.node_hours_text) == ([1, 2], "3.00")
    old = cost(read_run(put(root, "00001-a", rows=[*one, tick(
        200, tick_s=3600.0, rank_work_s=eight)], log=log, provenance=slurm)))  # fmt: skip
    assert (old.nodes.tolist(), old.node_hours_text) == ([1, 1], "about 2.00")
    first = cost(read_run(put(root, "00002-a", rows=[tick(100, tick_s=3600.0, rank_work_s=eight)],
                              log=START.format(8, "cuda"),
                              provenance={"slurm": {"SLURM_JOB_NODELIST": "n[1-2]"}})))  # fmt: skip
    assert first.node_hours_text == "2.00", "the job that made the run tells"


def test_interruptions_are_counted(root: Path) -> None:
    log = ("warning: logits are 21.3 apart\nwarning: logits are 9.1 apart\nresumed from kimg-000001"
           ".000\nwarning: few colours\n")  # fmt: skip
    folder = put(root, "00000-a", rows=[*ROWS[:2], {**ROWS[2], "skipped": 2.0}], log=log,
                 status={"state": "failed", "reason": "rank 3 hangs", "requeues": 4},
                 provenance={"time": "1970-01-01T00:16:00+00:00"})  # fmt: skip
    (folder / "hang-1.txt").write_text("stack")
    found = faults(read_run(folder))
    assert (found["continued"], found["requeues"], found["skipped"]) == (1, 4, 2.0)
    assert (found["reason"], found["hangs"], found["nonfinite"]) == (
        "rank 3 hangs", ["hang-1.txt"], None)  # fmt: skip
    assert [(row["count"], row["last"]) for row in found["warnings"]] == [
        (2, "logits are 9.1 apart"), (1, "few colours")]  # fmt: skip
    assert found["pauses"] == [{"kimg": 2, "seconds": 5000.0 - 1036 - 36}]
    assert found["lifetime_h"] == pytest.approx((5000 - 960) / 3600)
    quiet = faults(read_run(put(root, "00001-a", rows=[tick(1)])))
    assert (quiet["pauses"], quiet["warnings"], quiet["lifetime_h"]) == ([], [], None)


def test_plan_stands_beside_what_came(root: Path) -> None:
    rows = [tick(1, peak_memory_bytes=8e9, rank_peak_memory_bytes=[7e9, 1e10])]
    plan = {"memory_bytes": 9e9, "seconds_per_kimg": 45.0, "gpu": "A100-40GB",
            "parts": {"parameters": 1e9}, "checkpoint_bytes": 5e6}  # fmt: skip
    found = planned(read_run(put(root, "00000-a", rows=rows, plan=plan)))
    plain = [{key: text.replace(numbers.SPACE, " ") for key, text in row.items()}
             for row in found["rows"]]  # fmt: skip
    assert plain == [
        {"label": "Memory of a rank at its peak", "planned": "9.0 GB", "actual": "10.0 GB",
         "off": "−10.0 %"},
        {"label": "Time per kimg", "planned": "45.0 s", "actual": "36.0 s", "off": "+25.0 %"},
        {"label": "Size of a checkpoint", "planned": "5.0 MB", "actual": "–", "off": "–"},
    ]  # fmt: skip
    assert (found["gpu"], [name for name, _ in found["parts"]]) == ("A100-40GB", ["parameters"])
    none = planned(read_run(put(root, "00001-a", rows=rows)))
    assert (none["kept"], none["rows"][0]["planned"]) == (False, "–")
    with pytest.raises(DataError, match=r"plan\.json holds no JSON object"):
        planned(read_run(put(root, "00002-a", rows=rows, plan=[])))


def test_the_plan_is_that_of_the_last_start(root: Path) -> None:
    rows = [tick(1, peak_memory_bytes=9e9), tick(2, peak_memory_bytes=5e9, sec_per_kimg=60.0),
            tick(3, peak_memory_bytes=4e9, sec_per_kimg=60.0)]  # fmt: skip
    log = "\n".join([START.format(1, "cuda"), START.format(2, "cuda"), "resumed from kimg-000001"
                     ".000"])  # fmt: skip
    plan = {"memory_bytes": 5e9, "seconds_per_kimg": 60.0}
    found = planned(read_run(put(root, "00000-a", rows=rows, log=log, plan=plan)))
    assert (found["since"], found["ticks"]) == (1.0, 2)
    assert [row["off"].replace(numbers.SPACE, " ") for row in found["rows"]] == ["0.0 %"] * 2
    none = planned(read_run(put(root, "00001-a", rows=rows[:1], log=log, plan=plan)))
    assert (none["ticks"], {row["actual"] for row in none["rows"]}) == (0, {numbers.DASH})


def test_the_plan_itself_tells_its_start(root: Path) -> None:
    """The log may be torn, or not copied along."""
    rows = [tick(1, peak_memory_bytes=9e9), tick(2, peak_memory_bytes=5e9)]
    plan = {"memory_bytes": 5e9, "seconds_per_kimg": 36.0 * 0.9999, "from_nimg": 1000}
    found = planned(read_run(put(root, "00000-a", rows=rows, plan=plan)))
    assert (found["since"], found["ticks"]) == (1.0, 1)
    assert [row["off"].replace(numbers.SPACE, " ") for row in found["rows"]] == ["0.0 %"] * 2


def test_what_went_wrong_is_said(root: Path) -> None:
    rows = [tick(1, loss_D=1.4), {**tick(2), "loss_D": None}, {**tick(3), "loss_G": float("nan")}]
    failed = read_run(put(root, "00000-a", rows=rows, status={"state": "failed", "reason": "NaN."}))
    mute = read_run(put(root, "00001-a", rows=ROWS, status={"state": "failed"}))
    fine = read_run(put(root, "00002-a", rows=ROWS, status={"state": "done"}))
    assert failure(failed) == ["00000-a failed: NaN"]
    assert "does not say why" in failure(mute)[0]
    assert failure(fine) == []
    assert dict(pace(rows))["Loss not finite"] == "in 2 of 3 ticks"
    assert "Loss not finite" not in dict(pace(ROWS))
    assert notes([fine, failed]) == ["00000-a failed: NaN"]


def test_a_reason_names_no_place_of_this_machine(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    for number, place in enumerate((root, link)):
        name = f"0000{number}-a"
        reason = f"'{place}/runs/{name}/checkpoints': no space left; see /mnt{place}/x"
        put(root, name, rows=ROWS, status={"state": "failed", "reason": reason})
    runs = [read_run(root / "runs/00000-a"), read_run(link / "runs/00001-a")]
    left = [f"'runs/{run.name}/checkpoints': no space left; see /mnt{place}/x"
            for run, place in zip(runs, (root, link), strict=True)]  # fmt: skip
    assert dict(glance(runs)["rows"])["Failed"] == left
    assert notes(runs) == [f"00000-a failed: {left[0]}", f"00001-a failed: {left[1]}"]


def test_hours_that_nothing_tells_are_not_0(root: Path) -> None:
    rows = [{"nimg": 1000, "kimg": 1.0}, {"nimg": 2000, "kimg": 2.0, "sec_per_kimg": None}]
    run = read_run(put(root, "00000-a", rows=rows, log=START.format(8, "cuda")))
    told = dict(cost_rows(run, cost(run)))
    assert [told[key] for key in ("Time of all ticks", "Node-hours", "GPU-hours")] == [
        numbers.DASH] * 3  # fmt: skip
    one = {"nimg": 3000, "kimg": 3.0, "tick_s": 7200.0, "nodes": 2}
    part = cost(read_run(put(root, "00001-a", rows=[*rows, one])))
    assert part.node_hours_text == "at least 4.00"
    assert cost(read_run(put(root, "00002-a", rows=ROWS))).timed


def test_a_comparison_without_plans_says_so(root: Path) -> None:
    runs = [read_run(put(root, f"0000{n}-a", rows=ROWS)) for n in range(2)]
    found = glance(runs)
    off = {label: texts for label, texts in found["rows"] if label.endswith("plan off by")}
    assert off == dict.fromkeys((f"{label}: plan off by" for label in LABELS.values()),
                                [numbers.DASH] * 2)  # fmt: skip
    assert found["unplanned"] == ["00000-a", "00001-a"]


def test_runs_are_shown_at_the_same_moments() -> None:
    def drawn(*kimg: float) -> list[tuple[float, Path]]:
        return [(each, Path(f"{each}.png")) for each in kimg]

    moments, chosen = alike([drawn(*range(8, 137, 8), 136.016), drawn(4, 40, 80, 120.5)])
    assert moments == [4, 80, 120.5] or moments == [4, 40, 120.5]
    assert [grid and grid[0] for grid in chosen[0]] == [8, moments[1], 120]
    assert chosen[1] == drawn(*moments)
    moments, chosen = alike([drawn(8, 16, 24), drawn(20)])
    assert (moments, chosen) == ([20], [drawn(16), drawn(20)])
    moments, chosen = alike([drawn(8), drawn(32, 64)])
    assert chosen == [drawn(8), [None]], "none is shown as if it were of that moment"


def test_settings_that_differ_are_listed_by_dotted_key() -> None:
    one = {"name": "a", "train": {"lr": 0.1, "ada": {}, "aug": ["x"]}, "data": {"id": "c" * 64}}
    two = {"name": "b", "train": {"lr": 0.1, "ada": {"p": 1}, "aug": []}, "data": {"id": "d" * 64}}
    rows, same = differences([one, two])
    assert same == 1
    assert {row["key"]: row["values"] for row in rows} == {
        "train.ada": ["{}", "not set"], "train.aug": ['["x"]', "[]"],
        "data.id": ["c" * 12 + "…", "d" * 12 + "…"], "train.ada.p": ["not set", "1"],
    }  # fmt: skip
    assert differences([one, {**one, "name": "z"}]) == ([], 4)
    rows, same = differences([{"a": 1, "b": 2, "c": True, "d": None}, {"a": "1", "b": 2.0, "c": 1}])
    assert same == 1
    assert {row["key"]: row["values"] for row in rows} == {
        "a": ["1", '"1"'], "c": ["true", "1"], "d": ["null", "not set"]}  # fmt: skip
    assert all(row["differs"] == [False, True] for row in rows)


def test_best_is_said_only_beyond_the_error() -> None:
    assert best([7.0, 9.0, 8.5], [0.1, 0.1, 0.1]) == 0
    assert best([7.0, 7.2, 9.0], [0.1, 0.1, 0.1]) is None
    assert best([-0.1, 0.9], [0.1, 0.1]) == 0
    assert best([0.9, -0.1], [0.1, 0.1]) == 1, "of a signed distance 0 is best"
    assert best([7.0, float("nan")], [0.1, 0.1]) is None

    def run(mean: float, count: int) -> Measured:
        return Measured(1.0, count, 3, {"fd_random": mean}, {"fd_random": 0.1}, {}, None)

    assert measured_rows([run(1, 64), None, run(9, 64)], True)[0]["best"] == 0
    assert measured_rows([run(1, 64), run(9, 128)], True)[0]["best"] is None, (
        "other numbers of images"
    )
    assert measured_rows([run(1, 64), run(9, 64)], False)[0]["best"] is None, "other data"


def test_value_and_error_share_their_decimals() -> None:
    shown = [
        numbers.plus_minus(*pair).replace(numbers.SPACE, " ")
        for pair in (
            (7.4517, 0.09305),
            (351.2, 12.3),
            (-0.0495, 0.1156),
            (1.0, 0.0996),
            (2.0, float("nan")),
        )
    ]
    assert shown == ["7.452 ± 0.093", "351 ± 12", "−0.05 ± 0.12", "1.00 ± 0.10", "2.00"]
    assert numbers.plus_minus(None, 0.1) == numbers.DASH


def test_runs_of_another_kind_are_noted(root: Path) -> None:
    runs = [read_run(put(root, "00000-a", rows=ROWS)), read_run(put(root, "00001-b", rows=ROWS))]
    assert notes(runs) == []
    runs[1].config["data"] = {**DATA, "dataset_id": "b" * 64, "resolution": 64}
    runs[1].stats.append(tick(9))
    said = notes(runs)
    assert len(said) == 3
    assert "different versions of dataset tiny" in said[0]
    assert "different resolutions (32; 64)" in said[1]
    assert "equally many images" in said[2]
    runs[1].config["data"] = {**DATA, "dataset": "other", "dataset_id": "b" * 64}
    assert "different datasets (tiny, other)" in notes(runs)[0]


def test_long_lines_keep_their_extremes_and_gaps() -> None:
    x, y = np.arange(10_000.0), np.zeros(10_000)
    y[4321], y[7000], y[2000:2100] = 9.0, -3.0, np.nan
    a, b = thin(x, y)
    assert len(a) <= 402
    assert (np.nanmax(b), np.nanmin(b), a[0], a[-1]) == (9.0, -3.0, 0.0, 9999.0)
    assert np.isnan(b).any()
    assert (np.diff(a) > 0).all()
    short = thin([1, 2], [3, 4])
    assert [part.tolist() for part in short] == [[1, 2], [3, 4]]


def test_axes_show_what_differs() -> None:
    x = np.arange(1.0, 101)
    plunge = Line(x, 0.7 + 50 * np.exp(-x), BLUE)
    low, high = calm([plunge]) or (0.0, 0.0)
    assert low < 0.7 < high < 2
    assert calm([Line(x, np.sin(x), BLUE)]) is None
    assert calm([Line(x[:5], x[:5], BLUE)]) is None
    assert apart([plunge, Line(x[:2], x[:2], BLUE)])
    assert not apart([plunge, Line(x[:50], x[:50], BLUE)])
    svg = lines_chart("k", [Line(x, x, BLUE, error=x / 10), Line(x[:2], x[:2], BLUE, True)],
                      "<b>", "y", levels=[5.0])  # fmt: skip
    assert "&lt;b&gt;" in svg
    assert "<b>" not in svg


def test_grids_are_spread_over_the_training_and_only_pixels_reach_the_page(tmp_path: Path) -> None:
    found = [(float(kimg), Path(f"{kimg}.png")) for kimg in range(20)]
    assert [kimg for kimg, _ in spaced(found)] == [0, 4, 8, 11, 15, 19]
    assert spaced(found[:3]) == found[:3]
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    picture = Image.new("RGB", (1200, 300), "navy")
    picture.save(good)
    good.write_bytes(good.read_bytes() + b"<script>")
    assert small(good).startswith("data:image/png;base64,")
    assert len(small(good)) < 5000
    for content in (b"<svg onload=alert(1)>", good.read_bytes()[:60], b""):
        bad.write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.png is not a whole PNG"):
            small(bad)
    picture.save(bad, format="JPEG")
    with pytest.raises(DataError, match="not a whole PNG"):
        small(bad)


def test_the_latest_evaluation_counts(root: Path) -> None:
    folder = put(root, "00000-a", rows=ROWS)
    assert measured(read_run(folder)) is None
    (folder / "metrics").mkdir()
    row = {"mean": 7.0, "spread": 0.1, "unit": "", "values": []}
    for kimg, mean in ((8, 9.0), (24, 7.0)):
        content = {"kimg": kimg, "count": 64, "seeds": [0, 1, 2], "side_mm": 93.0,
                   "metrics": {"fd_random": {**row, "mean": mean}, "of_another_version": row},
                   "scale": {"real_halves": None, "held_out": {
                       "images": 64, "metrics": {"fd_random": 3.0}}}}  # fmt: skip
        (folder / f"metrics/generator-kimg-0000{kimg:02d}.000.json").write_text(json.dumps(content))
    found = measured(read_run(folder))
    assert found is not None
    assert (found.kimg, found.means, found.seeds) == (24, {"fd_random": 7.0}, 3)
    assert table(found)[0]["beside"] == {"real_halves": None, "held_out": 3.0}
    (folder / "metrics/generator-kimg-000032.000.json").write_text('{"kimg": 32}')
    with pytest.raises(DataError, match="cannot be read"):
        measured(read_run(folder))


def test_components_name_what_is_beyond_chance() -> None:
    about = {"components": [{
        "name": "PC1", "share": 0.4, "chance": 0.1, "reads": "USFLUX",
        "quantities": {name: {"spearman": rank} for name, rank in
                       (("USFLUX", -0.8), ("TILT", 0.05), ("R_VALUE", 0.3))},
        "response": {"USFLUX": -0.9, "TILT": None},
    }]}  # fmt: skip
    row = principal(about)[0]
    assert (row["spearman"], row["also"], row["most"], row["change"]) == (
        -0.8, [("R_VALUE", 0.3)], "USFLUX", -0.9)  # fmt: skip
    assert principal({}) == []
    with pytest.raises(DataError, match="cannot be read"):
        principal({"components": [{"name": "PC1"}]})


def test_a_scorecard_is_read_or_refused() -> None:
    score = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "clusters": 3}
    card = {
        "k": 10, "unit": "HARP", "metric": "cosine", "exclude_hours": 24.0,
        "queries": {"split": "test", "tiles": 9, "groups": 3},
        "archive": {"tiles": 90, "groups": 9, "records": 20},
        "encoder": {"run": "00001-a-ssl", "digest": "e" * 64},
        "index": {"kind": "flat", "recall_10": 1.0},
        "same_region": {way: {"recall_1": score, "recall_10": score, "mean_rank": score}
                        for way in ("embedding", "chance")},
        "physics": {"other_harp": {way: {"TILT": {"spearman": score}, "USFLUX": {"spearman": score}}
                                   for way in ("embedding", "chance")}},
        "memorisation": {"generated_copies": score, "train_tiles": 80},
        "generated": {"run": "00000-a", "kimg": 3.0},
    }  # fmt: skip
    found = extract(card)
    assert [row["name"] for row in found["physics"]] == ["USFLUX", "TILT"]
    assert found["ways"] == ["this search", "chance"]
    assert found["copies"]["run"] == "00000-a"
    assert found["regions"][0]["scores"][0] == score
    for damage in ({}, [], {**card, "k": None}, {**card, "physics": 3}):
        with pytest.raises(DataError, match="not a scorecard"):
            extract(damage)
