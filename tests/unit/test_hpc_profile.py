"""Cluster profiles: the committed example, defaults, and values that are refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from hpc.plan.target import host_bytes
from hpc.profile import Profile, load_profile, minutes
from hpc.stages import STAGES
from sunpipe.errors import ConfigError, UsageError
from tests.conftest import REPO

EXAMPLE = REPO / "configs/clusters/example.toml"


def written(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text)
    return path


def test_the_example_shows_every_key_and_loads() -> None:
    profile = load_profile(EXAMPLE)
    assert profile.stages.train.nodes * profile.stages.train.tasks_per_node == 8
    data = tomllib.loads(EXAMPLE.read_text())
    assert set(data) == set(Profile.__dataclass_fields__)
    shown = {key for stage in data["stages"].values() for key in stage} | set(data["default"])
    assert shown == set(type(profile.default).__dataclass_fields__)
    assert set(data["stages"]) <= set(STAGES)


def test_default_fills_the_stages_that_do_not_say_otherwise(tmp_path: Path) -> None:
    text = '[default]\npartition = "cpu"\ntime = "02:00:00"\n[stages.train]\npartition = "gpu"\n'
    stages = load_profile(written(tmp_path, text)).stages
    assert (stages.train.partition, stages.train.time) == ("gpu", "02:00:00")
    assert (stages.report.partition, stages.report.time) == ("cpu", "02:00:00")


def test_which_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUNPIPE_CLUSTER", raising=False)
    with pytest.raises(UsageError, match="--cluster FILE"):
        load_profile(None)
    monkeypatch.setenv("SUNPIPE_CLUSTER", str(EXAMPLE))
    assert load_profile(None) == load_profile(EXAMPLE)
    with pytest.raises(ConfigError, match="no such"):
        load_profile(tmp_path / "missing.toml")


HOSTILE = ["$(touch X)", "`touch X`", "a;touch X", "a b", "a\nb", "a\n", "a'b", 'a"b', "a|b>c",
           "-w", "a\x00b", "a\\b", "${HOME}", "é", "a\u2028b", "#x", "x" * 600]  # fmt: skip
FIELDS = ["python", "setup", "container", "interface", "mpi", "default.partition",
          "default.account", "default.qos", "default.constraint", "default.time", "default.mem",
          "stages.train.partition"]  # fmt: skip


@pytest.mark.parametrize("field", [*FIELDS, "modules"])
@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_are_refused_in_one_line(tmp_path: Path, field: str, value: str) -> None:
    table, _, key = field.rpartition(".")
    quoted = "".join(f"\\U{ord(character):08X}" for character in value)
    item = f'["{quoted}"]' if field == "modules" else f'"{quoted}"'
    text = (f"[{table}]\n" if table else "") + f"{key} = {item}\n"
    with pytest.raises(ConfigError) as refused:
        load_profile(written(tmp_path, text))
    assert field in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[stages.traim]\n", "did you mean train"),
        ("[stages.train]\nnodez = 2\n", "stages.train.nodez: unknown key"),
        ("[stages.sample]\nnodes = 2\n", "sample runs as one task"),
        ("[stages.report]\narray = 2\n", "report has no parts"),
        ("[stages.report]\narray_parallel = 2\n", "report has no parts"),
        ("[stages.fetch]\narray_parallel = -1\n", "stages.fetch.array_parallel"),
        ("[default]\narray_parallel = 2\n", "default.array_parallel"),
        ("[stages.train]\nnodes = 0\n", "stages.train.nodes"),
        ("[stages.train]\nnodes = '2'\n", "stages.train.nodes"),
        ("[default]\nnodes = 2\n", "default.nodes"),
        ("default = 3\n", "default"),
        ("stages = []\n", "stages"),
        ("signal_s = 5\n", "signal_s"),
        ("partition = 'gpu'\n", "partition: unknown key"),
        ("[default]\ntime = '00:00:00'\n", "default.time: must be more than nothing"),
        ("[default]\ntime = 'UNLIMITED'\n", "default.time: must be a time such as 24:00:00"),
        ("[default]\ntime = ''\n", "default.time: must be a time"),
        ("[default]\nmem = '64GB'\n", "default.mem: must be a size such as 64G"),
        ("modules = ['']\n", "modules.0: must be a module such as"),
        ("setup = '~/env.sh'\n", "setup: must be a path .* no ~"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises((ConfigError, UsageError), match=words):
        load_profile(written(tmp_path, text))


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        *(("constraint", value, value) for value in
          ("h200&ib", "a100|h100", "v100", "[rack1|rack2]", "intel*2&(a|b)")),
        *(("account", value, value) for value in ("abc@v100", "m1234_g", "a:b")),
        *(("time", value, value) for value in ("90", "90:30", "1-12", "1-12:30", "100:00:00")),
        ("time", 90, "90"),
        ("mem", "64G", "64G"),
        ("mem", "0", "0M"),
        ("mem", 64000, "64000M"),
        ("partition", "gpu,long", "gpu,long"),
    ],
)  # fmt: skip
def test_what_slurm_takes_is_taken(tmp_path: Path, key: str, value: str | int, found: str) -> None:
    written_as = value if isinstance(value, int) else f'"{value}"'
    profile = load_profile(written(tmp_path, f"[default]\n{key} = {written_as}\n"))
    assert getattr(profile.stages.report, key) == found
    assert host_bytes(profile.stages.report) == (
        {"64G": 64 * 2**30, "64000M": 64000 * 2**20}.get(found))  # fmt: skip


@pytest.mark.parametrize(
    ("time", "found"),
    [("00:00:01", 1), ("01:30:00", 90), ("2-00:00:00", 2880), ("100:00:30", 6001), ("90", 90),
     ("90:01", 91), ("1-12", 2160), ("1-12:30", 2190), ("0-0:0:1", 1)],
)  # fmt: skip
def test_minutes(time: str, found: int) -> None:
    assert minutes(time) == found
