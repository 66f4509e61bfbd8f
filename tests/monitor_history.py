"""Hours of made-up but plausible history of every metric, as blocks that a real Prometheus reads.

Every name of the exporter's table, and the recorded and foreign ones that dashboards read; so
these can be drawn without waiting for hours.
"""

from __future__ import annotations

import math
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from hpc.monitor.dialects import known_names, served_names
from hpc.monitor.names import TRAIN_STATES

RUN = "00003-regions_1024"
SSL = "00002-regions_1024-ssl"
NODES = ("gpu01", "gpu02")
HOURS = 6.0
Value = Callable[[float], float | None]  # of the share of the time that has passed
Line = tuple[str, dict[str, str], Value]


def noisy(middle: float, spread: float, seed: str) -> Value:
    """Around `middle`, the same every time."""
    chance = random.Random(seed)
    walk = [chance.gauss(0, spread) for _ in range(64)]
    phase = chance.random()
    return lambda share: max(0.0, middle + walk[int(share * 63.99)] * 0.5
                             + spread * 0.4 * math.sin(40 * share + phase))  # fmt: skip


def steady(value: float) -> Value:
    return lambda share: value


def whole(middle: float, spread: float, seed: str) -> Value:
    value = noisy(middle, spread, seed)
    return lambda share: float(round(value(share) or 0))


def training(start: float, length: float) -> Iterator[Line]:
    """A GAN in its middle with a restart at a half, and a finished encoder."""

    def kimg(share: float) -> float:
        return 1200 + 900 * (share if share < 0.5 else max(0.46, share - 0.04))

    for run, stage in ((RUN, "train"), (SSL, "ssl")):
        one = {"run": run}
        info = {
            "name": run[6:],
            "stage": stage,
            "dataset": "regions_1024",
            "resolution": "1024",
            "loss": "logistic" if stage == "train" else "vicreg",
            "world": "8",
            "slurm_job": "4711" if stage == "train" else "4702",
            "git": "3de09d9c01aa",
        }
        yield "sunpipe_train_info", {**one, **info}, steady(1)
        for state in TRAIN_STATES:
            now = "running" if stage == "train" else "done"
            yield "sunpipe_train_state", {**one, "state": state}, steady(float(state == now))
        yield "sunpipe_train_kimg", one, kimg if stage == "train" else steady(500)
        yield "sunpipe_train_target_kimg", one, steady(5000 if stage == "train" else 500)
        yield "sunpipe_train_eta_seconds", one, lambda s: 26.0 * (5000 - kimg(s))
        yield "sunpipe_train_seconds_per_kimg", one, noisy(25.9, 0.5, "pace")
        yield "sunpipe_train_tick_seconds", one, noisy(104, 2, "tick")
        yield "sunpipe_train_data_wait_seconds", one, lambda s: 3 + (25 if 0.7 < s < 0.8 else 0)
        yield "sunpipe_train_warnings", one, lambda s: float(0.7 < s < 0.8)
        yield "sunpipe_train_last_tick_timestamp_seconds", one, lambda s: start + s * length - 41
        yield (
            "sunpipe_train_last_checkpoint_timestamp_seconds",
            one,
            lambda s: start + math.floor(s * 6) / 6 * length,
        )
        yield (
            "sunpipe_train_started_timestamp_seconds",
            one,
            lambda s: start + (s >= 0.5) * length / 2,
        )
        yield "sunpipe_train_checkpoint_bytes", one, steady(1.93e9)
        yield "sunpipe_train_requeues_total", one, lambda s: 1.0 + (s >= 0.5)
        yield "sunpipe_train_nonfinite_total", one, lambda s: float(s > 0.3)
        yield "sunpipe_train_energy_joules_total", one, lambda s: 2.1e9 + 4800 * s * length
        if stage == "train":
            yield "sunpipe:train_quiet:seconds", one, steady(41)
            yield "sunpipe:train_unsaved:seconds", one, lambda s: (s * 6 % 1) * length / 6
        yield "sunpipe:train_data_wait:ratio", one, lambda s: 0.03 + (0.22 if 0.7 < s < 0.8 else 0)
        yield "sunpipe:train_rank_skew:ratio", one, noisy(0.06, 0.01, "skew")
        for rank in range(8):
            each = {**one, "rank": str(rank)}
            slow = 1.06 if rank == 5 else 1.0
            yield "sunpipe_train_rank_work_seconds", each, noisy(98 * slow, 1, f"w{rank}")
            yield "sunpipe_train_gpu_memory_peak_bytes", each, steady(61e9 + 3e8 * rank)
        yield (
            "sunpipe_train_feature_spread_ratio",
            one,
            (noisy(0.71, 0.03, "spread") if stage == "ssl" else lambda s: None),
        )
        if stage == "train":
            yield "sunpipe_train_loss", {**one, "net": "G"}, noisy(1.24, 0.12, "G")
            yield "sunpipe_train_loss", {**one, "net": "D"}, noisy(0.83, 0.07, "D")
            yield "sunpipe_train_logits", {**one, "of": "real"}, lambda s: 0.9 + 0.5 * s
            yield "sunpipe_train_logits", {**one, "of": "fake"}, lambda s: -1.0 - 0.6 * s
            yield "sunpipe_train_penalty", {**one, "name": "r1"}, noisy(0.21, 0.03, "r1")
            yield "sunpipe_train_penalty", {**one, "name": "pl"}, noisy(0.004, 0.001, "pl")
            yield "sunpipe_train_diversity_ratio", one, noisy(0.78, 0.04, "diversity")
            yield "sunpipe_train_augment_probability", one, lambda s: 0.3 * s
            for name, feature, value in (
                ("fd", "random", 61),
                ("fd", "encoder", 24),
                ("kid", "random", 9.1),
            ):
                yield (
                    "sunpipe_train_metric",
                    {**one, "name": name, "feature": feature},
                    lambda s, v=value: v * (1 - 0.25 * math.floor(s * 8) / 8),
                )


def cluster(end: float) -> Iterator[Line]:
    """Two partitions, a queue, the data root and the service."""
    for partition, nodes, gpus in (("gpu", 24, 4), ("cpu", 40, 0)):
        for state, share in (("idle", 0.1), ("mixed", 0.2), ("allocated", 0.6), ("drained", 0.1)):
            yield (
                "sunpipe_slurm_nodes",
                {"partition": partition, "state": state},
                steady(round(nodes * share)),
            )
        for state in ("idle", "allocated", "other"):
            part = {"idle": 0.2, "allocated": 0.7, "other": 0.1}[state]
            for kind, total in (("cpus", nodes * 64), ("gpus", nodes * gpus)):
                at = {"partition": partition, "state": state}
                value = whole(total * part, total * 0.02, f"{partition}{kind}{state}")
                yield f"sunpipe_slurm_{kind}", at, value
        for state, count in (("running", 61), ("pending", 212)):
            yield (
                "sunpipe_slurm_jobs",
                {"partition": partition, "state": state},
                whole(count, 6, partition + state),
            )
    for kind, total in (("nodes", 64), ("cpus", 4096), ("gpus", 96)):
        states = {"idle": 0.14, "mixed": 0.2, "allocated": 0.58, "drained": 0.06, "down": 0.02}
        if kind != "nodes":
            states = {"idle": 0.2, "allocated": 0.7, "other": 0.1}
        for state, part in states.items():
            for name in (f"sunpipe_slurm_cluster_{kind}", f"sunpipe:{kind}:count"):
                value = whole(total * part, total * 0.02, kind + state)
                if state in ("drained", "down"):
                    value = lambda s, c=round(total * part): float(c + (s > 0.4))  # noqa: E731
                yield name, {"state": state}, value
    for state, count in (("running", 122), ("pending", 424)):
        yield "sunpipe:jobs:count", {"state": state}, whole(count, 9, state)
    for reason, count in (
        ("Priority", 301),
        ("Resources", 77),
        ("Dependency", 31),
        ("QOSMaxGRESPerUser", 12),
        ("ReqNodeNotAvail", 3),
    ):
        yield "sunpipe_slurm_pending_jobs", {"reason": reason}, steady(count)
    for stage, state, count in (
        ("train", "running", 1),
        ("embed", "pending", 8),
        ("embed", "running", 2),
    ):
        yield "sunpipe_slurm_own_jobs", {"stage": stage, "state": state}, steady(count)
    for job, stage, state, reason in (
        ("4711", "train", "running", "None"),
        ("4720_[]", "embed", "pending", "JobArrayTaskLimit"),
        ("4720_1", "embed", "running", "None"),
    ):
        yield (
            "sunpipe_slurm_job_info",
            {
                "slurm_job": job,
                "stage": stage,
                "state": state,
                "partition": "gpu",
                "reason": reason,
            },
            steady(1),
        )
        yield (
            "sunpipe_slurm_job_restarts",
            {"slurm_job": job},
            lambda s, j=job: float((s >= 0.5) + 1 if j == "4711" else 0),
        )
    for node in NODES:
        yield "sunpipe_slurm_job_nodes_info", {"slurm_job": "4711", "node": node}, steady(1)
    yield "sunpipe_slurm_job_nodes_info", {"slurm_job": "4720_1", "node": "gpu03"}, steady(1)
    for state, count in (("completed", 14), ("failed", 1)):
        yield (
            "sunpipe_slurm_own_jobs_ended_total",
            {"stage": "embed", "state": state},
            lambda s, c=count: float(round(c * s)),
        )
    for state, count in (("fetched", 61_000), ("wanted", 9_000), ("failed", 40)):
        yield (
            "sunpipe_fetch_records",
            {"state": state},
            lambda s, c=count: float(round(c * (0.8 + 0.2 * s))),
        )
    yield "sunpipe_fetch_running", {}, steady(2)
    yield "sunpipe_fetch_last_change_timestamp_seconds", {}, lambda s: end - 95
    for state, count in (("complete", 231), ("building", 4)):
        yield "sunpipe_shards", {"dataset": "regions_1024", "state": state}, steady(count)
    for state, count in (("rows", 59_112), ("quarantined", 1_888)):
        yield "sunpipe_shard_records", {"dataset": "regions_1024", "state": state}, steady(count)
    yield "sunpipe_index_vectors", {"index": "regions_1024"}, steady(59_112)
    yield "sunpipe_disk_free_bytes", {}, lambda s: 4.1e13 - 2e12 * s
    yield "sunpipe_disk_size_bytes", {}, steady(1.2e14)
    yield "sunpipe_disk_free_inodes", {}, steady(81_000_000)
    for name, seconds in (("runs", 0.04), ("data", 0.3), ("disk", 0.001), ("slurm", 0.21)):
        label = {"collector": name}
        yield "sunpipe_collector_success", label, steady(1)
        yield "sunpipe_collector_faults", label, steady(0)
        yield "sunpipe_collector_seconds", label, noisy(seconds, seconds / 9, name)
        yield "sunpipe_collector_timestamp_seconds", label, lambda s: end - 9
    yield "sunpipe_monitor_info", {"version": "0.1.0"}, steady(1)


def hardware(length: float) -> Iterator[Line]:
    """Two nodes with four GPUs each: recorded names, and DCGM's and node exporter's others."""
    for node in NODES:
        for gpu in range(4):
            at = {"node": node, "gpu": str(gpu)}
            for name, middle, spread in (
                ("sunpipe:gpu_utilisation:ratio", 0.93, 0.03),
                ("sunpipe:gpu_tensor_active:ratio", 0.34, 0.03),
                ("sunpipe:gpu_dram_active:ratio", 0.46, 0.03),
                ("sunpipe:gpu_memory_used:bytes", 65e9, 6e7),
                ("sunpipe:gpu_memory_size:bytes", 85e9, 0),
                ("sunpipe:gpu_power:watts", 590, 20),
                ("sunpipe:gpu_temperature:celsius", 66, 2),
                ("sunpipe:gpu_sm_clock:hertz", 1.905e9, 3e7),
                ("sunpipe:gpu_xid:code", 0, 0),
                ("DCGM_FI_PROF_SM_ACTIVE", 0.71, 0.04),
                ("DCGM_FI_DEV_MEMORY_TEMP", 78, 2),
                ("DCGM_FI_PROF_NVLINK_TX_BYTES", 8.1e9, 5e8),
                ("DCGM_FI_PROF_NVLINK_RX_BYTES", 8.0e9, 5e8),
                ("DCGM_FI_PROF_PCIE_TX_BYTES", 6.1e8, 5e7),
                ("DCGM_FI_PROF_PCIE_RX_BYTES", 9.4e8, 5e7),
            ):
                yield name, at, noisy(middle, spread, f"{name}{node}{gpu}")
        here = {"node": node}
        for name, middle, spread in (
            ("sunpipe:node_cpu_busy:ratio", 0.4, 0.03),
            ("sunpipe:node_cpu_iowait:ratio", 0.02, 0.004),
            ("sunpipe:node_memory_used:ratio", 0.41, 0.01),
            ("sunpipe:node_disk_busy:ratio", 0.11, 0.02),
            ("sunpipe:node_disk_read:bytes_per_second", 3.1e8, 3e7),
            ("sunpipe:node_disk_written:bytes_per_second", 2.2e6, 4e5),
            ("sunpipe:node_network_received:bytes_per_second", 4.5e9, 2e8),
            ("sunpipe:node_network_sent:bytes_per_second", 4.4e9, 2e8),
            ("node_load1", 1.1, 0.2),
        ):
            yield name, here, noisy(middle, spread, name + node)
        for cpu in range(2):
            core = {**here, "cpu": str(cpu), "mode": "idle"}
            yield "node_cpu_seconds_total", core, lambda s: 1e5 + 0.6 * s * length
        for what in ("cpu_waiting", "memory_waiting", "io_waiting"):
            yield f"node_pressure_{what}_seconds_total", here, lambda s: 50 + 0.013 * s * length
        for way, rate in (("transmitted", 4.4e9), ("received", 4.5e9)):
            port = {**here, "device": "mlx5_0", "port": "1"}
            yield (
                f"node_infiniband_port_data_{way}_bytes_total",
                port,
                lambda s, r=rate: 1e6 + r * s * length,
            )


def openmetrics(start: float, end: float, step: float = 30.0) -> str:
    """The history as OpenMetrics text with timestamps; every name of the tables is in it."""
    length = end - start
    lines: dict[str, list[str]] = {}
    for source in (training(start, length), cluster(end), hardware(length)):
        for name, labels, value in source:
            text = ",".join(f'{key}="{each}"' for key, each in labels.items())
            block = lines.setdefault(name, [f"# TYPE {name} unknown"])
            for index in range(int(length / step) + 1):
                number = value(min(1.0, index * step / length))
                if number is not None:
                    block.append(f"{name}{{{text}}} {number:.10g} {start + index * step:.3f}")
    missing = served_names() - set(lines)
    assert not missing, f"add to tests/monitor_history.py: {sorted(missing)}"
    assert set(lines) <= known_names()
    return "\n".join(line for block in lines.values() for line in block) + "\n# EOF\n"


def write_blocks(promtool: str, folder: Path, start: float, end: float) -> None:
    """Make a Prometheus data folder with the history."""
    text = folder.with_suffix(".openmetrics")
    text.write_text(openmetrics(start, end))
    done = subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=336h",
         str(text), str(folder)], capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
