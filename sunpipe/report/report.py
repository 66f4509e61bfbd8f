"""``sunpipe report``: gather what is there, choose the facts, write the page and the picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sunpipe import plots
from sunpipe.config import to_dict
from sunpipe.errors import DataError
from sunpipe.files import digest, read_json, sha256, write_json, write_text
from sunpipe.paths import Layout
from sunpipe.provenance import git_revision, now, versions
from sunpipe.report import hero, numbers
from sunpipe.report.card import card
from sunpipe.report.compare import compare, comparison
from sunpipe.report.facts import Fact, choose, header_check
from sunpipe.report.reproduce import reproduce
from sunpipe.report.retrieval import held_out, retrieval
from sunpipe.report.section import Section
from sunpipe.report.sources import Sources
from sunpipe.report.timings import timings
from sunpipe.report.training import training
from sunpipe.report.walked import directions
from sunpipe.run import find_run, ssl_name
from sunpipe.settings import Config
from sunpipe.stage import Result, log, printable

SCHEMA = 1
PAGE, PICTURE, ABOUT = "report.html", "hero.png", "report.json"


def inputs(cfg: Config, layout: Layout) -> list[Path]:
    """Files whose change makes the page out of date."""
    runs = [find_run(layout, name) for name in (cfg.name, ssl_name(cfg.name))]
    shards, latents = layout.shards(cfg.dataset), layout.latents(cfg.name)
    return [
        layout.archive / "manifest.parquet", shards / "dataset.json",
        *(run / name for run in runs if run
          for name in ("stats.jsonl", "status.json", "checkpoints/latest")),
        latents / "samples.h5", latents / "directions.json",
        layout.embeddings(cfg.name) / "embedding.json", layout.index(cfg.name) / "index.json",
        layout.searches(cfg.name) / "search.json",
    ]  # fmt: skip


def fingerprint(cfg: Config, layout: Layout, config: Path | None) -> str:
    """Identity of everything that the page is made from, without reading the large files."""
    stages = layout.root / "stages.jsonl"
    lines = stages.read_text(encoding="utf-8").splitlines() if stages.exists() else []
    files = {}
    for path in inputs(cfg, layout):
        if path.exists():
            state = path.stat()
            files[str(path)] = [state.st_size, state.st_mtime_ns]
    return digest({
        "schema": SCHEMA, "files": files, "config": printable(to_dict(cfg)), "path": str(config),
        "stages": [line for line in lines if '"stage": "report"' not in line],
        "git": git_revision(), "versions": versions(),
        "code": {path.name: sha256(path) for path in sorted(Path(__file__).parent.glob("*.[ph]*"))},
    })  # fmt: skip


def render(cfg: Config, sections: list[Section], facts: list[Fact]) -> str:
    """The page. Every string of the data is escaped by the template engine."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("sunpipe", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        number=numbers.number, fixed=numbers.fixed, percent=numbers.percent,
        duration=numbers.duration, signed=numbers.signed, svg=Markup,
    )  # fmt: skip
    environment.globals["with_unit"] = numbers.with_unit
    return environment.get_template("page.html").render(
        title=cfg.report.title, name=cfg.name, made=now(), git=git_revision(),
        versions=versions(), sections=sections, facts=facts,
    )  # fmt: skip


def kept(folder: Path, wanted: str) -> Result | None:
    """What an earlier call returned, when the page was made from the same things."""
    if not all((folder / name).is_file() for name in (PAGE, PICTURE, ABOUT)):
        return None
    try:
        about = read_json(folder / ABOUT)
        return dict(about["result"]) if about["inputs"] == wanted else None
    except (DataError, KeyError, TypeError):
        return None  # made again


def report(cfg: Config, config: Path | None = None, again: bool = False) -> Result:
    """Make ``reports/<name>/report.html`` and ``hero.png``, or say that they are up to date.

    Parameters
    ----------
    cfg : Config
    config : Path, optional
        The configuration file, for the commands that the page names.
    again : bool
        Make the page even if nothing changed.

    Returns
    -------
    dict
        report, hero (absolute paths), facts (up to three sentences), sections
        (key to current, missing, stale or broken), bytes, skipped.
    """
    layout = Layout.current()
    folder = layout.report(cfg.name)
    made_from = fingerprint(cfg, layout, config)
    found = None if again else kept(folder, made_from)
    if found is not None:
        log(f"{folder / PAGE} is up to date")
        return {**found, "report": str(folder / PAGE), "hero": str(folder / PICTURE),
                "skipped": True}  # fmt: skip

    sources = Sources(cfg, layout, config)
    compared = comparison(sources)
    index = sources.index.value
    known = held_out(index) if index is not None else []
    facts = choose(sources, header_check(layout.archive), compared.value, known)
    sections = [
        card(sources), training(sources), compare(sources, compared), directions(sources),
        retrieval(sources, known), timings(sources), reproduce(sources),
    ]  # fmt: skip
    sections = [replace(each, why=each.why.replace(f"{layout.root}/", "")) for each in sections]
    for each in sections:
        if each.state != "current":
            log(f"report: {each.title.lower()} not shown, {each.state}: {each.why}")
    plots.save(hero.draw(sources, compared.value), folder / PICTURE, dpi=hero.DPI)
    write_text(folder / PAGE, render(cfg, sections, facts))
    result = {
        "report": str(folder / PAGE), "hero": str(folder / PICTURE),
        "facts": [fact.text.replace(numbers.SPACE, " ") for fact in facts],
        "sections": {each.key: each.state for each in sections},
        "bytes": (folder / PAGE).stat().st_size,
    }  # fmt: skip
    write_json(folder / ABOUT, {"schema": SCHEMA, "inputs": made_from, "result": result})
    return {**result, "skipped": False}


def plan(cfg: Config, config: Path | None = None) -> Result:
    """What `report` would do, writing nothing."""
    layout = Layout.current()
    folder = layout.report(cfg.name)
    return {
        "report": str(folder / PAGE),
        "reads": {str(path): path.exists() for path in inputs(cfg, layout)},
        "up_to_date": kept(folder, fingerprint(cfg, layout, config)) is not None,
    }
