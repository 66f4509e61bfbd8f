"""Receipts: what is done is known without starting it, and what has changed is named."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

import sunpipe as package
from hpc.decide import decide, decide_one
from hpc.stages import STAGES, depends_on
from preprocess.manifest import Entry, write_manifest
from sunpipe import receipts
from sunpipe.config import load_config
from sunpipe.made import FILES, made_by
from sunpipe.paths import Layout
from sunpipe.settings import Config
from tests.conftest import REPO

TINY = REPO / "configs/tiny.toml"
ORDER = list(STAGES)


def config(*overrides: str) -> Config:
    return load_config(TINY, overrides)


def make(stage: str, cfg: Config, word: str = "") -> None:
    """Files as the stage leaves them, with content of our own."""
    layout = Layout.current()
    if stage == "fetch":
        absent = Entry("r", "Br", "r.fits", "", 0, "missing", word, "", "")
        write_manifest(layout.archive, {absent.key: absent})
        return
    if stage == "shard":
        folder = layout.shards(cfg.dataset)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "shard-00000.h5").write_text("pixels")
        text = json.dumps({"shards": {"shard-00000.h5": "0" * 64}, "word": word})
        (folder / "dataset.json").write_text(text)
        (folder / "records.parquet").write_text("records")
        return
    if stage in ("train", "ssl"):
        run = layout.runs / (f"00000-{cfg.name}" if stage == "train" else f"00001-{cfg.name}-ssl")
        folder = run / "checkpoints/kimg-000000.064"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "G.safetensors").write_text("weights")
        (folder / "COMPLETE").write_text(f"complete {word}")
        return
    for path in made_by(stage, cfg, layout):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{stage} {word}")
    if stage == "embed":
        (layout.embeddings(cfg.name) / "embedding-00000.npy").write_text("vectors")


def fits(*sizes: int) -> list[Path]:
    """An archive of files of these sizes, and the manifest that lists them."""
    archive = Layout.current().archive
    paths = [archive / f"{number}.fits" for number in range(len(sizes))]
    archive.mkdir(parents=True, exist_ok=True)
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(size * b"x")
    write_manifest(archive, {
        (path.name, "Br"): Entry(path.name, "Br", path.name, "0" * 64, size, "fetched", "", "", "")
        for path, size in zip(paths, sizes, strict=True)
    })  # fmt: skip
    return paths


def finish(stage: str, cfg: Config, word: str = "", **result: Any) -> None:
    """What `run_stage` does around a stage that ends well."""
    layout = Layout.current()
    read = receipts.found(stage, cfg, layout)
    make(stage, cfg, word)
    receipts.write(stage, cfg, layout, read, {"state": "done", **result})


def reasons(cfg: Config) -> dict[str, str]:
    """Stages that are not done, and why."""
    made = decide(ORDER, cfg, Layout.current(), {})
    return {name: each.why for name, each in made.items() if each.run}


@pytest.fixture
def done(root: Path) -> Path:
    for stage in ORDER:
        finish(stage, config())
    return root


def test_the_table_agrees_with_the_commands_and_the_graph() -> None:
    assert set(receipts.KINDS) == set(FILES) == set(STAGES)
    for name, kind in receipts.KINDS.items():
        before = set(ORDER[: ORDER.index(name)])
        assert set(kind.reads) <= before
        behind: set[str] = set()  # everything that has to end before this stage starts
        left = list(STAGES[name].needs)
        while left:
            behind.add(one := left.pop())
            left += STAGES[one].needs
        assert set(kind.reads) <= behind
        assert set(STAGES[name].needs) <= set(kind.reads)


def test_the_sections_are_those_that_the_commands_print() -> None:
    """Each command hands `run_stage` the sections that it reads."""
    names = ("sunpipe/train", "sunpipe/latent", "sunpipe/embed", "sunpipe/index/build_",
             "preprocess/", "preprocess/shard_")  # fmt: skip
    told: dict[str, set[str]] = {}
    for path in names:
        text = (REPO / f"{path}{'' if path.endswith(('_', '/')) else '/'}cli.py").read_text()
        for name, words in re.findall(
            r'run_stage\(\s*"(\w+)".*?sections=\(([^)]*)\)', text, re.DOTALL
        ):
            told[name] = set(re.findall(r"\w+", words))
    for name in set(ORDER) - {"report"}:
        known = set(receipts.KINDS[name].sections) - {"dataset", "seed"}
        assert told[name] - {"track"} == known, name


def test_all_is_done_and_nothing_is_started(done: Path) -> None:
    assert reasons(config()) == {}
    assert receipts.stored_result("report", config(), Layout.current()) == {"state": "done"}


def test_an_empty_root_runs_everything(root: Path) -> None:
    found = reasons(config())
    assert list(found) == ORDER
    assert found["fetch"] == "not made yet"
    assert found["sample"] == "after train"
    make("fetch", config())  # as before there were receipts
    assert reasons(config())["fetch"] == "it has no receipt yet: not finished, or made without one"


@pytest.mark.parametrize(
    ("override", "first", "stages"),
    [
        ("directions.bootstrap=5", "directions: directions.bootstrap changed", "directions report"),
        ("sample.count=300", "sample: sample.count changed", "sample directions search report"),
        ("index.recall=0.9", "index: index.recall changed", "index search report"),
        ("shard.stride=32", "shard: shard.stride changed",
         "shard train sample directions ssl embed index search report"),
        ("report.title=x", "report: report.title changed", "report"),
        ("fetch.email=a@example.org", "", ""),
        ("train.kimg=1", "train: train.kimg changed",
         "train sample directions search report"),
        ("track.project=x", "", ""),
    ],
)  # fmt: skip
def test_a_changed_setting_runs_what_depends_on_it(
    done: Path, override: str, first: str, stages: str
) -> None:
    found = reasons(config(override))
    assert list(found) == stages.split()
    if first:
        name, _, why = first.partition(": ")
        assert found[name] == why


def test_a_stage_that_was_made_again_is_named_by_those_that_read_it(done: Path) -> None:
    finish("sample", config(), "other")
    found = reasons(config())
    assert found["directions"] == "sample was made again"
    assert found["search"] == "sample was made again"
    assert "train" not in found


def test_made_again_with_the_same_outcome_changes_nothing_behind_it(done: Path) -> None:
    finish("sample", config())
    assert reasons(config()) == {}


def test_what_is_gone_or_altered_is_named(done: Path) -> None:
    cfg, layout = config(), Layout.current()
    path = layout.index("tiny") / "index.json"
    content = path.read_text()
    path.unlink()
    assert receipts.why_run("index", cfg, layout) == "index/tiny/index.json is missing"
    path.write_text(content)
    assert receipts.why_run("index", cfg, layout) == ""
    path.write_text(content.upper())
    assert receipts.why_run("index", cfg, layout) == "index/tiny/index.json changed"
    shard = layout.shards("tiny") / "shard-00000.h5"
    os.utime(shard, ns=(1, 1))
    assert receipts.why_run("shard", cfg, layout) == "shards/tiny/shard-00000.h5 changed"
    (layout.embeddings("tiny") / "embedding-00001.npy").write_text("more")
    assert receipts.why_run("embed", cfg, layout).endswith("embedding-00001.npy is new")
    assert receipts.why_run("train", cfg, layout) == ""
    (layout.runs / "00002-tiny/checkpoints").mkdir(parents=True)
    assert "00002-tiny" in receipts.why_run("train", cfg, layout)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1, "settings": 3}', "\x00"])
def test_a_torn_receipt_counts_as_none(done: Path, text: str) -> None:
    cfg, layout = config(), Layout.current()
    receipts.path_of(layout, "sample", cfg).write_text(text)
    assert "receipt" in receipts.why_run("sample", cfg, layout)
    assert receipts.stored_result("sample", cfg, layout) == {}


def test_another_version_runs_again(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "__version__", "99")
    assert "this is 99" in reasons(config())["fetch"]


def test_a_dataset_is_shared_by_experiments(done: Path) -> None:
    other = config("name=other")
    finish("fetch", other)
    found = reasons(other)
    assert "shard" not in found
    assert found["train"] == "not made yet"


def test_fits_files_are_wanted_back_where_shards_are_made_of_them(done: Path) -> None:
    paths, cfg, layout = fits(5, 6, 7), config(), Layout.current()
    read = receipts.found("fetch", cfg, layout)
    receipts.write("fetch", cfg, layout, read, {"failed": 0})
    read = receipts.found("shard", cfg, layout)
    receipts.write("shard", cfg, layout, read, {})
    assert not {"fetch", "shard"} & reasons(cfg).keys()
    paths[0].unlink()
    assert not {"fetch", "shard"} & reasons(cfg).keys()  # who has the shards may give them away
    (layout.shards("tiny") / "dataset.json").unlink()
    found = reasons(cfg)
    assert found["fetch"] == "archive lacks 1 of 3 files"
    assert found["shard"] == "after fetch"
    paths[0].write_text("12345")
    assert "fetch" not in reasons(cfg)
    paths[2].write_text("torn")
    assert reasons(cfg)["fetch"] == "archive lacks 1 of 3 files"


def test_an_email_is_in_no_receipt(root: Path) -> None:
    finish("fetch", config("fetch.email=someone@example.org"))
    for path in (root / "receipts").iterdir():
        assert "someone" not in path.read_text()


@pytest.mark.parametrize(
    ("stage", "result"),
    [("train", {"state": "stopped"}), ("embed", {"complete": False}), ("fetch", {"failed": 1}),
     ("fetch", {"staged": 2}), ("index", {"parts_left": ["1"]})],
)  # fmt: skip
def test_what_is_not_whole_leaves_no_receipt(root: Path, stage: str, result: Any) -> None:
    finish(stage, config(), **result)
    assert receipts.why_run(stage, config(), Layout.current()) == receipts.NONE


def test_only_the_parts_that_failed_are_left(done: Path) -> None:
    cfg, layout = config("embed.batch=7"), Layout.current()

    def part(number: int, complete: bool = False) -> None:
        read = receipts.found("embed", cfg, layout)
        receipts.write("embed", cfg, layout, read, {"complete": complete}, f"{number}/4")

    assert decide_one("embed", cfg, layout, count=4).parts == ()
    for number in (1, 2, 4):
        part(number)
    made = decide_one("embed", cfg, layout, count=4)
    assert made.parts == (3,)
    assert made.why == "of 4 parts 3 did not end well"
    assert decide_one("embed", cfg, layout, count=5).parts == ()  # other shares of the work
    assert decide_one("embed", cfg, layout, count=4, running=["ssl"]).parts == ()
    assert decide_one("embed", config(), layout, count=4).parts == ()
    part(3)  # all ended well, and still it is not whole: somebody removed something
    assert decide_one("embed", cfg, layout, count=4).parts == ()
    part(3, complete=True)
    assert decide_one("embed", cfg, layout, count=4).run is False
    assert list((layout.root / "receipts").glob("*part*")) == []


def test_fetched_parts_make_the_whole_together(root: Path) -> None:
    cfg, layout = config(), Layout.current()
    make("fetch", cfg)
    for number, failed in ((1, 0), (2, 1), (2, 0)):
        assert receipts.why_run("fetch", cfg, layout)
        receipts.write("fetch", cfg, layout, {}, {"failed": failed}, f"{number}/2")
    assert receipts.why_run("fetch", cfg, layout) == ""


def test_again_starts_what_is_done(done: Path) -> None:
    made = decide(ORDER, config(), Layout.current(), {}, again=True)
    assert {each.why for each in made.values()} == {"asked for again"}


def test_jobs_wait_for_those_that_run_only(done: Path) -> None:
    running = list(reasons(config("directions.bootstrap=5")))
    assert depends_on("report", running) == ["directions"]
    assert depends_on("directions", running) == []


def test_evaluations_make_the_report_again(done: Path) -> None:
    with open(done / "stages.jsonl", "a") as handle:
        handle.write('{"stage": "report"}\n')
    assert reasons(config()) == {"report": "other stages were run since"}  # there was no file yet
    finish("report", config())
    assert reasons(config()) == {}
    with open(done / "stages.jsonl", "a") as handle:
        handle.write('{"stage": "evaluate"}\n')
    assert reasons(config()) == {"report": "other stages were run since"}
