"""Runs and jobs as aligned lines, or as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hpc.status.jobs import JobLine, Queue, time_words
from hpc.status.runs import RunLine
from hpc.status.shell import spans
from hpc.status.text import duration, plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

BAR = 12
COLOUR = {"running": "green", "done": "cyan", "stopped": "yellow", "failed": "bold red",
          "lost?": "bold red", "pending": "yellow", "waiting": "yellow",
          "new": "yellow"}  # fmt: skip
RUN_HEAD = ("run", "stage", "state", "kimg", "done", "s/kimg", "left", "saved", "requeues")
JOB_HEAD = ("job", "stage", "state", "nodes", "time")


def bar(share: float | None, width: int = BAR) -> str:
    """``[#####-------]``."""
    if share is None:
        return ""
    full = int(share * width)
    return f"[{'#' * full}{'-' * (width - full)}]"


def figure(value: float | None) -> str:
    """Three digits that count, without an exponent: ``554``, ``3.79``, ``12,700``."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def run_cells(line: RunLine) -> tuple[str, ...]:
    """Cells of `RUN_HEAD`."""
    kimg = figure(line.kimg)
    if line.target_kimg is not None:
        kimg += f"/{figure(line.target_kimg)}"
    done = "" if line.share is None else f"{bar(line.share)} {100 * line.share:3.0f} %"
    saved = "" if line.checkpoint_age_s is None else f"{duration(line.checkpoint_age_s)} ago"
    left = "" if line.left_s is None else duration(line.left_s)
    return (line.run, line.stage, line.state, kimg, done, figure(line.seconds_per_kimg), left,
            saved, str(line.requeues or ""))  # fmt: skip


def run_notes(line: RunLine) -> list[str]:
    """What is said below a run."""
    notes = [line.note] if line.note else []
    if line.nonfinite:
        notes.append(f"{line.nonfinite} steps left out: not finite")
    return notes + [f"warning: {one}" for one in line.warnings]


def together(jobs: Sequence[JobLine]) -> list[JobLine]:
    """Tasks of one array in the same state as one line, where the first of them stands.

    It tells the longest time that one of them runs, and the least that one has left.
    """
    groups: dict[tuple[object, ...], list[JobLine]] = {}
    for number, job in enumerate(jobs):
        array, _, task = job.id.partition("_")
        alike = (array, job.stage, job.state, job.restarts, job.why, job.root)
        groups.setdefault(alike if task.isdigit() else (number,), []).append(job)
    return [_one_line(group) if len(group) > 1 else group[0] for group in groups.values()]


def _one_line(group: Sequence[JobLine]) -> JobLine:
    array = group[0].id.partition("_")[0]
    tasks = sorted(int(job.id.partition("_")[2]) for job in group)
    places = list(dict.fromkeys(job.where for job in group if job.where))
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return replace(
        group[0], id=f"{array}_[{','.join(spans([str(task) for task in tasks]))}]",
        tasks=len(group), nodes=sum(job.nodes for job in group), where=", ".join(places[:3]) + more,
        elapsed_s=max((job.elapsed_s for job in group if job.elapsed_s is not None), default=None),
        left_s=min((job.left_s for job in group if job.left_s is not None), default=None),
    )  # fmt: skip


def job_cells(queue: Queue) -> list[tuple[tuple[str, ...], list[str]]]:
    """Cells of `JOB_HEAD`, and what is said below."""
    rows: list[tuple[tuple[str, ...], list[str]]] = []
    for job in together(queue.jobs):
        tasks = f" ({job.tasks} tasks)" if job.tasks > 1 else ""
        again = f" restart {job.restarts}" if job.restarts else ""
        place = f"{job.nodes}" + (f" {job.where}" if job.where else "")
        cells = (plain(job.id, 40) + tasks, job.stage, job.state + again, place, time_words(job))
        notes = [job.why] if job.why else []
        rows.append((cells, notes + ([f"of the data root {job.root}"] if job.root else [])))
    return rows


def failed_lines(queue: Queue) -> list[list[str]]:
    """Lines about each failed submission."""
    found = []
    for one in queue.failed:
        what = f" {'parts' if '/' in one.tasks[0] else 'tasks'} {', '.join(spans(one.tasks))}" \
               if one.tasks else ""  # fmt: skip
        lines = [f"job {one.id} {one.stage}{what}: {one.state}"]
        lines += [f"of the data root {one.root}"] if one.root else []
        lines += [f"says: {one.words}"] if one.words else []
        lines += [f"log: {one.log}"] if one.log else []
        lines += [f"again: {one.again}"] if one.again else []
        lines += [f"for this line, {one.note}"] if one.note else []
        found.append(lines)
    return found


def aligned(head: Sequence[str], rows: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[str]:
    """Plain lines with columns of equal width; empty columns are left out."""
    cells = [head, *(row for row, _ in rows)]
    kept = [at for at in range(len(head)) if any(row[at] for row, _ in rows)]
    widths = {at: max(len(row[at]) for row in cells) for at in kept}
    out = ["  ".join(f"{head[at]:<{widths[at]}}" for at in kept).rstrip()] if rows else []
    for row, notes in rows:
        out.append("  ".join(f"{row[at]:<{widths[at]}}" for at in kept).rstrip())
        out += [f"    {note}" for note in notes]
    return out


def plain_lines(runs: Sequence[RunLine], queue: Queue, hidden: int, root: str) -> list[str]:
    """Everything as plain lines."""
    out = aligned(RUN_HEAD, [(run_cells(line), run_notes(line)) for line in runs])
    out = out or [f"no runs under {root}/runs"]
    out += [f"{hidden} older runs: --all"] if hidden else []
    jobs = job_cells(queue)
    if jobs:
        out += ["", *aligned(JOB_HEAD, jobs)]
    for lines in failed_lines(queue):
        out += ["", lines[0], *(f"    {line}" for line in lines[1:])]
    if queue.state not in ("ok", "none"):
        out += ["", f"jobs are not shown: {queue.state}"]
    elif queue.state == "ok" and not jobs:
        out += ["", "no jobs of sunpipe in the queue"]
    return out


def tables(runs: Sequence[RunLine], queue: Queue, hidden: int, root: str, width: int
           ) -> list[Text]:  # fmt: skip
    """Everything as coloured lines for a terminal of `width` columns.

    Notes go over the whole width below their run, so that 80 columns are enough.
    """
    from rich.text import Text

    narrow = width < 100
    cells = [run_cells(line) for line in runs]
    drop = {"requeues", "saved"} if narrow else set()
    if narrow:
        cells = [_without_bar(row) for row in cells]
    parts = _grid(
        RUN_HEAD, [(row, run_notes(line)) for row, line in zip(cells, runs, strict=True)], drop,
        width, 2)  # fmt: skip
    if not runs:
        parts = [Text(f"no runs under {root}/runs")]
    if hidden:
        parts.append(Text(f"{hidden} older runs: --all", style="dim"))
    rows = job_cells(queue)
    parts += [Text(), *_grid(JOB_HEAD, rows, set(), width, 2)] if rows else []
    for lines in failed_lines(queue):
        parts += [Text(), Text(lines[0], style="bold red")]
        parts += [Text(f"  {line}") for line in lines[1:]]
    if queue.state not in ("ok", "none"):
        parts += [Text(), Text(f"jobs are not shown: {queue.state}", style="yellow")]
    return parts


def fitting(lines: Sequence[Text], console: Console, rows: int) -> list[Text]:
    """What of `lines` has room in `rows` lines of a terminal; the last one says what is missing."""
    from rich.text import Text

    taken = [len(console.render_lines(line, pad=False)) for line in lines]
    if sum(taken) <= rows:
        return list(lines)
    kept = 0
    while kept < len(lines) and sum(taken[: kept + 1]) < rows:
        kept += 1
    more = Text(f"{sum(taken[kept:])} more lines: a taller window, or sunpipe status", style="dim")
    return [*lines[:kept], more]


def _without_bar(row: tuple[str, ...]) -> tuple[str, ...]:
    at = RUN_HEAD.index("done")
    return (*row[:at], row[at].rpartition("]")[2].strip(), *row[at + 1 :])


def _grid(
    head: Sequence[str], rows: Sequence[tuple[Sequence[str], Sequence[str]]], drop: set[str],
    width: int, state_at: int,
) -> list[Text]:  # fmt: skip
    """Aligned lines as coloured text; the first column gives way when they are too long."""
    from rich.text import Text

    kept = [at for at in range(len(head))
            if head[at] not in drop and any(row[at] for row, _ in rows)]  # fmt: skip
    widths = [max(len(row[at]) for row in (head, *(row for row, _ in rows))) for at in kept]
    if widths and (over := sum(widths) + 2 * (len(kept) - 1) - width) > 0:
        widths[0] = max(widths[0] - over, 10)
    out: list[Text] = []
    for number, (row, notes) in enumerate([(head, []), *rows] if rows else []):
        line = Text(no_wrap=True, overflow="crop")
        for at, room in zip(kept, widths, strict=True):
            cell = row[at] if len(row[at]) <= room else f"{row[at][: room - 1]}…"
            style = "bold" if number == 0 else ""
            if number and at == state_at:
                style = COLOUR.get(cell.split(" ")[0], "")
            line.append(f"{cell:<{room}}", style).append("  ")
        line.rstrip()
        out.append(line)
        out += [Text(f"    {note}", style="yellow") for note in notes]
    return out
