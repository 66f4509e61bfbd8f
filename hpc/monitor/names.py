"""Every metric that ``sunpipe monitor serve`` offers: the one table of names.

Base units, ``_total`` on counters, ids only on the ``_info`` series, few values
per label (Prometheus' naming practice). Dashboards, rules and alerts use these
names only, which tests check against a real Prometheus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter"]


@dataclass(frozen=True)
class Name:
    """One metric family.

    Attributes
    ----------
    kind : str
        A counter is stored without its ``_total``, which the client library adds.
    help : str
        What it is, with the unit.
    labels : tuple of str
        `run` is the name of a run folder, `dataset` and `index` those of theirs.
    """

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


RUN = ("run",)
NAMES: dict[str, Name] = {
    # training: run folders
    "sunpipe_train_info": Name(
        "gauge", "1; what a run is, and the job it runs in.",
        ("run", "name", "stage", "dataset", "resolution", "loss", "world", "slurm_job", "git"),
    ),
    "sunpipe_train_state": Name("gauge", "1 for the state a run is in, 0 for the others.",
                                ("run", "state")),
    "sunpipe_train_kimg": Name("gauge", "Thousands of images shown.", RUN),
    "sunpipe_train_target_kimg": Name("gauge", "Thousands of images to be shown.", RUN),
    "sunpipe_train_eta_seconds": Name("gauge", "Seconds left at the pace of the last tick.", RUN),
    "sunpipe_train_loss": Name("gauge", "Loss over the last tick.", ("run", "net")),
    "sunpipe_train_logits": Name("gauge", "Mean logits of D over the last tick.", ("run", "of")),
    "sunpipe_train_penalty": Name("gauge", "Penalty over the last tick.", ("run", "name")),
    "sunpipe_train_diversity_ratio": Name(
        "gauge", "Spread of D's features over generated as a share of that over real images.", RUN),
    "sunpipe_train_feature_spread_ratio": Name(
        "gauge", "Spread of an encoder's features as a share of a full one; 0 is collapsed.", RUN),
    "sunpipe_train_augment_probability": Name("gauge", "Strength p of ADA.", RUN),
    "sunpipe_train_warnings": Name("gauge", "Warnings of the last tick.", RUN),
    "sunpipe_train_seconds_per_kimg": Name("gauge", "Seconds per thousand images.", RUN),
    "sunpipe_train_data_wait_seconds": Name(
        "gauge", "Seconds that a rank waited for data in the last tick (mean).", RUN),
    "sunpipe_train_tick_seconds": Name("gauge", "Length of the last tick.", RUN),
    "sunpipe_train_rank_work_seconds": Name(
        "gauge", "Own work of a rank in the last tick, waits for others left out.",
        ("run", "rank")),
    "sunpipe_train_gpu_memory_peak_bytes": Name(
        "gauge", "Most memory of a rank's device; of the process on a CPU.", ("run", "rank")),
    "sunpipe_train_metric": Name("gauge", "Newest distance of generated from real images.",
                                 ("run", "name", "feature")),
    "sunpipe_train_last_tick_timestamp_seconds": Name("gauge", "When the last tick ended.", RUN),
    "sunpipe_train_last_checkpoint_timestamp_seconds": Name(
        "gauge", "When the newest complete checkpoint was written.", RUN),
    "sunpipe_train_checkpoint_bytes": Name("gauge", "Size of the newest checkpoint.", RUN),
    "sunpipe_train_started_timestamp_seconds": Name(
        "gauge", "When the process that trains now was started.", RUN),
    "sunpipe_train_requeues": Name("counter", "Restarts of a run's jobs.", RUN),
    "sunpipe_train_nonfinite": Name("counter", "Steps left out for a loss that is not finite.",
                                    RUN),
    "sunpipe_train_energy_joules": Name("counter", "Energy used, where the devices tell.", RUN),
    # data, index, disk: the data root
    "sunpipe_fetch_records": Name(
        "gauge", "Records of the archive by state; fetched is one of which all files are there.",
        ("state",)),
    "sunpipe_fetch_running": Name("gauge", "Processes that fetch now."),
    "sunpipe_fetch_last_change_timestamp_seconds": Name("gauge", "When a record changed last."),
    "sunpipe_shards": Name("gauge", "Shards of a dataset by state.", ("dataset", "state")),
    "sunpipe_shard_records": Name("gauge", "Records of a dataset by what became of them.",
                                  ("dataset", "state")),
    "sunpipe_index_vectors": Name("gauge", "Vectors of an index.", ("index",)),
    "sunpipe_disk_free_bytes": Name("gauge", "Free on the disk of the data root."),
    "sunpipe_disk_size_bytes": Name("gauge", "Size of the disk of the data root."),
    "sunpipe_disk_free_inodes": Name("gauge", "Files that the disk of the data root still takes."),
    # Slurm, from its commands
    "sunpipe_slurm_nodes": Name("gauge", "Nodes by state.", ("partition", "state")),
    "sunpipe_slurm_cpus": Name("gauge", "CPUs by state.", ("partition", "state")),
    "sunpipe_slurm_gpus": Name("gauge", "GPUs by state.", ("partition", "state")),
    # a node counts once for each of its partitions above, and once here
    "sunpipe_slurm_cluster_nodes": Name("gauge", "Nodes of the cluster by state.", ("state",)),
    "sunpipe_slurm_cluster_cpus": Name("gauge", "CPUs of the cluster by state.", ("state",)),
    "sunpipe_slurm_cluster_gpus": Name("gauge", "GPUs of the cluster by state.", ("state",)),
    "sunpipe_slurm_jobs": Name("gauge", "Jobs of all users by state.", ("partition", "state")),
    "sunpipe_slurm_pending_jobs": Name("gauge", "Waiting jobs by Slurm's reason.", ("reason",)),
    "sunpipe_slurm_own_jobs": Name("gauge", "sunpipe's jobs by stage and state.",
                                   ("stage", "state")),
    "sunpipe_slurm_job_info": Name("gauge", "1; a job of sunpipe that waits or runs.",
                                   ("slurm_job", "stage", "state", "partition", "reason")),
    "sunpipe_slurm_job_nodes_info": Name("gauge", "1; a node that a job of sunpipe has.",
                                         ("slurm_job", "node")),
    "sunpipe_slurm_job_restarts": Name("gauge", "How often Slurm started a job again.",
                                       ("slurm_job",)),
    "sunpipe_slurm_own_jobs_ended": Name(
        "counter", "sunpipe's jobs that ended since the service started.", ("stage", "state")),
    # the service itself
    "sunpipe_collector_success": Name("gauge", "1 when this part could be read, else 0.",
                                      ("collector",)),
    "sunpipe_collector_seconds": Name("gauge", "Time that reading this part took.",
                                      ("collector",)),
    "sunpipe_collector_timestamp_seconds": Name("gauge", "When this part was read last.",
                                                ("collector",)),
    "sunpipe_collector_faults": Name(
        "gauge", "Folders that this part found but could not read; the service's log names them.",
        ("collector",)),
    "sunpipe_monitor_info": Name("gauge", "1; the service.", ("version",)),
}  # fmt: skip

# What recording rules make of ours and of other exporters' metrics (recording.rules.yml).
# `node` is Slurm's name of a node, as in sunpipe_slurm_job_nodes_info, which tells its jobs.
RECORDED: dict[str, Name] = {
    "sunpipe:nodes:count": Name("gauge", "Nodes of the cluster by state.", ("state",)),
    "sunpipe:cpus:count": Name("gauge", "CPUs of the cluster by state.", ("state",)),
    "sunpipe:gpus:count": Name("gauge", "GPUs of the cluster by state.", ("state",)),
    "sunpipe:jobs:count": Name("gauge", "Jobs of all users, pending and running.", ("state",)),
    "sunpipe:nodes_lost:count": Name(
        "gauge", "Nodes of the cluster that are drained, draining or down."),
    # training
    "sunpipe:train_quiet:seconds": Name(
        "gauge", "Since the last tick of a running training, or since it was started.", RUN),
    "sunpipe:train_unsaved:seconds": Name(
        "gauge", "Since the last checkpoint of a running training, or since it was started.", RUN),
    "sunpipe:train_data_wait:ratio": Name("gauge", "Share of a tick that ranks wait for data.",
                                          RUN),
    "sunpipe:train_rank_skew:ratio": Name(
        "gauge", "How much less the quickest rank works than the slowest, as a share.", RUN),
    "sunpipe:train_logit_gap:logits": Name(
        "gauge", "Mean logits of D for real less those for generated images.", RUN),
    # DCGM exporter
    "sunpipe:gpu_utilisation:ratio": Name("gauge", "Share of time with a kernel on the GPU.",
                                          ("node", "gpu")),
    "sunpipe:gpu_tensor_active:ratio": Name("gauge", "Share of cycles with tensor cores at work.",
                                            ("node", "gpu")),
    "sunpipe:gpu_dram_active:ratio": Name("gauge", "Share of cycles in which memory moves data.",
                                          ("node", "gpu")),
    "sunpipe:gpu_memory_used:bytes": Name("gauge", "Memory in use.", ("node", "gpu")),
    "sunpipe:gpu_memory_size:bytes": Name("gauge", "Memory in use and free.", ("node", "gpu")),
    "sunpipe:gpu_power:watts": Name("gauge", "Power draw.", ("node", "gpu")),
    "sunpipe:gpu_temperature:celsius": Name("gauge", "Temperature of the GPU.", ("node", "gpu")),
    "sunpipe:gpu_sm_clock:hertz": Name("gauge", "Clock of the multiprocessors.", ("node", "gpu")),
    "sunpipe:gpu_xid:code": Name("gauge", "Last XID error of the driver; 0 is none.",
                                 ("node", "gpu")),
    # node exporter
    "sunpipe:node_cpu_busy:ratio": Name("gauge", "Share of CPU time that is not idle.", ("node",)),
    "sunpipe:node_cpu_iowait:ratio": Name("gauge", "Share of CPU time that waits for disks.",
                                          ("node",)),
    "sunpipe:node_memory_used:ratio": Name("gauge", "Share of memory that is in use.", ("node",)),
    "sunpipe:node_disk_busy:ratio": Name("gauge", "Share of time that the busiest disk works.",
                                         ("node",)),
    "sunpipe:node_disk_read:bytes_per_second": Name("gauge", "Read from local disks.", ("node",)),
    "sunpipe:node_disk_written:bytes_per_second": Name("gauge", "Written to local disks.",
                                                       ("node",)),
    "sunpipe:node_network_received:bytes_per_second": Name(
        "gauge", "Received over Ethernet and InfiniBand.", ("node",)),
    "sunpipe:node_network_sent:bytes_per_second": Name(
        "gauge", "Sent over Ethernet and InfiniBand.", ("node",)),
}  # fmt: skip

# Values of the labels that have a fixed set; anything else counts as "other".
TRAIN_STATES = ("running", "stopped", "failed", "done", "lost")
NODE_STATES = ("idle", "mixed", "allocated", "completing", "drained", "draining", "down", "other")
JOB_STATES = ("pending", "running", "completing", "suspended", "completed", "failed", "cancelled",
              "timeout", "node_fail", "out_of_memory", "preempted", "requeued",
              "other")  # fmt: skip
# Of the files of a record the one that comes first here decides for the record.
FETCH_STATES = ("wanted", "staged", "failed", "quarantined", "missing", "fetched")
SHARD_STATES = ("complete", "building")
RESOURCE_STATES = ("allocated", "idle", "other")
RANKS_SHOWN = 64  # of a run; beyond, only the extremes are labelled "min" and "max"
DATASETS_SHOWN = 50  # and indices
JOBS_SHOWN = 200  # of sunpipe, the newest
REASONS_SHOWN = 20
RUNS_SHOWN = 50  # the newest, running ones first
COLLECTORS = ("runs", "data", "disk", "slurm")
