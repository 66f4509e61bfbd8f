"""Panels of the dashboards, in the terms of this project, over Grafana's own builders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
Steps = Sequence[tuple[float, str]]
Properties = Sequence[tuple[str, Any]]
# One colour per meaning, on every dashboard.
STATE_COLOURS = {
    "running": "green", "done": "blue", "stopped": "orange", "failed": "red", "lost": "red",
    "idle": "green", "mixed": "#73bf69", "allocated": "blue", "completing": "yellow",
    "draining": "orange", "drained": "dark-orange", "down": "red", "other": "text",
    "pending": "yellow", "completed": "blue", "cancelled": "text", "timeout": "orange",
    "node_fail": "dark-red", "out_of_memory": "purple", "preempted": "orange",
    "suspended": "text", "requeued": "orange",
}  # fmt: skip


@dataclass(frozen=True)
class Query:
    """One expression, and how its series are called (``{{label}}`` is replaced)."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True)
class Column:
    """A column of a table: the value of `expr`, or (without one) a label of the rows.

    `link` is a URL in which ``${__value.raw}`` stands for the cell.
    """

    title: str
    expr: str = ""
    label: str = ""
    unit: str = ""
    link: str = ""
    width: int = 0


def link(board: str, variable: str) -> str:
    """Address of a dashboard about the cell that is clicked; source and times are kept."""
    kept = "${datasource:queryparam}&${__url_time_range}"
    return f"/d/{board}?var-{variable}=${{__value.raw}}&{kept}"


def target(query: Query, ref: str, instant: bool = False, as_table: bool = False) -> Any:
    """One query of a panel, named by a letter."""
    built = (
        prometheus.Dataquery().datasource(SOURCE).expr(query.expr).ref_id(ref)
        .legend_format(query.legend)
    )  # fmt: skip
    built = built.instant() if instant else built.range()
    return built.format(PromQueryFormat.TABLE) if as_table else built


def thresholds(steps: Steps, base: str = "green") -> ThresholdsConfig:
    """Colours from a value on; `base` below the first one."""
    return (
        ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=None, color=base),
                *(models.Threshold(value=value, color=colour) for value, colour in steps)])
    )  # fmt: skip


def _common(panel: Any, title: str, description: str, unit: str, width: int, height: int) -> Any:
    return (
        panel.title(title).description(description).unit(unit).datasource(SOURCE)
        .span(width).height(height)
    )  # fmt: skip


def _bounds(panel: Any, low: float | None, high: float | None, decimals: int | None) -> Any:
    if low is not None:
        panel = panel.min(low)
    if high is not None:
        panel = panel.max(high)
    return panel if decimals is None else panel.decimals(decimals)


def _coloured(panel: Any, states: Mapping[str, str] | None) -> Any:
    for name, colour in (states or {}).items():
        fixed = models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})
        panel = panel.override_by_name(name, [fixed])
    return panel


def lines(
    title: str, description: str, queries: Sequence[Query], unit: str = "short", *,
    width: int = 8, height: int = 8, low: float | None = None, high: float | None = None,
    steps: Steps = (), stacked: bool = False, states: Mapping[str, str] | None = None,
    stairs: bool = False,
) -> Any:  # fmt: skip
    """Curves over time. Values of `steps` are drawn as dashed lines across the plot."""
    panel = _common(timeseries.Panel(), title, description, unit, width, height)
    for place, query in enumerate(queries):
        panel = panel.with_target(target(query, chr(ord("A") + place)))
    panel = (
        panel.line_width(1.5).show_points(kinds.VisibilityMode.AUTO).point_size(4)
        .span_nulls(False).fill_opacity(35 if stacked else 0)
        .legend(common.VizLegendOptions().display_mode(kinds.LegendDisplayMode.LIST)
                .placement(kinds.LegendPlacement.BOTTOM).show_legend(True).calcs(["last"]))
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI)
                 .sort(kinds.SortOrder.DESCENDING))
    )  # fmt: skip
    if stairs:
        panel = panel.line_interpolation(kinds.LineInterpolation.STEP_AFTER)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    if steps:
        panel = panel.thresholds(thresholds(steps, "transparent")).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
        )
    return _coloured(_bounds(panel, low, high, None), states)


def value(
    title: str, description: str, query: Query, unit: str = "short", *, width: int = 4,
    height: int = 3, steps: Steps = (), base: str = "text", decimals: int | None = None,
    none: str = "no data", named: bool = False, states: Mapping[str, str] | None = None,
) -> Any:  # fmt: skip
    """One number, that of now; `named` shows the series' name instead of its value.

    It is asked for as an instant: a curve behind the number would need a range, of which
    Grafana shows the last value however old it is, and the panel would say `none` too late.
    """
    panel = _common(stat.Panel(), title, description, unit, width, height)
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel = (
        panel.with_target(target(query, "A", instant=True)).no_value(none)
        .reduce_options(reduced).thresholds(thresholds(steps, base))
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .text_mode(kinds.BigValueTextMode.NAME if named else kinds.BigValueTextMode.VALUE)
    )  # fmt: skip
    return _coloured(_bounds(panel, None, None, decimals), states)


def bars(
    title: str, description: str, query: Query, unit: str = "short", *, width: int = 8,
    height: int = 8, low: float | None = 0, high: float | None = None, steps: Steps = (),
    base: str = "blue",
) -> Any:  # fmt: skip
    """One bar per series, of its newest value."""
    panel = _common(bargauge.Panel(), title, description, unit, width, height)
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel = (
        panel.with_target(target(query, "A", instant=True)).reduce_options(reduced)
        .orientation(kinds.VizOrientation.HORIZONTAL).thresholds(thresholds(steps, base))
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
        .name_placement(kinds.BarGaugeNamePlacement.LEFT)
    )  # fmt: skip
    return _bounds(panel, low, high, None)


def rows(
    title: str, description: str, columns: Sequence[Column], *, width: int = 24, height: int = 7,
    sort: str = "", descending: bool = True,
) -> Any:  # fmt: skip
    """A table of newest values: queries joined by the labels they share."""
    panel = _common(table.Panel(), title, description, "short", width, height)
    valued = [column for column in columns if column.expr]
    names, order, hidden = {}, {}, {"Time": True}
    for place, column in enumerate(valued):
        ref = chr(ord("A") + place)
        panel = panel.with_target(target(Query(column.expr), ref, instant=True, as_table=True))
        field = f"Value #{ref}" if len(valued) > 1 else "Value"
        if column.title:
            names[field] = column.title
        else:  # a query that only brings labels
            hidden[field] = True
    for place, column in enumerate(columns):
        if column.label:
            names[column.label] = column.title
            order[column.label] = place
        elif column.title:
            field = next(name for name, shown in names.items() if shown == column.title)
            order[field] = place
    if len(valued) > 1:
        panel = panel.with_transformation(models.DataTransformerConfig("merge", options={}))
    panel = panel.with_transformation(models.DataTransformerConfig("organize", options={
        "excludeByName": hidden, "indexByName": order, "renameByName": names}))  # fmt: skip
    for column in columns:
        panel = _dressed(panel, column)
    panel = panel.filterable(True)
    if sort:
        by = common.TableSortByFieldState().display_name(sort).desc(descending)
        panel = panel.sort_by([by])
    return panel


def _dressed(panel: Any, column: Column) -> Any:
    properties = []
    if column.unit:
        properties.append(models.DynamicConfigValue("unit", column.unit))
    if column.width:
        properties.append(models.DynamicConfigValue("custom.width", column.width))
    if column.link:
        link = {"title": f"Open {column.title}", "url": column.link, "targetBlank": False}
        properties.append(models.DynamicConfigValue("links", [link]))
    return panel.override_by_name(column.title, properties) if properties else panel
