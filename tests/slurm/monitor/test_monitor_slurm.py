"""The exporter, the rules and the alerts on a real Slurm and a real Prometheus."""

from __future__ import annotations

import json
import signal

import pytest

from hpc.monitor.names import NODE_STATES
from tests.slurm.conftest import SMALL
from tests.slurm.monitor.watched import Watched

pytestmark = pytest.mark.slurm


def test_series_are_there_and_right(watched: Watched) -> None:
    run = "00000-tiny"
    # other tests watch the same Prometheus: wait until what they added has gone
    watched.until("one run", lambda: len(watched.query("sunpipe_train_kimg")) == 1)
    watched.until("ticks", lambda: watched.value("sunpipe_train_kimg") > 0.1)
    status = json.loads((watched.root / "runs" / run / "status.json").read_text())
    assert status["state"] == "running"
    ((info, _),) = watched.query("sunpipe_train_info")
    assert (info["run"], info["dataset"], info["resolution"]) == (run, "tiny", "32")
    assert (info["instance"], info["job"]) == (watched.url.removeprefix("http://"), "sunpipe")
    assert "exported_job" not in info
    assert watched.value('sunpipe_train_state{state="running"}') == 1
    assert watched.value("sunpipe_train_target_kimg") == 100_000
    assert 0 < watched.value("sunpipe_train_tick_seconds") < 60
    assert {row["net"] for row, _ in watched.query("sunpipe_train_loss")} == {"G", "D"}
    rows = (watched.root / "runs" / run / "stats.jsonl").read_text().splitlines()
    assert watched.value("sunpipe_train_kimg") in [json.loads(row)["kimg"] for row in rows]

    nodes = {row["state"]: value for row, value in watched.query("sunpipe:nodes:count")}
    assert set(nodes) == set(NODE_STATES)
    assert sum(nodes.values()) == 4
    assert nodes["mixed"] >= 1
    ((at, _),) = watched.query(f'sunpipe_slurm_job_nodes_info{{slurm_job="{watched.job}"}}')
    shown = watched.slurm.show(watched.job)
    assert at["node"] == shown["NodeList"]
    assert watched.value('sunpipe_slurm_own_jobs{stage="train",state="running"}') == 1
    assert watched.value('sunpipe_fetch_records{state="fetched"}') > 0
    assert watched.value("sunpipe_index_vectors") == 1234
    assert watched.value("min(sunpipe_collector_success)") == 1
    assert watched.value("sum(sunpipe_collector_faults)") == 0
    busy = 'sunpipe:node_cpu_busy:ratio{node="n1"}'  # of the real node exporter of this machine
    watched.until("two samples for a rate", lambda: watched.query(busy))
    assert 0 <= watched.value(busy) <= 1
    gpu = 'sunpipe:gpu_utilisation:ratio{node="n1",gpu="0"}'
    watched.until("the GPU", lambda: watched.query(gpu))
    assert watched.value(gpu) == 0.96
    # the negative control: a misspelt name is empty, and nothing says so
    assert watched.query("sunpipe_train_kimgs") == []


def test_discovery_follows_the_jobs(watched: Watched) -> None:
    groups = watched.get("/sd/nodes?exporter=node").json()
    node = watched.slurm.show(watched.job)["NodeList"]
    (mine,) = [group for group in groups if group["labels"]["node"] == node]
    assert mine["targets"] == ["127.0.0.1:9100"]
    assert watched.job in mine["labels"]["__meta_sunpipe_slurm_jobs"].split(",")

    def found() -> bool:
        active = watched.prometheus.get("targets", state="active")["activeTargets"]
        return any(one["labels"]["job"] == "sunpipe-node" and one["labels"]["node"] == node
                   for one in active)  # fmt: skip

    watched.until("the target in Prometheus", found)


def test_drained_node_and_failing_job_raise_their_alerts(watched: Watched) -> None:
    quiet = watched.prometheus.firing()
    assert "NodeDrained" not in quiet
    assert "TrainingStalled" not in quiet
    # a search without samples and index ends at once, with a clear message
    failing = watched.slurm.sbatch(*SMALL[2:], "--nodes=1", "jobs/search.sh", "-c",
                                   "configs/tiny.toml", root=watched.root)  # fmt: skip
    node = "n4"
    watched.slurm.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=disk")
    try:
        watched.until_fires("NodeDrained")
        labels = watched.until_fires("JobFailed")
        assert (labels["stage"], labels["state"]) == ("search", "failed")
        assert watched.slurm.show(failing)["JobState"] == "FAILED"
    finally:
        watched.slurm.run("scontrol", "update", f"nodename={node}", "state=resume")
    watched.until("NodeDrained is over", lambda: "NodeDrained" not in watched.prometheus.firing())


def test_stalled_run_raises_its_alert(watched: Watched) -> None:
    watched.slurm.run("scancel", "--signal=STOP", watched.job)  # its ranks; the job runs on
    try:
        assert watched.until_fires("TrainingStalled", 200)["run"] == "00000-tiny"
        # Slurm knows that it was stopped; a hang of its own it would not see
        assert watched.slurm.show(watched.job)["JobState"] in ("RUNNING", "STOPPED")
        assert watched.value('sunpipe_train_state{state="running"}') == 1
    finally:
        watched.slurm.run("scancel", "--signal=CONT", watched.job)
    watched.until("it goes on", lambda: "TrainingStalled" not in watched.prometheus.firing())


def test_lost_exporter_raises_its_alert_and_leaves_a_gap(watched: Watched) -> None:
    assert watched.stop_exporter(signal.SIGKILL) == -signal.SIGKILL
    try:
        watched.until_fires("ExporterDown")
        assert watched.query("sunpipe_train_kimg") == []  # a gap, not an old value
    finally:
        watched.start_exporter()
    watched.until("it is back", lambda: watched.query("sunpipe_train_kimg"))
    assert watched.stop_exporter(signal.SIGTERM) == 0
    watched.start_exporter()
