"""What the dashboards have in common: variables, links, annotations, rows and ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.models import dashboard as models

from hpc.monitor.dashboards.panels import SOURCE

TAG = "sunpipe"
COLUMNS = 24  # of Grafana's grid


@dataclass(frozen=True)
class Section:
    """A row of the dashboard: a question, and the panels that answer it."""

    title: str
    panels: Sequence[Any]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard: the values that a label has in `metric`."""

    name: str
    label: str
    metric: str
    description: str
    several: bool = False
    all_value: str = ""
    newest_first: bool = False


@dataclass(frozen=True)
class Mark:
    """A moment drawn on every time axis: while `expr` is above zero.

    It must look back by ``$__rate_interval``: Grafana asks for 100 samples of an annotation,
    five minutes apart over six hours, and a shorter look back would miss what is between.
    """

    name: str
    expr: str
    colour: str
    title: str


def source_variable() -> DatasourceVariable:
    """Which Prometheus is asked."""
    return (
        DatasourceVariable("datasource").label("Source").type("prometheus")
        .description("The Prometheus that scrapes sunpipe monitor serve.")
        .multi(False).include_all(False)
        .current(models.VariableOption(text="Prometheus", value="sunpipe-prometheus"))
    )  # fmt: skip


def query_variable(variable: Variable) -> QueryVariable:
    """A variable filled from Prometheus, again whenever the time range changes."""
    query = f"label_values({variable.metric}, {variable.name})"
    order = (models.VariableSort.NATURAL_DESC if variable.newest_first
             else models.VariableSort.NATURAL_ASC)  # fmt: skip
    built = (
        QueryVariable(variable.name).label(variable.label).datasource(SOURCE)
        .description(variable.description)
        .query({"qryType": 1, "query": query, "refId": f"variable-{variable.name}"})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(order)
        .multi(variable.several).include_all(variable.several)
    )  # fmt: skip
    if variable.several:
        built = built.current(models.VariableOption(text=["All"], value=["$__all"]))
    return built.all_value(variable.all_value) if variable.all_value else built


def dashboard(
    uid: str, title: str, description: str, variables: Sequence[Variable],
    sections: Sequence[Section], marks: Sequence[Mark], since: str = "now-6h",
) -> dict[str, Any]:  # fmt: skip
    """Build one dashboard as the value of its JSON file."""
    built = (
        Dashboard(title).uid(uid).description(description).tags([TAG]).timezone("browser")
        .readonly().tooltip(models.DashboardCursorSync.CROSSHAIR).time(since, "now").refresh("30s")
        .link(DashboardLink("sunpipe").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
              .include_vars(True).keep_time(True).as_dropdown(False).icon("external link"))
        .with_variable(source_variable())
    )  # fmt: skip
    for variable in variables:
        built = built.with_variable(query_variable(variable))
    for mark in marks:
        built = built.annotation(
            AnnotationQuery().name(mark.name).datasource(SOURCE).enable(True)
            .icon_color(mark.colour).expr(mark.expr)
        )  # fmt: skip
    number = 0
    for section in sections:
        built = built.with_row(Row(section.title).id(number := number + 1))
        for panel in section.panels:
            built = built.with_panel(panel.id(number := number + 1))
    return _finished(built.build(), marks)


def _finished(model: models.Dashboard, marks: Sequence[Mark]) -> dict[str, Any]:
    """Add how annotations are worded, drop what only interval variables have.

    The builders of this version offer neither.
    """
    import json

    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    value: dict[str, Any] = json.loads(JSONEncoder().encode(model))
    titles = {mark.name: mark.title for mark in marks}
    for annotation in value["annotations"].setdefault("list", []):
        if annotation["name"] in titles:
            annotation |= {"titleFormat": titles[annotation["name"]], "step": "30s"}
    for variable in value["templating"]["list"]:
        for key in ("auto", "auto_min", "auto_count"):
            variable.pop(key, None)
    return value
