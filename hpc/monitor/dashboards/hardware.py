"""Hardware of a job: why is it slow? GPUs and hosts of the job's nodes.

Panels read recorded names (recording.rules.yml) wherever there is one: a GPU counts once there,
also where the site scrapes the exporters a second time, and bridges, bonds, IP over InfiniBand,
partitions and mapped devices are not added to what lies below them. What is not recorded is
read from the exporters themselves, each series once (``max by``): NVIDIA dcgm-exporter,
etc/dcp-metrics-included.csv (the profiling fields SM_ACTIVE, NVLINK and PCIE have to be switched
on there), and node_exporter 1.x. All carry the label `node`, which ``/sd/nodes`` gives.
"""

from __future__ import annotations

from typing import Any

from hpc.monitor.dashboards.frame import Mark, Section, Variable, dashboard
from hpc.monitor.dashboards.panels import Column, Query, lines, rows, value

N = 'node=~"$node"'
GPU = "{{node}} GPU {{gpu}}"
RATE = "[$__rate_interval]"
MARKS = (
    Mark("Job restarts", 'changes(sunpipe_slurm_job_restarts{slurm_job="$slurm_job"}'
         "[$__rate_interval]) > 0", "orange", "job started again"),
)  # fmt: skip


def gpu(name: str) -> str:
    """A field of DCGM that is not recorded: one series for each GPU of the nodes."""
    return f"max by (node, gpu) (DCGM_FI_{name}{{{N}}})"


def recorded(name: str) -> str:
    """A recorded name on the nodes."""
    return f"sunpipe:{name}{{{N}}}"


def infiniband(way: str) -> str:
    """Bytes per second over all ports of a node, each of which counts once."""
    name = f"node_infiniband_port_data_{way}_bytes_total"
    return f"sum by (node) (max by (node, device, port) (rate({name}{{{N}}}{RATE})))"


def summary() -> Section:
    """What a glance should tell."""
    job = ('max by (slurm_job, stage, state, partition)'
           ' (sunpipe_slurm_job_info{slurm_job="$slurm_job"})')  # fmt: skip
    return Section("Where is the time lost?", [
        value("GPU busy", "Mean share of time with any kernel on the GPU. Bad: below 80 %: the "
              "GPUs wait for data, for the network or for the host.",
              Query(f"avg({recorded('gpu_utilisation:ratio')})"), "percentunit", base="red",
              steps=((0.5, "orange"), (0.8, "green")), none="no DCGM", decimals=0),
        value("SM active", "Mean share of the processors with work. Bad: far below 'GPU busy': "
              "kernels are too small; a larger batch, compiled operations.",
              Query(f"avg({gpu('PROF_SM_ACTIVE')})"), "percentunit", base="orange",
              steps=((0.4, "green"),), none="no DCGM", decimals=0),
        value("Hottest GPU", "Bad: above 83 °C: clocks fall.",
              Query(f"max({recorded('gpu_temperature:celsius')})"), "celsius",
              base="green", steps=((78, "orange"), (83, "red")), none="no DCGM", decimals=0),
        value("GPU power", "Of all GPUs of the job's nodes.",
              Query(f"sum({recorded('gpu_power:watts')})"), "watt", none="no DCGM"),
        value("CPU busy", "Mean over the nodes. Bad: above 90 %: loader workers have no core.",
              Query(f"avg({recorded('node_cpu_busy:ratio')})"),
              "percentunit", steps=((0.9, "orange"),), base="green", none="no node exporter",
              decimals=0),
        value("Least free memory", "Of any node. Bad: below 10 %: the node will kill a process.",
              Query(f"1 - max({recorded('node_memory_used:ratio')})"),
              "percentunit", base="red", steps=((0.1, "orange"), (0.2, "green")),
              none="no node exporter", decimals=0),
        rows("Nodes of the job", "Nodes that Slurm gave to the job.", [
            Column("job", label="slurm_job"), Column("node", label="node"),
            Column("stage", label="stage"), Column("state", label="state"),
            Column("partition", label="partition"),
            Column("", 'max by (slurm_job, node)'
                   f' (sunpipe_slurm_job_nodes_info{{slurm_job="$slurm_job", {N}}})'),
            Column("", job),
        ], height=5),
    ])  # fmt: skip


def gpus() -> Section:
    """The devices, as DCGM sees them."""
    return Section("GPUs", [
        lines("GPU busy", "Share of time with any kernel running. Bad: a saw-tooth (waits between "
              "steps) or one GPU apart from the others.",
              [Query(recorded("gpu_utilisation:ratio"), GPU)], "percentunit", low=0, high=1),
        lines("SM active", "Share of streaming multiprocessors with at least one warp. Bad: "
              "below 40 %.",
              [Query(gpu("PROF_SM_ACTIVE"), GPU)], "percentunit", low=0, high=1,
              steps=((0.4, "orange"),)),
        lines("Tensor cores active", "Share of cycles. Bad: near 0 with bf16 or TF32 switched on: "
              "shapes do not fit the tensor cores.",
              [Query(recorded("gpu_tensor_active:ratio"), GPU)], "percentunit", low=0, high=1),
        lines("Memory bandwidth", "Share of cycles in which device memory moved data. Near 80 % "
              "is its limit: then fewer, fused operations help, more arithmetic does not hurt.",
              [Query(recorded("gpu_dram_active:ratio"), GPU)], "percentunit", low=0, high=1,
              steps=((0.8, "orange"),)),
        lines("Memory used", "Share of device memory. Bad: above 95 %, or growing.",
              [Query(f"{recorded('gpu_memory_used:bytes')}"
                     f" / {recorded('gpu_memory_size:bytes')}", GPU)],
              "percentunit", low=0, high=1, steps=((0.95, "red"),)),
        lines("Power", "Bad: one GPU far below the others.",
              [Query(recorded("gpu_power:watts"), GPU)], "watt", low=0),
        lines("Temperature", "Core and memory. Bad: core above 83 °C, memory above 95 °C.",
              [Query(recorded("gpu_temperature:celsius"), GPU),
               Query(gpu("DEV_MEMORY_TEMP"), GPU + " memory")], "celsius",
              steps=((83, "orange"), (95, "red"))),
        lines("Clock of the processors", "Bad: falls while the GPU is busy: heat or a power cap.",
              [Query(recorded("gpu_sm_clock:hertz"), GPU)], "hertz", low=0),
        lines("Newest XID error", "Number of the driver's last error, 0 for none. Bad: not 0: "
              "48, 63, 64, 79, 94 and 95 mean the GPU or its memory: drain the node.",
              [Query(recorded("gpu_xid:code"), GPU)], low=0, stairs=True),
        lines("NVLink", "Bytes per second that each GPU sends (tx) and receives (rx). Bad: 0 "
              "while several ranks train on the node: traffic goes over PCIe.",
              [Query(gpu("PROF_NVLINK_TX_BYTES"), GPU + " tx"),
               Query(gpu("PROF_NVLINK_RX_BYTES"), GPU + " rx")], "Bps", width=12,
              low=0),
        lines("PCIe", "Bytes per second. Bad: close to the bus's limit (about 25 GB/s for "
              "generation 4): batches are too large for the bus, or ZeRO-offload moves them.",
              [Query(gpu("PROF_PCIE_TX_BYTES"), GPU + " tx"),
               Query(gpu("PROF_PCIE_RX_BYTES"), GPU + " rx")], "Bps", width=12,
              low=0),
    ])  # fmt: skip


def host() -> Section:
    """Processors, memory, network and disks, from node exporter."""

    def pressure(what: str) -> Query:
        return Query(
            f"max by (node) (rate(node_pressure_{what}_seconds_total{{{N}}}{RATE}))",
            "{{node}} " + what.replace("_waiting", "").replace("_stalled", ""),
        )

    return Section("Hosts and network", [
        lines("CPU busy", "Share of all cores. Bad: above 90 % on a node of the job.",
              [Query(recorded("node_cpu_busy:ratio"), "{{node}}")], "percentunit", low=0, high=1,
              steps=((0.9, "orange"),)),
        lines("Waiting for the disk", "Share of CPU time that waits for input and output. Bad: "
              "above 5 %: the shards' file system is slow; cache them on the node.",
              [Query(recorded("node_cpu_iowait:ratio"), "{{node}}")], "percentunit", low=0,
              steps=((0.05, "orange"),)),
        lines("Load per core", "Processes that want a core. Bad: above 1.5: too many loader "
              "workers or threads.",
              [Query(f"max by (node) (node_load1{{{N}}}) / count by (node) (count by (node, cpu)"
                     f' (node_cpu_seconds_total{{{N}, mode="idle"}}))', "{{node}}")],
              low=0, steps=((1.5, "orange"),)),
        lines("Memory used", "Share of the node's memory. Bad: above 90 %, or growing.",
              [Query(recorded("node_memory_used:ratio"), "{{node}}")], "percentunit", low=0, high=1,
              steps=((0.9, "red"),)),
        lines("Pressure", "Share of time in which some process waited for CPU, memory or disk "
              "(the kernel's PSI). Bad: above 10 %.",
              [pressure("cpu_waiting"), pressure("memory_waiting"), pressure("io_waiting")],
              "percentunit", low=0, steps=((0.1, "orange"),)),
        lines("Network", "Bytes per second of each node over Ethernet and InfiniBand together. "
              "Bad: much traffic here while InfiniBand shows none: gradients go over Ethernet; "
              "set SUNPIPE_INTERFACE.",
              [Query(recorded("node_network_sent:bytes_per_second"), "{{node}} tx"),
               Query(recorded("node_network_received:bytes_per_second"), "{{node}} rx")], "Bps",
              low=0),
        lines("InfiniBand", "Bytes per second of each node. Bad: 0 while several nodes train.",
              [Query(infiniband("transmitted"), "{{node}} tx"),
               Query(infiniband("received"), "{{node}} rx")], "Bps", low=0),
        lines("Local disks", "Bytes per second that each node reads and writes. Bad: reads near "
              "the disk's limit with a shard cache on it.",
              [Query(recorded("node_disk_read:bytes_per_second"), "{{node}} read"),
               Query(recorded("node_disk_written:bytes_per_second"), "{{node}} write")],
              "Bps", low=0),
        lines("Disk busy", "Share of time with at least one request on the busiest disk. Bad: "
              "near 100 %.",
              [Query(recorded("node_disk_busy:ratio"), "{{node}}")], "percentunit", low=0, high=1,
              steps=((0.9, "red"),)),
    ])  # fmt: skip


def build() -> dict[str, Any]:
    """The dashboard as the value of its JSON file."""
    job = Variable("slurm_job", "Job", "sunpipe_slurm_job_nodes_info",
                   "Slurm's number of a job of sunpipe.", newest_first=True)  # fmt: skip
    node = Variable("node", "Node", 'sunpipe_slurm_job_nodes_info{slurm_job="$slurm_job"}',
                    "Nodes of the job.", several=True)  # fmt: skip
    return dashboard(
        "sunpipe-hardware", "sunpipe: job hardware", "Why is it slow? GPUs, hosts and network.",
        [job, node], [summary(), gpus(), host()], MARKS, since="now-1h",
    )  # fmt: skip
