"""Every template of ``jobs/`` through a real sbatch, in one data root, each after what it needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.slurm.conftest import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]
CONFIG = ("-c", "configs/tiny.toml")
ONE = ("--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1")
RECORD = "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"
FAST = ("--set", "invert.starts=1", "--set", "invert.steps=3", "--set", "invert.encoder_kimg=0.1")

# template: (jobs it waits for, options of sbatch, arguments)
JOBS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "simulate": ((), ("--cpus-per-task=1",),
                 ("--records", "1", "--size", "64x48", "--out", "{root}/simulated")),
    "download": ((), ("--array=1-2", "--cpus-per-task=1"), CONFIG),
    "shard": (("download",), ("--nodes=2", "--ntasks-per-node=1"), CONFIG),
    "verify": (("shard",), ("--cpus-per-task=1",), (*CONFIG, "--against-archive")),
    "train_stylegan_256": (("shard",), ONE, CONFIG),
    "train_ssl": (("shard",), ("--nodes=2", *ONE[1:]), CONFIG),
    "sample": (("train_stylegan_256",), ("--array=1-2", *ONE), CONFIG),
    "fit_directions": (("sample",), ("--array=1-2", *ONE), CONFIG),
    "embed": (("train_ssl",), ("--array=1-2", *ONE), CONFIG),
    "build_index": (("embed",), ("--array=1-2", *ONE), CONFIG),
    "search": (("sample", "build_index"), ONE, CONFIG),
    "traverse": (("fit_directions",), ONE, (*CONFIG, "--quantity", "USFLUX", "--by", "1e21Mx")),
    "invert": (("sample",), ONE, (*CONFIG, "--record", RECORD, *FAST)),
    "evaluate_generator": (("train_stylegan_256",), ONE, (*CONFIG, "--seeds", "3")),
    "evaluate_retrieval": (("build_index",), ONE, (*CONFIG, "--set", "retrieval.queries=8")),
    "report": (("fit_directions", "search"), ONE, CONFIG),
    "pipeline": (("report",), ONE, (*CONFIG, "--only", "index", "--only", "embed")),
}  # fmt: skip
# The others train as the first does: they find its run done.
SAME = ("stylegan_512", "stylegan_1024", "stylegan_4096", "aia193_1024", "hmi_fulldisk_1024")
before = "train_stylegan_256"
for each in SAME:
    JOBS[f"train_{each}"] = ((before,), ONE, CONFIG)
    before = f"train_{each}"
MADE = ("simulated/manifest.parquet", "archive/manifest.parquet", "shards/tiny/dataset.json",
        "latents/tiny/samples.h5", "latents/tiny/directions.json", "embeddings/tiny/embedding.json",
        "index/tiny/index.json", "searches/tiny/search.json", "evaluations/tiny/retrieval.json",
        "reports/tiny/report.html")  # fmt: skip


def ended(slurm: Slurm) -> dict[str, str]:
    """States of all jobs and tasks once none is left; Slurm forgets them minutes later."""
    states: dict[str, str] = {}

    def over() -> bool:
        rows = slurm.run("squeue", "--noheader", "--array", "--states=all", "--format=%i %T")
        now = dict(line.split() for line in rows.stdout.splitlines())
        states.update(now)
        return not any(state in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")
                       for state in now.values())  # fmt: skip

    slurm.until("the end of all jobs", over, patience=1000)
    return states


def test_every_template_runs(slurm: Slurm, tmp_path: Path) -> None:
    templates = {path.stem for path in (REPO / "jobs").glob("[!_]*.sh")}
    assert set(JOBS) == templates
    others = set(ended(slurm))
    ids: dict[str, str] = {}
    left = dict(JOBS)
    while left:
        name = next(name for name, (needs, _, _) in left.items() if set(needs) <= set(ids))
        needs, options, words = left.pop(name)
        after = [f"--dependency=afterok:{':'.join(ids[need] for need in needs)}",
                 "--kill-on-invalid-dep=yes"] if needs else []  # fmt: skip
        done = slurm.run(
            "sbatch", "--parsable", f"--output={tmp_path}/{name}.%a.log", *after, *options,
            f"jobs/{name}.sh", *(word.format(root=tmp_path) for word in words), root=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, (name, done.stderr)
        ids[name] = done.stdout.strip()
    states = {task: state for task, state in ended(slurm).items() if task not in others}
    logs = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    names = {job: name for name, job in ids.items()}
    assert {task.split("_")[0] for task in states} == set(names)
    bad = {names[task.split("_")[0]]: state for task, state in states.items()
           if state != "COMPLETED"}  # fmt: skip
    assert not bad, (bad, {log: text for log, text in logs.items() if log.split(".")[0] in bad})
    assert [path for path in MADE if not (tmp_path / path).exists()] == []
    rows = [json.loads(line) for line in (tmp_path / "stages.jsonl").read_text().splitlines()]
    ran = [row["stage"] for row in rows]
    assert ran.count("train") == 1 + len(SAME)
    assert ran.count("sample") == ran.count("embed") == ran.count("fetch") == 2
    assert ran.count("index") == 2  # and the pipeline's, which is done
    assert len(list(tmp_path.glob("runs/*-tiny/metrics/generator-kimg-*.json"))) == 1
    runs = sorted(path.name.partition("-")[2] for path in (tmp_path / "runs").iterdir())
    assert runs == ["tiny", "tiny-ssl"]  # one each, whichever began first
    (log,) = (text for name, text in logs.items() if name.startswith("pipeline."))
    assert "index: done" in log  # the receipts of the jobs before it
    assert not any("Traceback" in text for text in logs.values())
