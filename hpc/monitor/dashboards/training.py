"""The dashboard of a training run: whether it learns, is fast, and will finish."""

from __future__ import annotations

from typing import Any

from hpc.monitor.dashboards.frame import Mark, Section, Variable, dashboard
from hpc.monitor.dashboards.panels import STATE_COLOURS, Column, Query, lines, link, rows, value

RUN = '{run="$run"}'
# Recorded, as alerts read them, so that a colour here and an alert mean the same.
WAIT = f"sunpipe:train_data_wait:ratio{RUN}"
SKEW = f"sunpipe:train_rank_skew:ratio{RUN}"
QUIET = f"sunpipe:train_quiet:seconds{RUN}"
UNSAVED = f"sunpipe:train_unsaved:seconds{RUN}"

MARKS = (
    Mark("Checkpoints", f"changes(sunpipe_train_last_checkpoint_timestamp_seconds{RUN}"
         "[$__rate_interval]) > 0", "blue", "checkpoint written"),
    Mark("Requeues", f"changes(sunpipe_train_requeues_total{RUN}[$__rate_interval]) > 0",
         "orange", "job started again"),
)  # fmt: skip


def summary() -> Section:
    """What a glance should tell."""
    return Section("Will it finish?", [
        value("State", "running, stopped (will continue when started again), failed, done, or lost "
              "(its process is gone without a word; start it again). Bad: failed, lost, or "
              "running while 'Last tick' grows.",
              Query(f"sunpipe_train_state{RUN} == 1", "{{state}}"),
              named=True, states=STATE_COLOURS),
        value("Progress", "Images shown as a share of the target. Bad: the curve is flat.",
              Query(f"sunpipe_train_kimg{RUN} / sunpipe_train_target_kimg{RUN}"),
              "percentunit", base="blue", decimals=1),
        value("Time left", "At the pace of the last tick, waits in the queue not counted. "
              "Bad: more than the allocation still has.",
              Query(f"sunpipe_train_eta_seconds{RUN}"), "dtdurations"),
        value("Pace", "Seconds per thousand images. Bad: well above what `sunpipe plan` said, or "
              "above what the same run needed yesterday.",
              Query(f"sunpipe_train_seconds_per_kimg{RUN}"), "s", decimals=2),
        value("Last tick", "Time since the run reported last, while it runs. Bad: several times "
              "the length of a tick; then look at hang-*.txt in the run folder.",
              Query(QUIET), "dtdurations", steps=((900, "orange"), (3600, "red"))),
        value("Last checkpoint", "Work that a crash would cost now, while it runs. Bad: hours.",
              Query(UNSAVED), "dtdurations", steps=((7200, "orange"), (14400, "red"))),
        value("Restarts", "How often Slurm started the job of this run again. Bad: restarts "
              "without progress between them (orange marks on the curves).",
              Query(f"sunpipe_train_requeues_total{RUN}"),
              steps=((3, "orange"), (10, "red"))),
        value("Steps left out", "Steps whose loss was not finite. Bad: any that repeat; one in a "
              "long run is harmless.",
              Query(f"sunpipe_train_nonfinite_total{RUN}"), steps=((1, "orange"), (10, "red"))),
        value("Warnings", "Of the last tick; the run's log.txt words them. Bad: not zero.",
              Query(f"sunpipe_train_warnings{RUN}"), steps=((1, "orange"),)),
        value("Waiting for data", "Share of the last tick that ranks spent waiting for shards. "
              "Bad: above 10 %: more loader workers, or a shard cache on the node.",
              Query(WAIT), "percentunit", steps=((0.1, "orange"), (0.2, "red")), decimals=1),
        value("Rank skew", "How much less work the fastest rank has than the slowest: the share of "
              "a tick that it waits. Bad: above 15 %: one GPU or node holds all others up.",
              Query(SKEW), "percentunit", steps=((0.15, "orange"), (0.25, "red")), decimals=1),
        value("Peak memory", "Most memory of any rank's device (of the process on a CPU). Bad: "
              "close to what the device has.",
              Query(f"max by (run) (sunpipe_train_gpu_memory_peak_bytes{RUN})"), "bytes"),
    ])  # fmt: skip


def progress() -> Section:
    """How far it is, and what it is."""
    info = ("max by (run, name, stage, dataset, resolution, loss, world, slurm_job, git) "
            f"(sunpipe_train_info{RUN})")  # fmt: skip
    return Section("Progress", [
        lines("Images shown", "Thousands of images (kimg). Bad: flat, or a step back: a resume "
              "from an older checkpoint.",
              [Query(f"sunpipe_train_kimg{RUN}", "shown"),
               Query(f"sunpipe_train_target_kimg{RUN}", "target")], "kimg", width=12, low=0),
        lines("Time left", "At the pace of each tick. Bad: rising.",
              [Query(f"sunpipe_train_eta_seconds{RUN}", "time left")], "dtdurations",
              width=12, low=0),
        rows("This run", "What runs, and in which job; the job opens its hardware.", [
            Column("run", label="run"), Column("name", label="name"),
            Column("stage", label="stage", width=90), Column("dataset", label="dataset"),
            Column("resolution", label="resolution", width=110),
            Column("loss", label="loss"), Column("ranks", label="world", width=80),
            Column("job", label="slurm_job", link=link("sunpipe-hardware", "slurm_job")),
            Column("code", label="git"), Column("", info),
        ], height=4),
    ])  # fmt: skip


def learning() -> Section:
    """Losses and what else tells a healthy training from a collapsed one."""
    return Section("Is it learning?", [
        lines("Fréchet distance", "Of generated from real images, by the features compared; lower "
              "is better. Bad: rising over several evaluations while the losses look well: D has "
              "memorised, or G loses modes.",
              [Query('sunpipe_train_metric{run="$run", name="fd"}', "{{feature}}")], width=12,
              low=0),
        lines("Other distances", "Kernel distance (kid), distance of physical quantities (w1), "
              "of spectra in dB; lower is better. Bad: one rises while the others fall.",
              [Query('sunpipe_train_metric{run="$run", name!="fd"}', "{{name}} {{feature}}")],
              width=12, low=0),
        lines("Losses", "Means over a tick. Healthy: both hover. Bad: D near 0 while G climbs "
              "(D wins and G gets no gradient), or a jump after a restart.",
              [Query(f"sunpipe_train_loss{RUN}", "{{net}}")]),
        lines("Logits of D", "What D says of real and of generated images. Healthy: real above "
              "generated, a few units apart. Bad: more than 20 apart (D overfits), or they cross.",
              [Query(f"sunpipe_train_logits{RUN}", "{{of}}")]),
        lines("Penalties", "R1 on D, path length on G. Bad: orders of magnitude above their usual "
              "level: the next steps will not be finite.",
              [Query(f"sunpipe_train_penalty{RUN}", "{{name}}")]),
        lines("Diversity", "Spread of D's features over generated images, as a share of that over "
              "real ones. Bad: below 0.2 and falling: G collapses onto few images.",
              [Query(f"sunpipe_train_diversity_ratio{RUN}", "generated / real")],
              "percentunit", low=0, steps=((0.2, "red"),)),
        lines("Augmentation strength", "p of adaptive augmentation (ADA). Bad: rising without "
              "end: there are too few images for this D.",
              [Query(f"sunpipe_train_augment_probability{RUN}", "p")], low=0, high=1,
              steps=((0.8, "orange"),)),
        lines("Spread of the encoder's features", "Only of self-supervised runs: 1 is a full "
              "spread, 0 a collapsed encoder that answers the same to every patch. Bad: below "
              "15 %.", [Query(f"sunpipe_train_feature_spread_ratio{RUN}", "spread")],
              "percentunit", low=0, steps=((0.15, "red"),)),
    ])  # fmt: skip


def speed() -> Section:
    """Where the time of a tick goes."""
    return Section("Is it fast?", [
        lines("Pace", "Seconds per thousand images. Bad: steps upward: another node, another "
              "job on it, or slower storage.",
              [Query(f"sunpipe_train_seconds_per_kimg{RUN}", "s / kimg")], "s", low=0),
        lines("Waiting for data", "Share of each tick that a rank waited for shards (mean). Bad: "
              "above 10 %.", [Query(WAIT, "share of the tick")], "percentunit", low=0,
              steps=((0.1, "orange"), (0.2, "red"))),
        lines("Length of a tick", "Bad: one that is much longer than its neighbours.",
              [Query(f"sunpipe_train_tick_seconds{RUN}", "tick")], "s", low=0),
        lines("Work of each rank", "Seconds of own work in a tick, waits for others left out. "
              "Bad: one rank above the rest; 'Job hardware' shows its node.",
              [Query(f"sunpipe_train_rank_work_seconds{RUN}", "rank {{rank}}")], "s", low=0),
        lines("Rank skew", "Everyone waits for the slowest: 1 - fastest / slowest. Bad: above "
              "15 %.",
              [Query(SKEW, "1 - fastest / slowest")], "percentunit", low=0,
              steps=((0.15, "orange"), (0.25, "red"))),
        lines("Peak memory of each rank", "Most that a rank's device held in a tick. Bad: "
              "growing from tick to tick.",
              [Query(f"sunpipe_train_gpu_memory_peak_bytes{RUN}", "rank {{rank}}")],
              "bytes", low=0),
    ])  # fmt: skip


def safety() -> Section:
    """What a fault would cost, and what has gone wrong already."""
    return Section("Is it safe, and what does it use?", [
        lines("Age of the newest checkpoint", "A saw-tooth: what a crash would cost at each "
              "moment. Bad: a tooth that keeps growing.",
              [Query(f"time() - sunpipe_train_last_checkpoint_timestamp_seconds{RUN}", "age")],
              "dtdurations", low=0),
        lines("Size of the newest checkpoint", "Bad: smaller than before.",
              [Query(f"sunpipe_train_checkpoint_bytes{RUN}", "checkpoint")], "bytes", low=0),
        lines("Restarts and steps left out", "Totals of the run. Bad: stairs without progress.",
              [Query(f"sunpipe_train_requeues_total{RUN}", "restarts"),
               Query(f"sunpipe_train_nonfinite_total{RUN}", "steps left out")],
              low=0, stairs=True),
        lines("Power", "Mean power of all devices of the run, where they tell it. Bad: a fall "
              "while it runs: the devices wait for something.",
              [Query(f"deriv(sunpipe_train_energy_joules_total{RUN}[15m])", "power")], "watt",
              width=12, low=0),
        lines("Energy", "Used by all devices of the run so far.",
              [Query(f"sunpipe_train_energy_joules_total{RUN} / 3.6e6", "energy")], "kwatth",
              width=12, low=0),
    ])  # fmt: skip


def build() -> dict[str, Any]:
    """The dashboard as the value of its JSON file."""
    run = Variable("run", "Run", "sunpipe_train_info",
                   "Name of a run folder; the newest stands first.", newest_first=True)  # fmt: skip
    return dashboard(
        "sunpipe-training", "sunpipe: training run",
        "Is it learning, is it fast, will it finish?", [run],
        [summary(), progress(), learning(), speed(), safety()], MARKS,
    )  # fmt: skip
