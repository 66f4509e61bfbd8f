"""``sunpipe monitor check``: a misspelt metric is found wherever and however it is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpc.monitor.check import check_folder
from hpc.monitor.dashboards.build import COMMITTED
from hpc.monitor.dialects import metric_names
from hpc.monitor.expressions import in_rules
from hpc.monitor.rules import RULES, rule_files, write_rules
from sunpipe.errors import DataError
from tests.conftest import need

WAYS = [
    "- alert: A\n        expr: |\n          sunpip_x\n          > 3\n",
    "- alert: A\n        for: 5m\n        expr: >-\n          sunpip_x > 3\n",
    '- alert: A\n        expr: "sunpip_x{a=\\"b\\"} > 3"  # said so\n',
    "- alert: 'A'\n        expr: 'sunpip_x{a=''b''} > 3'\n",
    "- expr: sunpip_x\n          > 3\n        alert: A\n",
    "- alert: A\n        annotations:\n          expr: up\n          d: |\n            - expr: up\n"
    "        expr: sunpip_x > 3 # and up\n",
    "- alert: A\n        expr:\n          sunpip_x > 3\n        for: 5m\n",
    "- alert: A\n        expr:  # here\n\n          # or here\n"
    "          'sunpip_x\n          > 3'\n",
    '- alert: A\n        expr: "sum(\\nsunpip_x{a=\\"b\\"})\\n\\t> 3"\n',
    "- record: A\n        expr: '{\"sunpip_x\", run=\"a\"}'\n",
    "- record: A\n        expr: '{__name__=\"sunpip_x\"}'\n",
]  # fmt: skip


@pytest.mark.parametrize("rule", WAYS)
def test_expressions_are_read_however_they_are_written(rule: str) -> None:
    text = "groups:\n  - name: mine\n    rules:  # two\n      - alert: B\n        expr: up\n"
    text += f"      {rule}"
    (_, first), (name, expression) = in_rules(text + "  - name: next\n    rules: []\n")
    assert first == "up"
    assert name == "A"
    assert metric_names(expression) == {"sunpip_x"}


def test_a_misspelt_metric_in_rules_of_any_file(tmp_path: Path) -> None:
    need("promtool")
    write_rules(tmp_path, rule_files("a:1"))
    alerts, config = tmp_path / RULES[1], tmp_path / "prometheus.yml"
    shipped = alerts.read_text()
    alerts.write_text(f"{shipped}\n  - name: mine\n    rules:\n      {WAYS[0]}")
    with pytest.raises(DataError, match=r"alerts\.rules\.yml: A: nothing serves sunpip_x"):
        check_folder(tmp_path)
    alerts.write_text(shipped + "\n  - name: mine\n    rules: [{alert: A, expr: sunpip_x}]\n")
    with pytest.raises(DataError, match="holds 19 rules, of which 18 can be read here"):
        check_folder(tmp_path)
    alerts.write_text(shipped)
    config.write_text(config.read_text().replace("yml\n\n", "yml\n  - mine.yml\n\n", 1))
    mine = "groups:\n  - name: m\n    rules:\n      - alert: A\n        expr: {} > 1\n"
    (tmp_path / "mine.yml").write_text(mine.format("mysql_up"))
    assert check_folder(tmp_path)[-1] == "mine.yml: 1 rule, not known here: mysql_up"
    (tmp_path / "mine.yml").write_text(mine.format("sunpipe_train_kmig"))
    with pytest.raises(DataError, match=r"mine\.yml: A: nothing serves sunpipe_train_kmig"):
        check_folder(tmp_path)
    config.write_text(config.read_text().replace("  - recording.rules.yml\n", ""))
    (tmp_path / "mine.yml").unlink()
    config.write_text(config.read_text().replace("  - mine.yml\n", ""))
    with pytest.raises(DataError, match=r"loads no rules that record sunpipe:nodes:count, .* and"):
        check_folder(tmp_path)


@pytest.mark.parametrize(("there", "instead", "said"), [
    ("sunpipe_train_kimg{", "sunpipe_train_kmig{", "panel 'Progress': nothing serves"),
    ("changes(sunpipe_train_requeues_total", "changes(x", "'Requeues': nothing serves x"),
    ("(sunpipe_train_info, run", "(sunpipe_train_inof, run", "variable 'run': nothing serves"),
])  # fmt: skip
def test_a_misspelt_metric_in_a_dashboard(
    tmp_path: Path, there: str, instead: str, said: str
) -> None:
    shutil.copytree(COMMITTED / "dashboards", tmp_path / "dashboards")
    lines = check_folder(tmp_path)
    assert [line.partition(":")[0] for line in lines] == [
        "cluster.json", "hardware.json", "training.json"]  # fmt: skip
    path = tmp_path / "dashboards/training.json"
    text = path.read_text()
    assert there in text
    path.write_text(text.replace(there, instead))
    with pytest.raises(DataError, match=said):
        check_folder(tmp_path)


def board_of(expression: str, **more: Any) -> str:
    panel = {"title": "P", "targets": [{"expr": expression}]}
    return json.dumps({"panels": [{"type": "row", "panels": [panel]}], **more})


def test_names_in_a_dashboard_of_a_user(tmp_path: Path) -> None:
    board = tmp_path / "mine.json"
    board.write_text(board_of("mysql_up + sunpipe_train_kmig"))  # in a row that is folded
    with pytest.raises(DataError, match=r"panel 'P': nothing serves sunpipe_train_kmig$"):
        check_folder(tmp_path)
    board.write_text(board_of("mysql_up + sunpipe_train_kimg"))
    assert check_folder(tmp_path) == ["mine.json: 1 expression, not known here: mysql_up"]
    board.write_text(board_of("mysql_up", uid="sunpipe-cluster"))
    with pytest.raises(DataError, match=r"panel 'P': nothing serves mysql_up$"):
        check_folder(tmp_path)


def test_other_json_beside_the_rules_is_none_of_ours(tmp_path: Path) -> None:
    targets = '[{"targets": ["n1:9100"]}]'
    (tmp_path / "targets.json").write_text(targets)
    with pytest.raises(DataError, match=r"holds no prometheus\.yml"):
        check_folder(tmp_path)
    (tmp_path / "mine.json").write_text(board_of("up"))
    assert check_folder(tmp_path) == ["mine.json: 1 expression, every name is served",
                                      "targets.json: no dashboard, not looked at"]  # fmt: skip
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "dashboards/mine.json").write_text(targets)
    with pytest.raises(DataError, match=r"mine\.json is no dashboard of Grafana$"):
        check_folder(tmp_path)


@pytest.mark.parametrize("text", [
    '{"panels": null}', '{"panels": [], "templating": {"list": null}}',
    '{"panels": [], "templating": null, "annotations": null}',
    '{"panels": [{"targets": null, "panels": null}], "annotations": {"list": null}}',
])  # fmt: skip
def test_an_empty_dashboard_is_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert check_folder(tmp_path) == ["a.json: 0 expressions, every name is served"]


@pytest.mark.parametrize("text", [
    '{"panels": [1]}', '{"panels": 1}', '{"panels": [{"targets": [{"expr": 3}]}]}',
    '{"panels": [{"targets": [1]}]}', '{"panels": [], "templating": [1]}',
    '{"panels": [], "annotations": {"list": [{"target": 1}]}}',
    '{"panels": [], "annotations": {"list": [{"expr": ["up"]}]}}',
    '{"panels": [], "templating": {"list": ["a"]}}',
])  # fmt: skip
def test_a_damaged_dashboard_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json is no dashboard of Grafana \("):
        check_folder(tmp_path)
