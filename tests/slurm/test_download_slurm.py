"""``jobs/download.sh`` through a real sbatch, against a local JSOC: throttle and requeue."""

from __future__ import annotations

from pathlib import Path

import pytest

from preprocess.manifest import read_manifest
from tests.jsoc_archive import SHARP, tiny_archive
from tests.jsoc_server import JsocServer
from tests.slurm.conftest import Slurm

pytestmark = pytest.mark.slurm
CONFIG = """\
name = "test"
[fetch]
source = "jsoc"
url = "{url}"
retry_wait_s = 0.05
[[query.requests]]
record_set = "{series}[1]"
segments = ["Br", "Bt"]
"""


def test_slices_two_at_a_time_with_one_requeued_bring_every_file_once(
    slurm: Slurm, tmp_path: Path
) -> None:
    with JsocServer(tiny_archive(24), delay_s=0.4) as server:
        config = tmp_path / "config.toml"
        config.write_text(CONFIG.format(url=server.url, series=SHARP))
        job = slurm.sbatch("--array=1-3%2", "--cpus-per-task=1", "jobs/download.sh", "-c", config,
                           root=tmp_path)  # fmt: skip
        slurm.until("files", lambda: len(server.downloads()) >= 4)
        assert slurm.show(f"{job}_1")["JobState"] == "RUNNING"
        assert slurm.show(f"{job}_3")["JobState"] == "PENDING"
        slurm.preempt(f"{job}_1")
        states = slurm.wait(job)
    assert set(states.values()) == {"COMPLETED"}, (tmp_path / "log.txt").read_text()
    assert len(states) == 3
    held = [entry.state for entry in read_manifest(tmp_path / "archive").values()]
    assert held.count("fetched") == 48 + 24  # segments and keywords
    downloads = server.downloads()
    assert len(set(downloads)) == 48
    assert len(downloads) <= 49  # one was under way at the requeue
    assert server.max_concurrent <= 2  # tasks that run at one time
    assert len(server.asked("rs_list")) == 1
    said = (tmp_path / "log.txt").read_text()
    assert said.count("the two share the work") >= 1
    assert "interrupted; run the same command again to continue" in said
