"""One section of the page: what it shows, or why it cannot and which commands help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sunpipe.errors import DataError
from sunpipe.report.sources import Found, Sources


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    key : str
        Anchor, and name of the template ``<key>.html``.
    title : str
    state : str
        ``current``, or that of the artefact in the way: missing, stale, broken.
    why : str
        What is in the way.
    commands : tuple of str
        What to run.
    data : dict
        What the template shows; empty unless current.
    """

    key: str
    title: str
    state: str = "current"
    why: str = ""
    commands: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)


def section(
    key: str, title: str, sources: Sources, needs: tuple[Found[Any], ...],
    build: Callable[[], dict[str, Any]],
) -> Section:  # fmt: skip
    """Build a section when all it needs is current and readable, else say what is in the way."""
    for found in needs:
        if found.value is None:
            commands = tuple(sources.command(stage) for stage in found.stages)
            return Section(key, title, found.state, found.why, commands)
    try:
        return Section(key, title, data=build())
    except DataError as error:
        return Section(key, title, "broken", str(error))
