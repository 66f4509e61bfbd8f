"""What ``sunpipe directions fit`` and ``show`` print: one JSON document, or tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sunpipe.latent.directions import read_directions
from sunpipe.latent.leakage import worst_leak
from sunpipe.stage import Result

if TYPE_CHECKING:
    from rich.table import Table

PIPED = 132  # columns where the output is no terminal
KINDS = ("plain", "conditional")
JUDGED = ("svm", "svr", "ridge", "ridge_ranks", "component", "random")
NOTHING = "-"


def summary(folder: Path) -> Result:
    """What is said about published directions: JSON-able."""
    directions = read_directions(folder)
    leakage = directions.leakage()
    rows = {
        name: {
            "unit": about["unit"], "sign": about["sign"], "accuracy": about["accuracy"],
            **{key: about[key] for key in JUDGED},
            "response": about["response"],
            "bootstrap_angle_deg": about.get("bootstrap_angle_deg"),
            "monotone": {kind: found["monotone"] for kind, found in about["calibration"].items()},
            "worst_leak": {
                kind: worst_leak(leakage, name, kind == "conditional") for kind in KINDS
            },
            "no_conditional": about.get("no_conditional"),
            "layers": about["layers"],
        }
        for name, about in directions.quantities.items()
    }  # fmt: skip
    about = directions.about
    return {
        "directions": str(folder), "run": about["run"], "generator": about["generator"],
        "complete": True, "space": about["space"],
        "learner": about["recipe"]["settings"]["learner"], "samples": about["sample_count"],
        "quantities": rows, "components": about.get("components", []),
        "left_out": about["left_out"],
    }  # fmt: skip


def _number(value: float | None, form: str = ".2f") -> str:
    return NOTHING if value is None else format(value, form)


def _pair(found: Mapping[str, Any] | None, first: str, second: str) -> str:
    """Accuracy between the extremes, and in the middle."""
    if not found:
        return NOTHING
    return f"{_number(found.get(first))} {_number(found.get(second))}"


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
                  pad_edge=False)  # fmt: skip
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    return table


def _learners(result: Result) -> Table:
    table = _table(
        "Held-out accuracy: between the extremes, and in the middle",
        "quantity", "unit", "SVM", "SVR", "ridge", "best PC", "random", "angle",
    )  # fmt: skip
    for name, row in result["quantities"].items():
        angle = row["bootstrap_angle_deg"]
        table.add_row(
            name, row["unit"],
            *[_pair(row[key], "accuracy_extremes", "accuracy_middle")
              for key in ("svm", "svr", "ridge", "component", "random")],
            _number(angle["median"] if angle else None, ".1f"),
        )  # fmt: skip
    return table


def _leak(leak: Mapping[str, Any] | None) -> str:
    return NOTHING if leak is None else f"{leak['slope']:+.2f} {leak['quantity']}"


def _walks(result: Result) -> Table:
    table = _table(
        "Measured on walks: change per step, and the quantity that follows most",
        "quantity", "plain", "cond.", "random", "rises", "worst leak", "conditional",
    )  # fmt: skip
    for name, row in result["quantities"].items():
        response = row["response"]
        table.add_row(
            name, *[_number(response.get(kind)) for kind in (*KINDS, "random")],
            "yes" if row["monotone"]["plain"] else "no",
            _leak(row["worst_leak"]["plain"]), _leak(row["worst_leak"]["conditional"]),
        )  # fmt: skip
    return table


def _layers(result: Result) -> Table:
    rows = result["quantities"]
    layers = [cell["layer"] for cell in next(iter(rows.values()))["layers"]]
    table = _table("Held-out accuracy between the extremes, of each layer alone",
                   "quantity", *map(str, layers), "best")  # fmt: skip
    for name, row in rows.items():
        best = max(row["layers"], key=lambda cell: cell["extremes"] or 0.0)
        table.add_row(name, *[_number(cell["extremes"]) for cell in row["layers"]],
                      str(best["layer"]))  # fmt: skip
    return table


def _components(result: Result) -> Table:
    table = _table("Principal components: what they go with, and what moves most along them",
                   "component", "variance", "reads as", "correlation", "moves most", "per step"
                   )  # fmt: skip
    for row in result["components"]:
        reads = row["reads"]
        moved = {name: change for name, change in row["response"].items() if change is not None}
        most = max(moved, key=lambda name: abs(moved[name]), default=None)
        table.add_row(
            row["name"], f"{row['share']:.1%}", reads or NOTHING,
            f"{row['quantities'][reads]['spearman']:+.2f}" if reads else NOTHING,
            most or NOTHING, f"{moved[most]:+.2f}" if most else NOTHING,
        )  # fmt: skip
    return table


def print_tables(result: Result) -> None:
    """Print a `summary` for people."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPED)
    space = result["space"]
    layers = f", layers {', '.join(map(str, space['layers']))}" if space["layers"] else ""
    console.print(f"{result['directions']}: run {result['run']}, {result['samples']} samples,"
                  f" space {space['name']}{layers}\n")  # fmt: skip
    console.print(_learners(result))
    console.print(f"The {result['learner']} direction is walked; random: mean of random ones;"
                  " angle: to bootstrap refits, degrees.\n")  # fmt: skip
    console.print(_walks(result))
    console.print("A step is one standard deviation of the latents; changes in natural standard"
                  " deviations of each quantity;\nleaks per change of the target."
                  f" {NOTHING}: the target's own change is not told from zero.\n")  # fmt: skip
    if any(row["layers"] for row in result["quantities"].values()):
        console.print(_layers(result))
    if result["components"]:
        console.print(_components(result))
        console.print(f"Spearman's correlation; {NOTHING}: none above what 5 % of shuffled tables"
                      " have.\n")  # fmt: skip
    for name, why in result["left_out"].items():
        console.print(f"{name} is left out: {why}")
