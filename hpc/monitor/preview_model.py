"""The committed dashboards as plain values: what the preview page draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpc.monitor.dashboards.build import COMMITTED, NAMES
from sunpipe.errors import UsageError
from sunpipe.files import read_json


@dataclass(frozen=True)
class Target:
    """One query of a panel."""

    expr: str
    legend: str
    ref: str


@dataclass(frozen=True)
class Header:
    """A column of a table: `field` is a label, or ``Value`` with the query's letter."""

    field: str
    title: str
    unit: str


@dataclass(frozen=True)
class Panel:
    """One panel; `steps` are (value from which it holds, colour), the first from -infinity."""

    kind: str
    title: str
    description: str
    unit: str
    width: int
    targets: tuple[Target, ...]
    low: float | None
    high: float | None
    decimals: int | None
    steps: tuple[tuple[float, str], ...]
    lined: bool
    stacked: bool
    stairs: bool
    named: bool
    none: str
    colours: Mapping[str, str]
    headers: tuple[Header, ...]
    sort: tuple[str, bool] | None


@dataclass(frozen=True)
class Group:
    """A titled row of panels."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Choice:
    """A variable of a dashboard: values that `label` has in the series of `metric`."""

    name: str
    title: str
    metric: str
    label: str
    several: bool
    all_value: str
    descending: bool


@dataclass(frozen=True)
class Marker:
    """Moments at which `expr` is above zero."""

    expr: str
    colour: str
    title: str


@dataclass(frozen=True)
class Board:
    """One dashboard."""

    name: str
    title: str
    description: str
    choices: tuple[Choice, ...]
    markers: tuple[Marker, ...]
    groups: tuple[Group, ...]


def load(names: tuple[str, ...] = NAMES) -> list[Board]:
    """Read dashboards by their short names.

    Raises
    ------
    UsageError
        If there is none of a name.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise UsageError(f"no dashboard {unknown[0]!r}; there are {', '.join(NAMES)}")
    return [board(name, read_json(COMMITTED / "dashboards" / f"{name}.json")) for name in names]


def board(name: str, value: Mapping[str, Any]) -> Board:
    """A dashboard from the JSON that Grafana reads."""
    groups: list[tuple[str, list[Panel]]] = []
    for entry in value["panels"]:
        if entry["type"] == "row":
            groups.append((entry["title"], []))
        else:
            groups[-1][1].append(panel(entry))
    return Board(
        name, value["title"].removeprefix("sunpipe: "), value["description"],
        tuple(choice(entry) for entry in value["templating"]["list"] if entry["type"] == "query"),
        tuple(Marker(entry["expr"], entry["iconColor"], entry["titleFormat"])
              for entry in value.get("annotations", {}).get("list", []) if "expr" in entry),
        tuple(Group(title, tuple(panels)) for title, panels in groups),
    )  # fmt: skip


def choice(value: Mapping[str, Any]) -> Choice:
    """A variable; its query is ``label_values(METRIC, LABEL)``."""
    inside = value["query"]["query"].removeprefix("label_values(").removesuffix(")")
    metric, _, label = inside.rpartition(", ")
    return Choice(
        value["name"], value["label"], metric, label, value["multi"],
        value.get("allValue") or "", value.get("sort") == 8,  # natural, descending
    )  # fmt: skip


def panel(value: Mapping[str, Any]) -> Panel:
    """A panel of one of the four kinds that the dashboards have."""
    options, config = value.get("options", {}), value["fieldConfig"]
    defaults = config["defaults"]
    custom = defaults.get("custom", {})
    steps = defaults.get("thresholds", {}).get("steps", [])
    sort = options.get("sortBy") or []
    return Panel(
        kind=value["type"], title=value["title"], description=value["description"],
        unit=defaults["unit"], width=value["gridPos"]["w"],
        targets=tuple(Target(each["expr"], each["legendFormat"], each["refId"])
                      for each in value["targets"]),
        low=defaults.get("min"), high=defaults.get("max"), decimals=defaults.get("decimals"),
        steps=tuple((float("-inf") if step["value"] is None else step["value"], step["color"])
                    for step in steps),
        lined="thresholdsStyle" in custom,
        stacked=custom.get("stacking", {}).get("mode") == "normal",
        stairs=custom.get("lineInterpolation") == "stepAfter",
        named=options.get("textMode") == "name",
        none=defaults.get("noValue", "no data"), colours=_colours(config["overrides"]),
        headers=_headers(value), sort=(sort[0]["displayName"], sort[0]["desc"]) if sort else None,
    )  # fmt: skip


def _properties(overrides: list[dict[str, Any]], wanted: str) -> dict[str, Any]:
    return {each["matcher"]["options"]: one["value"] for each in overrides
            for one in each["properties"] if one["id"] == wanted}  # fmt: skip


def _colours(overrides: list[dict[str, Any]]) -> dict[str, str]:
    return {name: value["fixedColor"] for name, value in _properties(overrides, "color").items()}


def _headers(value: Mapping[str, Any]) -> tuple[Header, ...]:
    units = _properties(value["fieldConfig"]["overrides"], "unit")
    for change in value.get("transformations", []):
        if change["id"] == "organize":
            titles, order = change["options"]["renameByName"], change["options"]["indexByName"]
            return tuple(Header(field, titles[field], units.get(titles[field], "short"))
                         for field in sorted(order, key=order.__getitem__))  # fmt: skip
    return ()
