"""The cluster dashboard: whether one can run, on what, and behind whom."""

from __future__ import annotations

from typing import Any

from hpc.monitor.dashboards.frame import Mark, Section, Variable, dashboard
from hpc.monitor.dashboards.panels import (
    STATE_COLOURS,
    Column,
    Query,
    bars,
    lines,
    link,
    rows,
    value,
)

P = 'partition=~"$partition"'
FREE_NODES = f'sunpipe_slurm_nodes{{{P}, state=~"idle|mixed"}}'
HARDWARE = link("sunpipe-hardware", "slurm_job")
TRAINING = link("sunpipe-training", "run")
LOST = 'sum(sunpipe:nodes:count{state=~"down|drained|draining"}'
BAD_END = 'sunpipe_slurm_own_jobs_ended_total{state=~"failed|timeout|node_fail|out_of_memory"}'
MARKS = (
    Mark("Nodes lost", f"{LOST}) - {LOST} offset $__rate_interval) > 0",
         "red", "node out of service"),
    Mark("Jobs failed", f"sum(increase({BAD_END}[$__rate_interval])) > 0",
         "orange", "job of ours failed"),
)  # fmt: skip


def free() -> Section:
    """What is free on the whole cluster, whichever exporter tells it (recording rules)."""
    return Section("Can I run now?", [
        value("Idle GPUs", "GPUs that no job has. Bad: fewer than one node of yours needs.",
              Query('sum(sunpipe:gpus:count{state="idle"})'),
              steps=((1, "green"),), base="orange"),
        value("Idle CPUs", "CPU cores that no job has. Bad: 0.",
              Query('sum(sunpipe:cpus:count{state="idle"})'),
              steps=((1, "green"),), base="orange"),
        value("Free nodes", "Idle or partly used nodes. Bad: 0: jobs wait.",
              Query('sum(sunpipe:nodes:count{state=~"idle|mixed"})'),
              steps=((1, "green"),), base="orange"),
        value("Nodes out of service", "Down, drained or draining. Bad: not 0; "
              "`sinfo -R` gives the reasons.",
              Query('sum(sunpipe:nodes:count{state=~"down|drained|draining"})'),
              steps=((1, "orange"), (5, "red")), base="green"),
        value("Jobs waiting", "Of all users. Bad: many, while nodes are free: see the reasons.",
              Query('sum(sunpipe:jobs:count{state="pending"})')),
        value("Our jobs", "sunpipe's own jobs that wait or run. Bad: 0 while you expect some.",
              Query('sum(sunpipe_slurm_own_jobs{state=~"pending|running|completing"})'),
              base="blue"),
        lines("GPUs", "By state; 'other' is out of service. Bad: no green.",
              [Query("sum by (state) (sunpipe:gpus:count)", "{{state}}")],
              stacked=True, low=0, states=STATE_COLOURS),
        lines("CPUs", "By state; 'other' is out of service. Bad: no green.",
              [Query("sum by (state) (sunpipe:cpus:count)", "{{state}}")],
              stacked=True, low=0, states=STATE_COLOURS),
        lines("Nodes", "By state. Bad: orange and red grow.",
              [Query("sum by (state) (sunpipe:nodes:count) > 0", "{{state}}")],
              stacked=True, low=0, states=STATE_COLOURS),
    ])  # fmt: skip


def partitions() -> Section:
    """Where to submit to."""
    twice = " A node of two partitions counts in both."
    return Section("Where, and behind whom?", [
        rows("Partitions", "Free now, and the queue in front of you. Bad: many jobs waiting and "
             "nothing idle." + twice, [
                 Column("partition", label="partition"),
                 Column("free nodes", f"sum by (partition) ({FREE_NODES})"),
                 Column("all nodes", f"sum by (partition) (sunpipe_slurm_nodes{{{P}}})"),
                 Column("idle CPUs",
                        f'sum by (partition) (sunpipe_slurm_cpus{{{P}, state="idle"}})'),
                 Column("idle GPUs",
                        f'sum by (partition) (sunpipe_slurm_gpus{{{P}, state="idle"}})'),
                 Column("jobs running",
                        f'sum by (partition) (sunpipe_slurm_jobs{{{P}, state="running"}})'),
                 Column("jobs waiting",
                        f'sum by (partition) (sunpipe_slurm_jobs{{{P}, state="pending"}})'),
             ], width=16, sort="free nodes"),
        bars("Why jobs wait", "Waiting jobs of all users by Slurm's reason. Priority and "
             "Resources are the queue. Bad: QOS or Assoc limits (your account's), "
             "DependencyNeverSatisfied (cancel it), ReqNodeNotAvail (a reservation).",
             Query("sunpipe_slurm_pending_jobs > 0", "{{reason}}"), height=7),
        lines("Idle GPUs by partition", "Bad: 0 where you submit." + twice,
              [Query(f'sum by (partition) (sunpipe_slurm_gpus{{{P}, state="idle"}})',
                     "{{partition}}")], low=0),
        lines("Idle CPUs by partition", "Bad: 0 where you submit." + twice,
              [Query(f'sum by (partition) (sunpipe_slurm_cpus{{{P}, state="idle"}})',
                     "{{partition}}")], low=0),
        lines("Jobs in the queue", "Of all users, by state. Bad: waiting ones grow for days.",
              [Query(f"sum by (state) (sunpipe_slurm_jobs{{{P}}}) > 0", "{{state}}")],
              stacked=True, low=0, states=STATE_COLOURS),
    ])  # fmt: skip


def jobs() -> Section:
    """Our jobs and runs."""
    return Section("Our jobs and runs", [
        rows("Jobs", "sunpipe's jobs that wait or run; the number opens the job's hardware. Bad: "
             "restarts that grow, a reason that will not pass.", [
                 Column("job", label="slurm_job", link=HARDWARE), Column("stage", label="stage"),
                 Column("state", label="state"), Column("partition", label="partition"),
                 Column("why it waits", label="reason"),
                 Column("", "max by (slurm_job, stage, state, partition, reason)"
                        f" (sunpipe_slurm_job_info{{{P}}})"),
                 Column("restarts", "max by (slurm_job) (sunpipe_slurm_job_restarts"
                        f" and on (slurm_job) sunpipe_slurm_job_info{{{P}}})"),
             ], width=12, sort="job"),
        rows("Runs", "The newest trainings; the name opens the run. Bad: running with a time "
             "since the last tick of hours; lost; failed.", [
                 Column("run", label="run", link=TRAINING), Column("state", label="state"),
                 Column("", "max by (run, state) (sunpipe_train_state == 1)"),
                 Column("progress",
                        "max by (run) (sunpipe_train_kimg / sunpipe_train_target_kimg)",
                        unit="percentunit"),
                 Column("s / kimg", "max by (run) (sunpipe_train_seconds_per_kimg)", unit="s"),
                 Column("time left", "max by (run) (sunpipe_train_eta_seconds)",
                        unit="dtdurations"),
                 Column("since last tick",
                        "time() - max by (run) (sunpipe_train_last_tick_timestamp_seconds)",
                        unit="dtdurations"),
             ], width=12, sort="run"),
        lines("Our jobs", "By stage and state. Bad: a stage that waits while the one before it "
              "has ended.",
              [Query("sum by (stage, state) (sunpipe_slurm_own_jobs) > 0",
                     "{{stage}} {{state}}")], width=12, stacked=True, low=0),
        lines("Our jobs that ended", "Since the service started. Bad: failed, timeout or "
              "out_of_memory grow; `sunpipe status` names them.",
              [Query("sum by (stage, state) (sunpipe_slurm_own_jobs_ended_total) > 0",
                     "{{stage}} {{state}}")], width=12, low=0, stairs=True),
    ])  # fmt: skip


def data() -> Section:
    """The data root: archive, shards, index, disk."""
    return Section("Data", [
        lines("Archive", "Records by state. Bad: failed grows, or nothing changes while a fetch "
              "runs.", [Query("sunpipe_fetch_records", "{{state}}")], stacked=True, low=0),
        lines("Shards", "By dataset and state.",
              [Query("sunpipe_shards", "{{dataset}} {{state}}")], low=0),
        lines("Records of the datasets", "What became of them. Bad: a large share in quarantine; "
              "`sunpipe verify` and quarantine.parquet give the reasons.",
              [Query("sunpipe_shard_records", "{{dataset}} {{state}}")], low=0),
        value("Fetching now", "Processes that fetch. Bad: 0 while records are missing.",
              Query("sunpipe_fetch_running"), base="blue"),
        value("Last change of the archive", "Bad: above an hour while a fetch runs: JSOC does not "
              "deliver, or the transfer hangs.",
              Query("time() - sunpipe_fetch_last_change_timestamp_seconds"), "dtdurations"),
        value("Vectors in the largest index", "Bad: fewer than the archive has records.",
              Query("max(sunpipe_index_vectors)")),
        value("Free disk", "Of the disk with the data root. Bad: less than the next checkpoints "
              "and shards need: a full disk stops every run.",
              Query("sunpipe_disk_free_bytes"), "bytes"),
        value("Free share", "Of the disk with the data root.",
              Query("sunpipe_disk_free_bytes / sunpipe_disk_size_bytes"), "percentunit",
              base="red", steps=((0.05, "orange"), (0.15, "green")), decimals=1),
        value("Free inodes", "Files that the disk still takes. Bad: below 100 000.",
              Query("sunpipe_disk_free_inodes"), base="red",
              steps=((10_000, "orange"), (100_000, "green"))),
        lines("Index", "Vectors of each index.",
              [Query("sunpipe_index_vectors", "{{index}}")], width=12, low=0),
        lines("Disk", "Free on the disk of the data root. Bad: the line reaches 0 before the run "
              "ends.", [Query("sunpipe_disk_free_bytes", "free")], "bytes", width=12, low=0),
    ])  # fmt: skip


def service() -> Section:
    """Whether the numbers above can be believed."""
    return Section("Can these numbers be believed?", [
        rows("Parts of the service", "`sunpipe monitor serve` reads each part on its own. Bad: "
             "'read' is 0 or its age more than a few minutes: panels above have gaps; or "
             "unreadable folders: the service's log names them.", [
                 Column("part", label="collector"),
                 Column("read", "max by (collector) (sunpipe_collector_success)"),
                 Column("unreadable", "max by (collector) (sunpipe_collector_faults)"),
                 Column("took", "max by (collector) (sunpipe_collector_seconds)", unit="s"),
                 Column("age", "time() - max by (collector)"
                        " (sunpipe_collector_timestamp_seconds)", unit="dtdurations"),
             ], width=16, height=6),
        lines("Time to read each part", "Bad: slurm takes more than a few seconds: the controller "
              "is busy.", [Query("sunpipe_collector_seconds", "{{collector}}")], "s",
              width=8, height=6, low=0),
    ])  # fmt: skip


def build() -> dict[str, Any]:
    """The dashboard as the value of its JSON file."""
    partition = Variable("partition", "Partition", "sunpipe_slurm_nodes",
                         "Slurm partitions to look at.", several=True, all_value=".*")  # fmt: skip
    return dashboard(
        "sunpipe-cluster", "sunpipe: cluster", "Can I run? Free nodes, queue, our jobs, data.",
        [partition], [free(), partitions(), jobs(), data(), service()], MARKS,
    )  # fmt: skip
