"""``stages.jsonl``: what was run when and for how long. Written by `sunpipe.stage`."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

from sunpipe.errors import DataError
from sunpipe.report import numbers
from sunpipe.report.section import Section
from sunpipe.report.sources import Sources

ORDER = ("fetch", "shard", "train", "sample", "directions", "ssl", "embed", "index", "search",
         "report")  # fmt: skip
ASIDE = ("report-run",)  # pages about runs are no stage of the experiment
IDLE = ("skipped", "up_to_date")  # a result says so when there was nothing to do


def read_stages(root: Path) -> list[dict[str, Any]]:
    """All rows of ``stages.jsonl``, oldest first; a torn last line is left out.

    Raises
    ------
    DataError
        Another line is not a row.
    """
    path = root / "stages.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({**row, "stage": str(row["stage"]), "seconds": float(row["seconds"]),
                         "result": dict(row["result"])})  # fmt: skip
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise DataError(f"{path}:{number} is not a stage's row") from None
    return rows


def last_work(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The last row of each stage of an experiment that did work, in the order of the data."""
    last: dict[str, dict[str, Any]] = {}
    for row in rows:
        idle = any(row["result"].get(key) for key in IDLE) or row["stage"] in ASIDE
        if row.get("name") == name and not idle:
            last[row["stage"]] = row
    known = [last.pop(stage) for stage in ORDER if stage in last]
    return known + list(last.values())


def timings(sources: Sources) -> Section:
    """How long each stage took, and on what machine."""
    title = "Timings"
    try:
        rows = last_work(read_stages(sources.layout.root), sources.cfg.name)
    except DataError as error:
        return Section("timings", title, "broken", str(error))
    if not rows:
        return Section("timings", title, "missing", "no stage has finished yet",
                       (sources.command("fetch"),))  # fmt: skip
    longest = max(row["seconds"] for row in rows) or 1.0
    bars = [{"stage": row["stage"], "time": row.get("time", ""),
             "text": numbers.duration(row["seconds"]), "share": 100 * row["seconds"] / longest}
            for row in rows]  # fmt: skip
    run = sources.run.value
    made = run.provenance if run is not None else {}
    machine = f"{made['cpus']} CPU cores ({made['host']})" if "cpus" in made else ""
    slurm = ", ".join(f"{key} {value}" for key, value in made.get("slurm", {}).items())
    return Section("timings", title, data={
        "bars": bars, "total": numbers.duration(sum(row["seconds"] for row in rows)),
        "machine": machine, "slurm": slurm, "system": f"{platform.system()} {platform.machine()}",
    })  # fmt: skip
