"""Metrics of other exporters that rules and panels read, and names in expressions.

An expression may use a name only if it stands in `hpc.monitor.names` or here: a
misspelt one would be empty for ever without a word from Prometheus.
"""

from __future__ import annotations

import re

from hpc.monitor.names import NAMES, RECORDED

DIALECTS: dict[str, tuple[str, ...]] = {
    # https://slurm.schedmd.com/metrics.html, Slurm 25.11
    "slurm": (
        "slurm_nodes_idle", "slurm_nodes_mixed", "slurm_nodes_alloc", "slurm_nodes_completing",
        "slurm_nodes_drained", "slurm_nodes_draining", "slurm_nodes_down", "slurm_nodes_maint",
        "slurm_nodes_resv", "slurm_node_cpus_alloc", "slurm_node_cpus_idle", "slurm_node_gpus",
        "slurm_node_gpus_alloc", "slurm_jobs_pending", "slurm_jobs_running",
    ),
    # https://github.com/vpenso/prometheus-slurm-exporter
    "vpenso": (
        "slurm_nodes_idle", "slurm_nodes_mix", "slurm_nodes_alloc", "slurm_nodes_comp",
        "slurm_nodes_drain", "slurm_nodes_down", "slurm_nodes_maint", "slurm_nodes_resv",
        "slurm_cpus_alloc", "slurm_cpus_idle", "slurm_cpus_other", "slurm_gpus_alloc",
        "slurm_gpus_idle", "slurm_gpus_other", "slurm_queue_pending", "slurm_queue_running",
    ),
    # https://github.com/rivosinc/prometheus-slurm-exporter
    "rivosinc": (
        "slurm_node_count_per_state", "slurm_cpus_total", "slurm_cpus_idle",
        "slurm_partition_job_state_total",
    ),
    # https://github.com/NVIDIA/dcgm-exporter, etc/default-counters.csv; SM_ACTIVE and those of
    # NVLink and PCIe: etc/dcp-metrics-included.csv
    "dcgm": (
        "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_PROF_DRAM_ACTIVE",
        "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_POWER_USAGE",
        "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_XID_ERRORS",
        "DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_DEV_MEMORY_TEMP", "DCGM_FI_PROF_NVLINK_TX_BYTES",
        "DCGM_FI_PROF_NVLINK_RX_BYTES", "DCGM_FI_PROF_PCIE_TX_BYTES", "DCGM_FI_PROF_PCIE_RX_BYTES",
    ),
    # https://github.com/prometheus/node_exporter
    "node": (
        "node_cpu_seconds_total", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes",
        "node_disk_io_time_seconds_total", "node_disk_read_bytes_total",
        "node_disk_written_bytes_total", "node_network_receive_bytes_total",
        "node_network_transmit_bytes_total", "node_infiniband_port_data_received_bytes_total",
        "node_infiniband_port_data_transmitted_bytes_total", "node_load1",
        "node_pressure_cpu_waiting_seconds_total", "node_pressure_memory_waiting_seconds_total",
        "node_pressure_io_waiting_seconds_total",
    ),
}  # fmt: skip
PROMETHEUS = ("up", "ALERTS", "ALERTS_FOR_STATE")  # its own

_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_WORDS = frozenset(
    ("and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left",
     "group_right", "inf", "nan", "start", "end", "atan2")
)  # fmt: skip


def served_names() -> set[str]:
    """Names of series as Prometheus sees them: counters end in ``_total``."""
    return {f"{name}_total" if known.kind == "counter" else name for name, known in NAMES.items()}


def known_names() -> set[str]:
    """Every name that an expression may use."""
    foreign = {name for names in DIALECTS.values() for name in names}
    return served_names() | set(RECORDED) | foreign | set(PROMETHEUS)


def metric_names(expression: str) -> set[str]:
    """Names of metrics in a PromQL expression.

    Strings, label matchers, grouping labels, durations and functions are left out.
    """
    named = re.findall(r"__name__\s*=\s*[\"'`]([\w:]+)[\"'`]", expression)
    named += re.findall(r"\{\s*[\"']([\w:]+)[\"']\s*[,}]", expression)  # {"name", label="..."}
    text = re.sub(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`", '""', expression)
    text = re.sub(r"\{[^}]*\}", " ", text)
    text = re.sub(r"\[[^\]]*\]", " ", text)
    text = _GROUPING.sub(" ", text)
    found = re.findall(r"(?<![\w:$.])([A-Za-z_:][\w:]*)(?!\s*\()(?![\w:])", text)
    return {name for name in (*found, *named) if name.lower() not in _WORDS}


def unknown_names(expression: str) -> set[str]:
    """Names in an expression that neither sunpipe nor a known exporter serves."""
    return metric_names(expression) - known_names()
