"""The scorecard of the search on one data root, without what is particular to a machine.

Run after ``sunpipe embed``, ``sunpipe index build`` and ``sunpipe train``::

    python benchmarks/retrieval.py -c configs/archive_hour.toml --out FILE

The numbers are those of ``sunpipe evaluate retrieval`` (docs/retrieval.md) for each value
of ``retrieval.exclude_hours`` that is asked for. An answer of an earlier run is refused:
its time would be that of reading a file.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from sunpipe.config import load_config
from sunpipe.evaluate.retrieval import evaluate
from sunpipe.evaluate.retrieval_table import render
from sunpipe.paths import Layout
from sunpipe.provenance import git_revision, versions

LEFT_OUT = ("file", "picture", "copies_picture")
DIGITS = 5


def short(value: Any) -> Any:
    """The same with fewer digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: short(one) for key, one in value.items() if key not in LEFT_OUT}
    return [short(one) for one in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("--hours", type=float, nargs="+", default=[24.0])
    parser.add_argument("--about", default="", help="How the archive and the runs were made.")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    config = load_config(options.config)
    answered = Layout.current().evaluations(config.name) / "retrieval.json"
    if answered.is_file():
        parser.error(f"{answered} holds an answer; a benchmark measures: remove it first")
    rows = {}
    for hours in sorted(set(options.hours)):
        started = time.process_time()
        found = evaluate(load_config(options.config, [f"retrieval.exclude_hours={hours}"]))
        print(render(found), flush=True)
        rows[f"{hours:g} h"] = {**short(found), "cpu_s": round(time.process_time() - started, 1)}
    if options.out:
        about = {"about": options.about, "scores": rows, "git": git_revision(),
                 "versions": versions()}  # fmt: skip
        options.out.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
