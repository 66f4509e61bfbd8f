"""A training that could not be continued is refused before anything is started or replaced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc import pipeline
from hpc.decide import Decision
from hpc.new_run import needs_new
from hpc.pipeline import Asked, begun_anew, plan_lines, plan_stages, run_stages
from sunpipe import receipts
from sunpipe.config import load_config
from sunpipe.errors import DataError
from sunpipe.files import read_json, sha256, write_json
from sunpipe.paths import Layout
from sunpipe.run import Run, ssl_name
from sunpipe.shards.reader import ShardReader
from sunpipe.train.begin import FREE_KEYS, run_config
from sunpipe.train.ssl_begin import FREE, about
from tests.conftest import REPO

TINY = REPO / "configs/tiny.toml"
NAMES = ("fetch", "shard", "train", "ssl")


def begin_runs(new: bool = False, *overrides: str) -> None:
    """Run folders as the trainings make them."""
    cfg, layout = load_config(TINY, overrides), Layout.current()
    reader = ShardReader(layout.shards(cfg.dataset), splits=("train",))
    Run.open(layout, cfg.name, run_config(cfg, reader), FREE_KEYS, new)
    Run.open(layout, ssl_name(cfg.name), about(cfg, reader), FREE, new)


@pytest.fixture
def trained(tiny_root: Path, root: Path) -> Path:
    """Real shards, and runs that were begun on them."""
    for part in ("archive", "shards", "receipts"):
        shutil.copytree(tiny_root / part, root / part)
    begin_runs()
    return root


def need(stage: str, made: dict[str, Decision] | None = None, *overrides: str) -> str:
    return needs_new(stage, load_config(TINY, overrides), Layout.current(), made)


def test_a_run_is_judged_as_it_judges_itself(trained: Path) -> None:
    assert need("train") == need("ssl") == need("sample") == ""
    assert need("train", None, "train.kimg=9", "train.metrics.kimg=3") == ""
    assert need("ssl", None, "ssl.hang_s=9") == ""
    assert need("train", None, "name=other", "seed=9") == ""
    for words in (["train.lr_g=0.003"], ["train.model.z_dim=8", "train.kimg=9"], ["seed=4"]):
        told = need("train", None, *words)
        with pytest.raises(DataError) as refused:
            begin_runs(False, *words)
        assert str(refused.value).startswith(f"{told}; "), words
    assert need("ssl", None, "ssl.batch=8") == "00001-tiny-ssl was made with another ssl.batch"
    write_json(trained / "shards/tiny/dataset.json",
               {**read_json(trained / "shards/tiny/dataset.json"), "shards": {}})  # fmt: skip
    assert need("train") == "00000-tiny was made with another data.dataset_id"
    assert need("ssl") == "00001-tiny-ssl was made with another data.id"


def test_weights_are_known_by_their_content(trained: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_text("weights")
    path = trained / "runs/00001-tiny-ssl/config.json"
    stored = read_json(path)
    stored["ssl"]["weights"] = f"sha256:{sha256(weights)}"
    write_json(path, stored)
    assert need("ssl", None, f"ssl.weights={weights}") == ""
    weights.write_text("others")
    assert need("ssl", None, f"ssl.weights={weights}").endswith("another ssl.weights")
    with pytest.raises(DataError, match=r"ssl\.weights: "):
        need("ssl", None, "ssl.weights=/nowhere/w")


def test_a_dataset_that_will_be_another_counts(trained: Path) -> None:
    shard, same = {"shard": Decision("made by another version")}, {"shard": Decision("")}
    assert need("train", shard) == need("train", same) == ""  # of the same files it is the same
    assert need("train", shard, "shard.stride=32").endswith("another shard.stride")
    assert need("train", same, "shard.stride=32") == ""  # not asked for: trained on what is there
    assert need("train", {"fetch": Decision("not made yet"), **shard}) == ""
    changed = {"fetch": Decision("query.batch_days, query.requests changed"), **shard}
    sets = 'record_set = "hmi.sharp_cea_720s[377][2011.02.15/1d]", segments = ["Br"]'
    other = f"query.requests=[{{{sets}}}]"
    assert need("ssl", changed, other) == ""  # the bundled sample is what it is
    manifest = next((trained / "archive").rglob("*.fits"))
    manifest.write_bytes(manifest.read_bytes()[:2880])
    assert "dataset (" in need("train", shard)
    shutil.rmtree(trained / "shards/tiny")  # made of the same files again, for all that is known
    assert need("train", shard, "shard.stride=32") == ""


def test_other_records_make_another_dataset(trained: Path) -> None:
    made = {"fetch": Decision("fetch.source changed"), "shard": Decision("fetch was made again")}
    sets = 'record_set = "hmi.sharp_cea_720s[377][2011.02.15/1d]", segments = ["Br"]'
    asked = f"query.requests=[{{{sets}}}]"
    jsoc = "fetch.source=jsoc"
    assert need("train", made, jsoc).endswith("another fetch.source")  # it was the bundled sample
    (path,) = (trained / "receipts").glob("fetch-*.json")
    receipt = read_json(path)
    settings = receipts.settings_of("fetch", load_config(TINY, [jsoc, asked]))
    write_json(path, {**receipt, "settings": settings})
    assert need("train", made, asked).endswith("another fetch.source")
    assert need("train", made, jsoc, asked) == ""
    assert need("train", made, jsoc, asked, "query.batch_days=3") == ""
    limit = f"query.requests=[{{{sets}, max_records = 7}}]"  # refuses, and chooses nothing
    assert need("train", made, jsoc, limit) == ""
    other = asked.replace("377", "378")
    assert need("train", made, jsoc, other).endswith("another query.requests")
    path.unlink()  # nothing is known of it
    assert need("train", made, jsoc, other) == ""


def run_here(seen: list[list[str]]) -> Any:
    def call(argv: Sequence[str], capture: bool) -> tuple[int, str]:
        seen.append(list(argv))
        return 0, "{}"

    return call


def test_nothing_is_started_before_a_refusal(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(pipeline, "run_here", run_here(seen))
    asked = Asked(NAMES, TINY, ["shard.stride=32"])
    with pytest.raises(DataError, match=r"train: 00000-tiny .* ssl: .* --new; nothing was started"):
        run_stages(asked)
    assert seen == []
    plan = plan_stages(asked, None)
    assert plan["refused"] is True
    (line, _) = [line.strip() for line in plan_lines(plan) if "refused" in line]
    assert line == "refused without --new: 00000-tiny was made with another shard.stride"


def test_only_what_changed_begins_another_run(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(pipeline, "run_here", run_here(seen))
    asked = Asked(NAMES, TINY, ["train.lr_g=0.003"], new=True)
    run_stages(asked)
    assert [argv[0] for argv in seen if "--new" in argv] == ["train"]
    assert [argv[0] for argv in seen] == ["train", "ssl"]
    said = "train: a new run, since 00000-tiny was made with another train.lr_g"
    assert said in capsys.readouterr().err
    plan = plan_stages(asked, None)
    assert json.loads(json.dumps(plan))["refused"] is False
    assert "--new" in plan["stages"]["train"]["commands"][0]
    assert "--new" not in plan["stages"]["ssl"]["commands"][0]

    begin_runs(True, "train.lr_g=0.003")  # that run was begun: the same command goes on with it
    assert begun_anew(asked, {"train": Decision("not made yet")}) == {}


def test_a_launch_is_refused_before_it_waits_in_the_queue(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpc.cli import launch

    submitted: list[Any] = []
    monkeypatch.setattr("hpc.launch.submit", lambda *words, **_: submitted.append(words[1]) or "7")
    profile = trained / "cluster.toml"
    profile.write_text("")
    with pytest.raises(DataError, match=r"another train\.lr_g.* `-- --new`; nothing was queued"):
        launch("train", config=TINY, set_=["train.lr_g=0.003"], cluster=profile)
    assert submitted == []
    launch("train", ["--new"], config=TINY, set_=["train.lr_g=0.003"], cluster=profile)
    assert submitted[0][0][-1] == "--new"
