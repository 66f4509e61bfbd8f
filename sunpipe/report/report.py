"""``sunpipe report``: gather what is there, choose the facts, write the page and the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sunpipe import plots
from sunpipe.config import to_dict
from sunpipe.files import write_json, write_text
from sunpipe.paths import Layout
from sunpipe.provenance import versions
from sunpipe.report import hero, numbers
from sunpipe.report.card import card
from sunpipe.report.compare import compare, comparison
from sunpipe.report.facts import choose, header_check
from sunpipe.report.page import ABOUT, PAGE, SCHEMA, identity, kept, render
from sunpipe.report.progress import progress
from sunpipe.report.quality import quality
from sunpipe.report.reproduce import reproduce
from sunpipe.report.retrieval import held_out, retrieval
from sunpipe.report.scorecard import scorecard
from sunpipe.report.section import Section
from sunpipe.report.sources import Sources
from sunpipe.report.spent import spent
from sunpipe.report.timings import timings
from sunpipe.report.training import training
from sunpipe.report.verdict import failure
from sunpipe.report.walked import directions
from sunpipe.run import ssl_name, trained_run
from sunpipe.settings import Config
from sunpipe.stage import Result, log, printable

PICTURE = "hero.png"


def run_inputs(folder: Path) -> list[Path]:
    """Files of a run folder whose change makes a page out of date."""
    names = ("config.json", "stats.jsonl", "status.json", "plan.json", "log.txt",
             "checkpoints/latest")  # fmt: skip
    found = [folder / name for name in names]
    for pattern in ("metric-*.jsonl", "metrics/*.json", "images/fakes-*.png", "hang-*.txt"):
        found += sorted(folder.glob(pattern))
    return found


def artefacts(cfg: Config, layout: Layout) -> list[Path]:
    """What an experiment has beside its runs."""
    shards, latents = layout.shards(cfg.dataset), layout.latents(cfg.name)
    return [
        layout.archive / "manifest.parquet", shards / "dataset.json", latents / "samples.h5",
        latents / "directions.json", layout.embeddings(cfg.name) / "embedding.json",
        layout.index(cfg.name) / "index.json", layout.searches(cfg.name) / "search.json",
        layout.evaluations(cfg.name) / "retrieval.json",
    ]  # fmt: skip


def inputs(cfg: Config, layout: Layout) -> list[Path]:
    """Files whose change makes the page of an experiment out of date."""
    runs = [trained_run(layout, name) for name in (cfg.name, ssl_name(cfg.name))]
    return artefacts(cfg, layout) + [path for run in runs if run for path in run_inputs(run)]


def stage_lines(layout: Layout) -> list[str]:
    """Lines of ``stages.jsonl`` but those of reports, which do not make reports out of date."""
    path = layout.root / "stages.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line for line in lines if '"stage": "report' not in line]


def fingerprint(cfg: Config, layout: Layout, config: Path | None, sets: Sequence[str] = ()) -> str:
    """Identity of everything that the page of an experiment is made from."""
    return identity(inputs(cfg, layout), {"config": printable(to_dict(cfg)), "path": str(config),
                                          "sets": list(sets),
                                          "stages": stage_lines(layout)})  # fmt: skip


def shown(sections: list[Section], layout: Layout) -> list[Section]:
    """The same sections without this machine's paths; what is not shown is logged."""
    sections = [replace(each, why=each.why.replace(f"{layout.root}/", "")) for each in sections]
    for each in sections:
        if each.state != "current":
            log(f"report: {each.title.lower()} not shown, {each.state}: {each.why}")
    return sections


def write(folder: Path, html: str, made_from: str, result: Result) -> Result:
    """Write a page and what it was made from; what both commands return."""
    write_text(folder / PAGE, html)
    result = {"report": str(folder / PAGE), **result, "bytes": (folder / PAGE).stat().st_size}
    write_json(folder / ABOUT, {"schema": SCHEMA, "inputs": made_from, "result": result})
    return {**result, "skipped": False}


def report(
    cfg: Config, config: Path | None = None, again: bool = False, sets: Sequence[str] = ()
) -> Result:
    """Make ``reports/<name>/report.html`` and ``hero.png``, or say that they are up to date.

    Parameters
    ----------
    cfg : Config
    config : Path, optional
        The configuration file, for the commands that the page names.
    again : bool
        Make the page even if nothing changed.
    sets : sequence of str
        What ``--set`` changed, for the same commands.

    Returns
    -------
    dict
        report, hero (absolute paths), facts (up to three sentences), sections
        (key to current, missing, stale or broken), bytes, skipped.
    """
    layout = Layout.current()
    folder = layout.report(cfg.name)
    made_from = fingerprint(cfg, layout, config, sets)
    found = None if again else kept(folder, made_from, PICTURE)
    if found is not None:
        log(f"{folder / PAGE} is up to date")
        return {**found, "report": str(folder / PAGE), "hero": str(folder / PICTURE),
                "skipped": True}  # fmt: skip

    sources = Sources(cfg, layout, config, sets=sets)
    compared = comparison(sources)
    index = sources.index.value
    known = held_out(index) if index is not None else []
    facts = choose(sources, header_check(layout.archive), compared.value, known)
    sections = shown([
        card(sources), training(sources), quality(sources), progress(sources),
        compare(sources, compared), directions(sources), retrieval(sources, known),
        scorecard(sources), spent(sources), timings(sources), reproduce(sources),
    ], layout)  # fmt: skip
    plots.save(hero.draw(sources, compared.value), folder / PICTURE, dpi=hero.DPI)
    eyebrow = f"sunpipe {versions()['sunpipe']} · experiment {cfg.name}"
    return write(folder, render(
        cfg.report.title, eyebrow, sections, facts=facts,
        notes=failure(run) if (run := sources.run.value) is not None else [],
    ), made_from, {
        "hero": str(folder / PICTURE),
        "facts": [fact.text.replace(numbers.SPACE, " ") for fact in facts],
        "sections": {each.key: each.state for each in sections},
    })  # fmt: skip


def plan(cfg: Config, config: Path | None = None, sets: Sequence[str] = ()) -> Result:
    """What `report` would do, writing nothing."""
    layout = Layout.current()
    folder = layout.report(cfg.name)
    return {
        "report": str(folder / PAGE),
        "reads": {str(path): path.exists() for path in inputs(cfg, layout)},
        "up_to_date": kept(folder, fingerprint(cfg, layout, config, sets), PICTURE) is not None,
    }
