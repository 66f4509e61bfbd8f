"""Rules, their tests and dashboards held against promtool and the names that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpc.monitor.dashboards.build import COMMITTED
from hpc.monitor.dialects import unknown_names
from hpc.monitor.expressions import in_dashboard, in_rules, misspelt
from hpc.monitor.names import RECORDED
from hpc.monitor.rules import CONFIG, INSTALL, RULES, TESTS, rule_files, shipped, write_rules
from sunpipe.errors import DataError
from sunpipe.files import read_json

PATIENCE_S = 120.0
DASHBOARDS = "dashboards"  # folder that sunpipe monitor dashboards writes
OURS = "sunpipe-"  # uid of a dashboard that comes with sunpipe begins so


def promtool(*argv: str | Path, folder: Path) -> str:
    """Run promtool in `folder`; what it said.

    Raises
    ------
    DataError
        It is not installed, or finds a fault.
    """
    program = shutil.which("promtool")
    if program is None:
        raise DataError(f"promtool is not installed: {INSTALL}")
    try:
        done = subprocess.run([program, *map(str, argv)], cwd=folder, capture_output=True,
                              text=True, timeout=PATIENCE_S, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DataError(f"promtool {argv[0]} took longer than {PATIENCE_S:g} s") from None
    said = (done.stdout + done.stderr).strip()
    if done.returncode != 0:
        raise DataError(f"promtool {' '.join(map(str, argv))} in {folder}:\n{said}")
    return said


def check_folder(folder: Path) -> list[str]:
    """Check what a folder holds; one line for each thing that is well.

    A ``prometheus.yml`` with all rules that it names, tests of them in ``tests.yml``, and
    dashboards as Grafana's JSON, there or in ``dashboards/``. Other JSON may lie beside them,
    of targets for example, but not in ``dashboards/``.

    Raises
    ------
    DataError
        Something is wrong, or there is neither; the message says what.
    """
    beside = {path: _is_dashboard(read_json(path)) for path in sorted(folder.glob("*.json"))}
    boards = [path for path, is_one in beside.items() if is_one]
    boards += sorted((folder / DASHBOARDS).glob("*.json"))
    lines = []
    if (folder / CONFIG).is_file():
        lines += _check_config(folder)
    elif not boards:
        raise DataError(f"{folder} holds no {CONFIG}; write one with sunpipe monitor rules --out")
    if (folder / TESTS).is_file():
        promtool("test", "rules", TESTS, folder=folder)
        lines.append(f"{TESTS}: every alert fires when it should and not otherwise")
    others = [path.name for path, is_one in beside.items() if not is_one]
    return [*lines, *map(_check_dashboard, boards),
            *(f"{name}: no dashboard, not looked at" for name in others)]  # fmt: skip


def _check_config(folder: Path) -> list[str]:
    said = promtool("check", "config", CONFIG, folder=folder)
    lines, recorded = [f"{CONFIG} is well formed, with its rules"], set()
    for part in re.split(r"(?m)^Checking ", said)[1:]:  # the configuration, and each file of rules
        name, count = part.splitlines()[0], re.search(r"SUCCESS: (\d+) rules found", part)
        if count is None:
            continue
        found = list(in_rules((folder / name).read_text(encoding="utf-8")))
        lines.append(_check_rules(folder / name, found, int(count[1])))
        recorded |= {rule for rule, _ in found}
    if missing := [name for name in RECORDED if name not in recorded]:
        raise DataError(
            f"{folder / CONFIG} loads no rules that record {', '.join(missing[:3])}"
            f"{' and more' if len(missing) > 3 else ''}: name {RULES[0]} under rule_files"
        )
    return lines


def _check_rules(path: Path, found: list[tuple[str, str]], count: int) -> str:
    """A line on a file of rules."""
    if len(found) != count:
        raise DataError(
            f"{path} holds {count} rules, of which {len(found)} can be read here: write each in "
            "lines of its own, '- alert: NAME' and 'expr: ...'"
        )
    return (
        f"{path.name}: {count} rule{'s' * (count != 1)}, {_names(path, found, path.name in RULES)}"
    )


def _names(path: Path, found: list[tuple[str, str]], ours: bool) -> str:
    """What is said of names; in a file of a user's own they may be of exporters unknown here."""
    checked = found if ours else [(where, " + ".join(_of_sunpipe(expr))) for where, expr in found]
    if faults := misspelt(checked):
        raise DataError(f"{path}: {'; '.join(faults)}")
    strange = {name for _, expr in found for name in unknown_names(expr)}
    return f"not known here: {', '.join(sorted(strange))}" if strange else "every name is served"


def _of_sunpipe(expression: str) -> Iterable[str]:
    return (name for name in sorted(unknown_names(expression)) if name.startswith("sunpipe"))


def _is_dashboard(board: Any) -> bool:
    return isinstance(board, dict) and "panels" in board


def _check_dashboard(path: Path) -> str:
    board = read_json(path)
    if not _is_dashboard(board):
        raise DataError(f"{path} is no dashboard of Grafana")
    try:
        found = list(in_dashboard(board))
    except (TypeError, AttributeError) as error:
        raise DataError(f"{path} is no dashboard of Grafana ({error})") from None
    said = _names(path, found, str(board.get("uid")).startswith(OURS))
    return f"{path.name}: {len(found)} expression{'s' * (len(found) != 1)}, {said}"


def check_shipped() -> list[str]:
    """`check_folder` of the files that come with sunpipe: rules, their tests, dashboards."""
    with tempfile.TemporaryDirectory(prefix="sunpipe-rules-") as made:
        folder = Path(made)
        write_rules(folder, {**rule_files("127.0.0.1:9808"), TESTS: shipped(TESTS)})
        return [*check_folder(folder), *check_folder(COMMITTED)]
