"""Rules for Prometheus: every name exists, every alert is tested and explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpc.monitor.check import check_folder, check_shipped, promtool
from hpc.monitor.cli import monitor
from hpc.monitor.dialects import known_names, metric_names, served_names, unknown_names
from hpc.monitor.expressions import in_rules, misspelt
from hpc.monitor.names import NAMES, RECORDED
from hpc.monitor.rules import (
    CONFIG,
    RULES,
    TESTS,
    rule_files,
    scaled,
    shipped,
    write_rules,
)
from sunpipe.errors import DataError, UsageError
from tests.conftest import REPO, need

ALERTS = [name for name, _ in in_rules(shipped(RULES[1]))]


def test_names_in_an_expression() -> None:
    assert metric_names(
        'sum by (state) (rate(node_cpu_seconds_total{mode="idle"}[5m])) / on (run, node)'
        " group_left(job) sunpipe:nodes:count offset 5m > bool 2 and label_replace(up, 'a', 'b c',"
        ' "d", "(.*)") unless sunpipe_train_kimg{run=~"a}b"}'
    ) == {"node_cpu_seconds_total", "sunpipe:nodes:count", "up", "sunpipe_train_kimg"}
    assert unknown_names("sunpipe_train_kimgs + sunpipe_train_requeues") == {
        "sunpipe_train_kimgs", "sunpipe_train_requeues"}  # fmt: skip
    assert unknown_names("sunpipe_train_requeues_total") == set()


def test_every_rule_uses_names_that_something_serves() -> None:
    for name in RULES:
        text = shipped(name)
        assert text.count("expr:") == len(list(in_rules(text)))
        assert misspelt(in_rules(text)) == []
    text = shipped(RULES[1]).replace("diversity_ratio", "diversity")
    assert misspelt(in_rules(text)) == [
        "GeneratorCollapse: nothing serves sunpipe_train_diversity"]  # fmt: skip


def test_recorded_names_are_those_of_the_table() -> None:
    assert {name for name, _ in in_rules(shipped(RULES[0]))} == set(RECORDED)
    assert not set(RECORDED) & set(NAMES)
    assert served_names() | set(RECORDED) <= known_names()


def test_names_follow_prometheus() -> None:
    for name, known in NAMES.items():
        assert re.fullmatch(r"sunpipe_[a-z][a-z0-9_]*", name)
        assert not name.endswith("_total")
        assert known.help.endswith(".")
        ids = {"slurm_job", "node", "git"} & set(known.labels)
        assert not ids or name.endswith("_info") or name == "sunpipe_slurm_job_restarts"


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_both_ways_and_explained(alert: str) -> None:
    cases = re.findall(rf'expr: \'ALERTS{{alertname="{alert}".*?exp_samples:( \[\])?',
                       shipped(TESTS), re.DOTALL)  # fmt: skip
    assert "" in cases, "no case in which it fires"
    assert " []" in cases, "no case in which it does not"
    (block,) = re.findall(rf"- alert: {alert}\n.*?(?=- alert|\Z)", shipped(RULES[1]), re.DOTALL)
    for word in ("severity: ", "summary: ", "description: ", "runbook: "):
        assert block.count(word) == 1
    assert f"runbook: docs/monitor.md#{alert.lower()}" in block
    assert f"\n### {alert}\n" in (REPO / "docs/monitor.md").read_text()


def test_the_page_names_every_metric() -> None:
    page = (REPO / "docs/monitor.md").read_text()
    assert [name for name in (*served_names(), *RECORDED) if f"`{name}" not in page] == []


def test_all_times_scale() -> None:
    text = "for: 15m\nexpr: time() - x > 60 * 60 and rate(y[1h]) > max_over_time(z[1h:]) # [90s]\n"
    assert scaled(text, 0.01) == (
        "for: 9000ms\nexpr: time() - x > 36 and rate(y[36000ms]) > max_over_time(z[36000ms:])"
        " # [1000ms]\n")  # fmt: skip
    assert scaled(text, 1) == text
    short = re.sub(r"#.*", "", scaled(shipped(RULES[1]), 0.01))
    assert not re.search(r"for: \d+[smhd]\b|\[\d+[smhd]\b|\* 60\b", short)
    # every time of the shipped rules is written in one of the forms that scale
    assert not re.search(r"\b(3600|86400|900|1800)\b", shipped(RULES[1]))


def test_samples_are_near_enough_for_the_rules() -> None:
    for interval, scale in ((30.0, 1.0), (4.5, 0.01), (1.0, 0.003)):
        rule_files("a:1", interval, scale)
    for interval, scale, words in ((15.0, 0.01, "--scale 0.01 needs .* every 4.5 s"),
                                   (31.0, 1.0, "1 to 30 s work"), (0.5, 1.0, "1 to 30 s work"),
                                   (1.0, 0.001, "too small")):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            rule_files("a:1", interval, scale)
    done = CliRunner().invoke(monitor, ["rules", "--interval", "600"])
    assert done.exit_code == 2


DRILL = """\
rule_files: [recording.rules.yml, alerts.rules.yml]
evaluation_interval: 4s
tests:
  - interval: 4s
    input_series:
      - {series: 'sunpipe_slurm_own_jobs_ended_total{stage="train",state="failed"}',
         values: '0x5 1x20'}
      - {series: 'sunpipe_train_nonfinite_total{run="a"}', values: '0x5 1x20'}
    promql_expr_test:
      - expr: 'count by (alertname) (ALERTS{alertname=~"JobFailed|LossNotFinite"})'
        eval_time: 24s
        exp_samples:
          - {labels: '{alertname="JobFailed"}', value: 1}
          - {labels: '{alertname="LossNotFinite"}', value: 1}
"""


def test_rates_rise_in_a_drill(tmp_path: Path) -> None:
    need("promtool")
    write_rules(tmp_path, {**rule_files("a:1", interval=4.0, scale=0.01), TESTS: DRILL})
    assert "SUCCESS" in promtool("test", "rules", TESTS, folder=tmp_path)


def test_files_are_written_and_not_overwritten(tmp_path: Path) -> None:
    run = CliRunner().invoke
    folder = tmp_path / "prometheus"
    done = run(monitor, ["rules", "--out", str(folder), "--exporter", "login1:9808"])
    assert done.exit_code == 0, done.output
    text = (folder / CONFIG).read_text()
    assert 'targets: ["login1:9808"]' in text
    assert "$" not in re.sub(r"#.*", "", text)
    write_rules(folder, rule_files("login1:9808"))  # the same again
    with pytest.raises(UsageError, match="is there and differs"):
        write_rules(folder, rule_files("login2:9808"))
    assert (folder / CONFIG).read_text() == text
    write_rules(folder, rule_files("login2:9808"), force=True)
    for hostile in ("login1", 'a:1"]', "a:1\nb", "a b:1", "[::1]x:1", "a:65536", "a:0"):
        with pytest.raises(UsageError, match="is not HOST:PORT"):
            rule_files(hostile)


def test_promtool_agrees() -> None:
    need("promtool")
    assert [line.partition(":")[0].partition(" ")[0] for line in check_shipped()] == [
        CONFIG, *RULES, TESTS, "cluster.json", "hardware.json", "training.json"]  # fmt: skip


def test_a_users_mistake_is_told(tmp_path: Path) -> None:
    need("promtool")
    with pytest.raises(DataError, match=r"holds no prometheus.yml"):
        check_folder(tmp_path)
    write_rules(tmp_path, rule_files("[::1]:9808"))
    assert len(check_folder(tmp_path)) == 3
    alerts = tmp_path / RULES[1]
    good = alerts.read_text()
    alerts.write_text(good.replace("sunpipe_disk_free_inodes", "sunpipe_disk_inodes"))
    with pytest.raises(DataError, match="DiskNearlyFull: nothing serves sunpipe_disk_inodes"):
        check_folder(tmp_path)
    alerts.write_text(good.replace("sum by (stage", "sum by stage"))
    with pytest.raises(DataError, match="promtool check config"):
        check_folder(tmp_path)
