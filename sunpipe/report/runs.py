"""``sunpipe report RUN...``: the page of one run, found from its folder alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sunpipe.errors import DataError, UsageError
from sunpipe.files import atomic_path, digest
from sunpipe.paths import Layout
from sunpipe.provenance import versions
from sunpipe.report import numbers
from sunpipe.report.card import card
from sunpipe.report.compare import compare, comparison
from sunpipe.report.facts import choose
from sunpipe.report.folders import config_of, kind, layout_of
from sunpipe.report.page import PAGE, identity, kept, render
from sunpipe.report.progress import progress
from sunpipe.report.quality import quality, read
from sunpipe.report.report import inputs, run_inputs, shown, stage_lines, write
from sunpipe.report.reproduce import reproduce
from sunpipe.report.retrieval import held_out, retrieval
from sunpipe.report.runfolder import RunFolder
from sunpipe.report.scorecard import scorecard
from sunpipe.report.sources import Sources
from sunpipe.report.spent import spent
from sunpipe.report.timings import timings
from sunpipe.report.training import training
from sunpipe.report.typed import typed
from sunpipe.report.verdict import failure, run_facts
from sunpipe.report.walked import directions
from sunpipe.stage import Result, log

LONGEST = 150  # letters of a folder's name


def sources_of(run: RunFolder) -> Sources:
    """Everything that belongs to a run, wherever its data root is."""
    gan, (config, sets) = kind(run) == "gan", typed(run)
    return Sources(config_of(run), layout_of(run), config, gan=run if gan else None,
                   ssl=None if gan else run, sets=sets)  # fmt: skip


def folder_of(runs: Sequence[RunFolder]) -> Path:
    """Where the page of a run, or of a comparison, is put: in the data root in use.

    A run of another root, whose name may stand here too, gets its own folder.
    """
    layout = Layout.current()
    names = [run.folder.name for run in runs]
    name = names[0] if len(names) == 1 else "compare-" + "-".join(names)
    elsewhere = any(layout_of(run).root.resolve() != layout.root.resolve() for run in runs)
    if elsewhere or len(name) > LONGEST:
        mark = digest([str(run.folder.resolve()) for run in runs])[:12]
        name = f"{name[:LONGEST]}-{mark}"
    return layout.report(name)


def fingerprint(runs: Sequence[RunFolder]) -> str:
    """Identity of everything that the page of these runs is made from.

    That includes the newest generator and encoder of the same experiment: a page shows no
    search that was made with another encoder than the newest.
    """
    files: list[Path] = []
    for run in runs:
        files += run_inputs(run.folder) + inputs(config_of(run), layout_of(run))
    lines = [stage_lines(layout_of(run)) for run in runs] if len(runs) == 1 else []
    return identity(files, {"runs": [str(run.folder) for run in runs], "stages": lines})


def one(run: RunFolder, made_from: str) -> Result:
    """Write the page of one run."""
    sources = sources_of(run)
    eyebrow = f"sunpipe {versions()['sunpipe']} · run of {sources.cfg.name}"
    if kind(run) == "ssl":
        facts = run_facts(run, None, [])
        parts = [card(sources), training(sources), scorecard(sources), spent(sources),
                 reproduce(sources)]  # fmt: skip
    else:
        compared, index = comparison(sources), sources.index.value
        known = held_out(index) if index is not None else []
        measured = read(run).value
        facts = run_facts(run, measured[1] if measured else None,
                          choose(sources, None, compared.value, known))  # fmt: skip
        parts = [
            card(sources), training(sources), quality(sources), progress(sources),
            compare(sources, compared), directions(sources), retrieval(sources, known),
            scorecard(sources), spent(sources), timings(sources), reproduce(sources),
        ]  # fmt: skip
    sections = shown(parts, sources.layout)
    html = render(run.folder.name, eyebrow, sections, facts=facts, notes=failure(run))
    return write(folder_of([run]), html, made_from, {
        "runs": [str(run.folder)],
        "facts": [fact.text.replace(numbers.SPACE, " ") for fact in facts],
        "sections": {each.key: each.state for each in sections},
    })  # fmt: skip


def copy_to(page: Path, out: Path) -> None:
    """Copy the page to where the user wants it, whole or not at all.

    Raises
    ------
    DataError
        It cannot be written there.
    """
    try:
        with atomic_path(out) as temporary:
            shutil.copyfile(page, temporary)
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}") from None


def check_out(out: Path | None) -> None:
    """Refuse a place for the page that is a folder or a device, before any work is done."""
    if out is not None and out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a file, such as {out / PAGE}")
    if out is not None and out.exists() and not out.is_file():
        raise UsageError(f"--out {out} is no file; the page would take its place")


def report_runs(runs: Sequence[RunFolder], again: bool = False) -> Result:
    """Make the page of a run or of a comparison, or say that it is up to date.

    Parameters
    ----------
    runs : sequence of RunFolder
        From `sunpipe.report.folders.resolve`; several are compared.
    again : bool
        Make the page even if nothing changed.

    Returns
    -------
    dict
        report (absolute path), runs (their folders), facts, sections (key to state), bytes,
        skipped; of a comparison also ``notes``: what makes the runs differ in kind.
    """
    folder, made_from = folder_of(runs), fingerprint(runs)
    found = None if again else kept(folder, made_from)
    if found is not None:
        log(f"{folder / PAGE} is up to date")
        return {**found, "report": str(folder / PAGE), "skipped": True}
    if len(runs) == 1:
        return one(runs[0], made_from)
    from sunpipe.report.versus import several

    return several(runs, folder, made_from)


def plan_runs(runs: Sequence[RunFolder]) -> Result:
    """What `report_runs` would do, writing nothing."""
    folder = folder_of(runs)
    return {
        "report": str(folder / PAGE), "runs": [str(run.folder) for run in runs],
        "up_to_date": kept(folder, fingerprint(runs)) is not None,
    }  # fmt: skip
