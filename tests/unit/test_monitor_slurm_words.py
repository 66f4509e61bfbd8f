"""What Slurm's commands say, with plain texts; the jobs that a user names badly."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpc.monitor.discovery import targets
from hpc.monitor.slurm import Ended, Slurm, job_label, node_samples, queue_samples, reason_word
from hpc.slurm_query import CODES, Job, Node, NoSlurm, parse_jobs, parse_nodes
from hpc.slurm_words import count_gpus, count_tasks, expand_nodes, node_state, span, unix_time
from sunpipe.errors import DataError

WORD = "<0123456789abcdef>"


def row(name: str, **more: str) -> str:
    fields = {"i": "7", "A": "7", "F": "7", "K": "N/A", "u": "ada", "P": "main", "T": "RUNNING",
              "r": "None", "D": "2", "C": "8", "N": "n[1-2]", "V": "1795336466", "S": "1795336470",
              "e": "1795340070", "l": "1:00:00", "L": "59:00", "E": "(null)", "b": "gres:gpu:4",
              **more, "j": name}  # fmt: skip
    return "".join(f"{WORD}{fields[code]}" for code in CODES) + "\n"


def job(number: str = "7", state: str = "running", **more: object) -> Job:
    (found,) = parse_jobs(row("sunpipe-train", i=number, A=number, T=state), WORD)
    return replace(found, **more)  # type: ignore[arg-type]


def test_a_job_is_read() -> None:
    (found,) = parse_jobs(row("sunpipe-train"), WORD)
    assert (found.state, found.stage, found.nodes, found.limit, found.left) == (
        "running", "train", 2, 3600.0, 3540.0)  # fmt: skip
    assert found.submitted == 1795336466.0
    assert found.dependency == ""
    assert not found.ended
    assert parse_jobs("", WORD) == []


@pytest.mark.parametrize("name", ["a|b", "a\nb", "\n7|RUNNING", "<0123>", "sunpipe-train\nx", ""])
def test_a_job_may_have_any_name(name: str) -> None:
    found = parse_jobs(row(name) + row("next", i="8"), WORD)
    assert [one.name for one in found] == [name, "next"]
    assert [one.id for one in found] == ["7", "8"]
    assert found[0].stage is None


def test_another_form_is_refused() -> None:
    with pytest.raises(DataError, match="another form"):
        parse_jobs(f"{WORD}7{WORD}x", WORD)


def test_waiting_tasks_of_an_array_count_one_by_one() -> None:
    (found,) = parse_jobs(row("sunpipe-embed", i="7_[3-9:2%1]", K="3-9:2%1", T="PENDING",
                              N="", S="N/A", r="JobArrayTaskLimit"), WORD)  # fmt: skip
    assert (found.tasks, found.started, found.node_list) == (4, None, "")
    assert job_label(found) == "7_[]"
    counted = {one.labels: one.value for one in queue_samples([found], ["main"])}
    assert counted["main", "pending"] == 4
    assert counted["main", "running"] == 0
    assert counted[("JobArrayTaskLimit",)] == 4


@pytest.mark.parametrize(("text", "count"), [
    ("gpu:a100:4(S:0-1),mps:100", 4), ("gres/gpu:2", 2), ("gres:gpu:2", 2), ("gpu", 1),
    ("cpu=4,gres/gpu=2,gres/gpu:a100=2", 2), ("gpu:a100:2(IDX:0,2),gpu:h100:1(IDX:3)", 3),
    ("N/A", 0), ("", 0), ("gres:gpu:h200:8", 8), ("cpu=1,mem=4G", 0),
])  # fmt: skip
def test_gpus(text: str, count: int) -> None:
    assert count_gpus(text) == count


@pytest.mark.parametrize(("text", "state"), [
    ("IDLE", "idle"), ("IDLE*", "down"), ("IDLE+DRAIN", "drained"), ("MIXED+DRAIN", "draining"),
    ("DOWN*+DRAIN", "down"), ("ALLOCATED+COMPLETING", "completing"),
    ("IDLE+CLOUD+POWERED_DOWN", "idle"), ("IDLE+MAINTENANCE", "other"), ("MIXED+PLANNED", "mixed"),
    ("FUTURE", "other"), ("IDLE+COMPLETING+DRAIN", "draining"), ("IDLE+NOT_RESPONDING", "down"),
])  # fmt: skip
def test_states_of_nodes(text: str, state: str) -> None:
    assert node_state(text) == state


def test_node_lists() -> None:
    assert expand_nodes("n[1-3,07],a[09-10]r[1-2],x") == [
        "n1", "n2", "n3", "n07", "a09r1", "a09r2", "a10r1", "a10r2", "x"]  # fmt: skip
    assert expand_nodes("") == []
    for text in ("n[1-99999999]", "n[a-b]", "a[1-9999]b[1-9999]"):
        with pytest.raises(DataError):
            expand_nodes(text)


def test_times_and_tasks() -> None:
    assert [span(text) for text in ("1-00:00:01", "10:00", "UNLIMITED")] == [86401.0, 600.0, None]
    assert [count_tasks(text) for text in ("3", "1,4-6", "0-999%50")] == [1, 4, 1000]
    assert unix_time("N/A") is None
    assert unix_time("2026-11-22T08:34:26") is not None


NODE = ("NodeName=n4 Arch=x86_64 CPUAlloc=16 CPUTot=64 Gres=gpu:8 GresUsed=gpu:2 NodeAddr=10.0.0.4"
        " NodeHostName=n4 OS=Linux 6.1 #1 SMP RealMemory=1000 State=IDLE+DRAIN Partitions=main,all"
        "  Reason=State=IDLE bad disk [root@2026-11-22T08:34:51]\n")  # fmt: skip


def test_a_node_is_read_whatever_its_reason_says() -> None:
    (node,) = parse_nodes(NODE)
    assert (node.state, node.reason, node.partitions) == (
        "drained", "State=IDLE bad disk", ("main", "all"))  # fmt: skip
    values = {(one.name, *one.labels): one.value for one in node_samples([node])}
    assert values["sunpipe_slurm_cluster_nodes", "drained"] == 1  # once, in two partitions
    assert values["sunpipe_slurm_nodes", "main", "drained"] == 1
    assert values["sunpipe_slurm_nodes", "all", "drained"] == 1
    assert values["sunpipe_slurm_cluster_gpus", "allocated"] == 2
    assert values["sunpipe_slurm_cluster_gpus", "other"] == 6  # drained: nobody can have them
    assert values["sunpipe_slurm_cluster_gpus", "idle"] == 0


def test_ended_jobs_are_counted_once() -> None:
    ended = Ended()
    ended.look([job("1", "completed"), job("2"), job("3"), job("4")])  # 1 ended before we began
    for _ in range(2):
        ended.look([job("2", "failed"), job("3", "boot_fail"), job("4")])
    ended.look([job("5", "timeout")])  # 4 has gone; 5 came and ended between two looks
    count = {state: number for (stage, state), number in ended.count.items() if stage == "train"}
    assert {state: number for state, number in count.items() if number} == {
        "failed": 1, "node_fail": 1, "timeout": 1, "other": 1}  # fmt: skip


def test_reasons_are_single_words() -> None:
    assert reason_word("ReqNodeNotAvail, UnavailableNodes:n[1-9]") == "ReqNodeNotAvail"
    assert reason_word("(null)") == "None"


def test_discovery_names_each_node_once() -> None:
    nodes = [Node("n1", "n1", "10.0.0.1", "mixed", "", (), 1, 1, 8, 2, 1, ""),
             Node("n2", "n2", "fd00::2", "mixed", "", (), 1, 1, 0, 0, 1, "")]  # fmt: skip
    found = targets([job("7"), job("8"), job("9", "pending")], nodes)
    assert [(one["targets"], one["labels"]["exporter"]) for one in found] == [
        (["10.0.0.1:9100"], "node"), (["[fd00::2]:9100"], "node"), (["10.0.0.1:9400"], "dcgm"),
    ]  # fmt: skip
    assert found[0]["labels"]["node"] == "n1"
    assert found[0]["labels"]["__meta_sunpipe_slurm_jobs"] == "7,8"


def test_a_machine_without_slurm_is_no_failure() -> None:
    from hpc.monitor.collect import Collector

    def none() -> list[Job]:
        raise NoSlurm("squeue not found: this machine has no Slurm")

    collector = Collector("slurm", Slurm(jobs=none).read, 1.0)
    collector.once()
    assert collector.absent
    assert collector.collect() == []
