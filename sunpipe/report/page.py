"""The frame of a page: one HTML file whose every string is escaped by the template engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sunpipe.errors import DataError
from sunpipe.files import digest, read_json, sha256
from sunpipe.provenance import git_revision, now, versions
from sunpipe.report import numbers
from sunpipe.report.section import Section
from sunpipe.stage import Result

SCHEMA = 2
PAGE, ABOUT = "report.html", "report.json"


def render(title: str, eyebrow: str, sections: Sequence[Section], **more: Any) -> str:
    """A page.

    Parameters
    ----------
    title, eyebrow : str
        The heading, and the small line above it.
    sections : sequence of Section
    **more
        ``facts``: shown as cards; ``runs``: (name, colour variable, dashed) of a comparison;
        ``notes``: what a reader must know first.
    """
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
    environment.globals |= {"with_unit": numbers.with_unit, "plus_minus": numbers.plus_minus}
    about: dict[str, Any] = {"facts": [], "runs": [], "notes": [], **more}
    return environment.get_template("page.html").render(
        title=title, eyebrow=eyebrow, made=now(), git=git_revision(), versions=versions(),
        sections=sections, **about,
    )  # fmt: skip


def identity(files: Sequence[Path], more: Mapping[str, Any]) -> str:
    """Identity of everything that a page is made from, without reading the large files."""
    seen = {}
    for path in files:
        if path.exists():
            state = path.stat()
            seen[str(path)] = [state.st_size, state.st_mtime_ns]
    return digest({
        "schema": SCHEMA, "files": seen, **more, "git": git_revision(), "versions": versions(),
        "code": {path.name: sha256(path) for path in sorted(Path(__file__).parent.glob("*.[ph]*"))},
    })  # fmt: skip


def kept(folder: Path, wanted: str, *others: str) -> Result | None:
    """What an earlier call returned, when the page was made from the same things.

    Parameters
    ----------
    others : str
        Files that must stand beside the page.
    """
    if not all((folder / name).is_file() for name in (PAGE, ABOUT, *others)):
        return None
    try:
        about = read_json(folder / ABOUT)
        return dict(about["result"]) if about["inputs"] == wanted else None
    except (DataError, KeyError, TypeError):
        return None  # made again
