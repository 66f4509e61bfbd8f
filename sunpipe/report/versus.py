"""The comparison of several runs: what differs, what came of it, what it cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sunpipe.errors import DataError
from sunpipe.provenance import versions
from sunpipe.report import numbers
from sunpipe.report.beside import beside
from sunpipe.report.cost import cost
from sunpipe.report.faults import faults
from sunpipe.report.folders import dataset, kind
from sunpipe.report.over_time import over_time
from sunpipe.report.overlay import distances, learning, paid_loss
from sunpipe.report.page import render
from sunpipe.report.planned import LABELS, planned
from sunpipe.report.quality import curve_rows, measured
from sunpipe.report.report import shown, write
from sunpipe.report.reproduce import made_by
from sunpipe.report.runfolder import RunFolder
from sunpipe.report.runs import sources_of
from sunpipe.report.scorecard import read as read_scorecard
from sunpipe.report.section import Section
from sunpipe.report.settings_diff import differences
from sunpipe.report.sources import Sources
from sunpipe.report.spent import energy, nodes
from sunpipe.report.spent import several as span
from sunpipe.report.training import cost as pace
from sunpipe.report.training import state
from sunpipe.report.verdict import failure
from sunpipe.report.walked import scores
from sunpipe.report.winners import last_rows, measured_rows
from sunpipe.stage import Result

Runs = Sequence[RunFolder]


def part(key: str, title: str, build: Callable[[], dict[str, Any]]) -> Section:
    """A section of a comparison; what cannot be read costs only its section."""
    try:
        return Section(key, title, data=build())
    except DataError as error:
        return Section(key, title, "broken", str(error))


def notes(runs: Runs) -> list[str]:
    """Which runs failed, and what makes them differ in kind, for the head of the page."""
    found = [note for run in runs for note in failure(run)]
    names, ids = (([dataset(run)[place] for run in runs]) for place in (0, 1))
    if len(set(names)) > 1:
        found.append(
            f"the runs were trained on different datasets ({', '.join(dict.fromkeys(names))}):"
            " distances are measured to different images and are not comparable, nor are losses"
        )
    elif len(set(ids)) > 1:
        found.append(
            f"the runs were trained on different versions of dataset {names[0]}: distances are"
            " measured to different images and are not comparable"
        )
    for key, words in (("resolution", "resolutions"), ("channels", "channels")):
        each = [run.config["data"].get(key) for run in runs]
        texts = [", ".join(map(str, value)) if isinstance(value, list) else str(value)
                 for value in each if value is not None]  # fmt: skip
        if len(set(texts)) > 1:
            found.append(f"the images have different {words} ({'; '.join(dict.fromkeys(texts))}):"
                         " nothing that depends on pixels is comparable")  # fmt: skip
    ends = [run.stats[-1]["kimg"] for run in runs]
    if max(ends) > 1.1 * min(ends):
        found.append("the runs did not see equally many images"
                     f" ({', '.join(numbers.number(end) for end in ends)} kimg): final values are"
                     " not of equal effort")  # fmt: skip
    return found


def glance(runs: Runs) -> dict[str, Any]:
    """What each run is and reached: label to one text for each run."""
    spent, got = [cost(run) for run in runs], [faults(run) for run in runs]
    rows: list[tuple[str, list[str]]] = [
        ("State", [state(run) for run in runs]),
        ("Shown", [f"{numbers.number(run.stats[-1]['kimg'])} kimg" for run in runs]),
        ("Dataset", [f"{dataset(run)[0]} {dataset(run)[1][:8]}" for run in runs]),
        ("Node-hours", [each.node_hours_text for each in spent]),
        ("GPU-hours", [numbers.number(each.gpu_hours) if each.gpus else "no GPU"
                       for each in spent]),
        ("Energy", [energy(each) for each in spent]),
        ("Nodes", [nodes(each) for each in spent]),
        ("Ranks", [span(each.ranks) for each in spent]),
    ]  # fmt: skip
    paces = [dict(pace(run.stats)) for run in runs]
    for label in dict.fromkeys(label for each in paces for label in each):
        rows.append((label, [each.get(label, numbers.DASH) for each in paces]))
    plans = [planned(run) for run in runs]
    for name in LABELS.values():
        off = [next((row["off"] for row in plan["rows"] if row["label"] == name), numbers.DASH)
               for plan in plans]  # fmt: skip
        rows.append((f"{name}: plan off by", off))
    rows += [
        ("Went on from a checkpoint", [f"{each['continued']}" for each in got]),
        ("Restarted by itself", ["not told" if each["requeues"] is None else str(each["requeues"])
                               for each in got]),
        ("Kinds of warnings", [str(len(each["warnings"])) for each in got]),
        ("Hangs", [str(len(each["hangs"])) for each in got]),
        ("Failed", [each["reason"] or "no" for each in got]),
    ]  # fmt: skip
    return {"rows": rows, "told": all(each.told for each in spent),
            "unplanned": [run.name for run, plan in zip(runs, plans, strict=True)
                          if not plan["kept"]]}  # fmt: skip


def final(runs: Runs) -> dict[str, Any]:
    """Final distances with errors where they were evaluated, else the last of the training."""
    found, same = [measured(run) for run in runs], len({dataset(run)[1] for run in runs}) == 1
    lacking = [run.name for run, each in zip(runs, found, strict=True) if each is None]
    return {
        "rows": measured_rows(found, same) if len(lacking) < len(runs) else [],
        "at": [f"{run.name} at {numbers.number(each.kimg)} kimg"
               for run, each in zip(runs, found, strict=True) if each is not None],
        "lacking": lacking, "comparable": same,
        "counts": sorted({each.count for each in found if each is not None}),
        "last": last_rows([curve_rows(run) for run in runs]) if lacking else [],
    }  # fmt: skip


def samples(runs: Runs) -> Section:
    """The same latents by each newest generator."""
    if any(any(run.folder.glob("checkpoints/*/COMPLETE")) for run in runs):
        return part("vs_samples", "Samples", lambda: beside(runs))
    return Section("vs_samples", "Samples", "missing", "no run has a checkpoint yet")


def curves(runs: Runs, gan: bool) -> dict[str, Any]:
    """What ``vs_curves.html`` shows."""
    images, hours = distances(runs) if gan else ([], [])
    return {"learning": learning(runs, gan), "images": images,
            "hours": hours or paid_loss(runs, gan), "gan": gan,
            "told": all(cost(run).told for run in runs)}  # fmt: skip


def walked(sources: Sequence[Sources]) -> dict[str, Any]:
    """Accuracy and largest side effect of each direction, for each run that has current ones."""
    found = [each.directions for each in sources]
    tables = []
    for each in found:
        rows = scores(each.value, each.value.leakage()) if each.value is not None else []
        tables.append({row["name"]: row for row in rows})
    names = list(dict.fromkeys(name for table in tables for name in table))
    return {
        "rows": [{"name": name, "cells": [table.get(name) for table in tables]} for name in names],
        "why": [None if each.value is not None else each.why for each in found],
    }  # fmt: skip


def searched(sources: Sequence[Sources]) -> dict[str, Any]:
    """Recall of the active region and rank correlations of each run's search."""
    found = [read_scorecard(each) for each in sources]
    rows: dict[str, list[Any]] = {}
    for place, each in enumerate(found):
        if each.value is None:
            continue
        own = next((row for row in each.value["regions"] if row["own"]), None)
        cells = (
            dict(
                zip(
                    (
                        "same region first",
                        f"same region in the first {each.value['k']}",
                        "mean rank of the region",
                    ),
                    own["scores"],
                    strict=True,
                )
            )
            if own
            else {}
        )
        cells |= {f"{row['name']}, Spearman’s ρ": row["scores"][0]
                  for row in each.value["physics"]}  # fmt: skip
        for name, cell in cells.items():
            rows.setdefault(name, [None] * len(found))[place] = cell
    return {
        "rows": [{"name": name, "cells": cells} for name, cells in rows.items()],
        "why": [None if each.value is not None else each.why for each in found],
    }  # fmt: skip


def data(sources: Sequence[Sources]) -> dict[str, Any]:
    """The dataset of each run as far as it is there; one card where it is the same for all."""
    from sunpipe.report.card import facts_table

    cards = [dict(facts_table(each.dataset.value)) if each.dataset.value is not None else {}
             for each in sources]  # fmt: skip
    labels = list(dict.fromkeys(label for each in cards for label in each))
    one = cards[0] if all(each == cards[0] for each in cards) else {}
    return {
        "same": list(one.items()),
        "rows": [(label, [each.get(label, numbers.DASH) for each in cards]) for label in labels],
        "why": [each.dataset.why if each.dataset.value is None else None for each in sources],
    }


def origin(runs: Runs) -> dict[str, Any]:
    """Provenance of each run."""
    made = [dict(made_by(run)) for run in runs]
    labels = list(dict.fromkeys(label for each in made for label in each))
    return {"rows": [(label, [each.get(label, numbers.DASH) for each in made])
                     for label in labels]}  # fmt: skip


def settings(runs: Runs) -> dict[str, Any]:
    """Settings that differ."""
    rows, same = differences([run.config for run in runs])
    return {"rows": rows, "same": same}


def without(found: Section, roots: set[str], names: list[str]) -> Section:
    """The same section without paths of this machine, and with the names of the runs."""

    def plain(text: str | None) -> str | None:
        for root in roots:
            text = text.replace(root, "") if text else text
        return text

    data = {key: [plain(text) for text in value] if key in ("why", "left_out") else value
            for key, value in found.data.items()}  # fmt: skip
    return Section(found.key, found.title, found.state, plain(found.why) or "", found.commands,
                   {"names": names, **data})  # fmt: skip


def several(runs: Runs, folder: Path, made_from: str) -> Result:
    """Write the comparison of runs of one kind."""
    gan, sources = kind(runs[0]) == "gan", [sources_of(run) for run in runs]
    names = [run.name for run in runs]
    parts = [
        part("vs_glance", "At a glance", lambda: glance(runs)),
        part("vs_settings", "Settings that differ", lambda: settings(runs)),
        part("vs_curves", "Learning curves", lambda: curves(runs, gan)),
    ]
    if gan:
        parts += [
            part("vs_final", "Final distances", lambda: final(runs)),
            samples(runs),
            part("vs_progress", "Samples over time", lambda: over_time(runs)),
            part("vs_directions", "Directions", lambda: walked(sources)),
        ]
    parts += [
        part("vs_search", "Search", lambda: searched(sources)),
        part("vs_data", "Data", lambda: data(sources)),
        part("vs_origin", "Provenance", lambda: origin(runs)),
    ]
    roots = {f"{each.layout.root}/" for each in sources}
    parts = [without(each, roots, names) for each in parts]
    said = notes(runs)
    title = f"{len(runs)} runs compared" if gan else f"{len(runs)} encoders compared"
    eyebrow = f"sunpipe {versions()['sunpipe']} · comparison"
    sections = shown(parts, sources[0].layout)
    html = render(title, eyebrow, sections, runs=names, notes=said)
    return write(folder, html, made_from, {
        "runs": [str(run.folder) for run in runs], "facts": [],
        "notes": [note.replace(numbers.SPACE, " ") for note in said],
        "sections": {each.key: each.state for each in sections},
        "best": best_of(runs) if gan else {},
    })  # fmt: skip


def best_of(runs: Runs) -> dict[str, str]:
    """Metric to the name of the run that is best in it, where that can be said."""
    try:
        rows = final(runs)["rows"]
    except DataError:
        return {}  # its section says what is damaged
    return {row["name"]: runs[row["best"]].name for row in rows if row["best"] is not None}
