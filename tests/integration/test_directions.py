"""sample, directions and traverse as commands, on a really trained (tiny) generator."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sunpipe.config import load_config
from sunpipe.errors import ConfigError, DataError
from sunpipe.files import sha256
from sunpipe.latent.assemble import fit
from sunpipe.latent.directions import read_directions
from sunpipe.latent.sample import sample
from sunpipe.latent.samples import read_samples
from tests.conftest import REPO, Cli, run_json

TINY = REPO / "configs/tiny.toml"
COUNT = "sample.count=1500"
FILES = ("directions.safetensors", "leakage.parquet", "traverse.h5")


@pytest.fixture(scope="module")
def latent_root(tiny_run_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with tiny samples and directions. Do not write to it."""
    folder = tmp_path_factory.mktemp("latent") / "root"
    shutil.copytree(tiny_run_root, folder)
    run_json("sample", "--config", TINY, root=folder)
    run_json("directions", "fit", "--config", TINY, root=folder)
    return folder


@pytest.fixture
def latent_copy(latent_root: Path, root: Path) -> Path:
    shutil.copytree(latent_root, root, dirs_exist_ok=True)
    return root


def latents(folder: Path) -> Path:
    return folder / "latents/tiny"


def test_samples_are_those_of_the_run(latent_root: Path) -> None:
    from sunpipe.latent.generator import Generator

    samples = read_samples(latents(latent_root) / "samples.h5")
    generator = Generator.load(latent_root / "runs/00000-tiny")
    assert samples.recipe["generator"] == generator.digest
    assert samples.w.shape == (200, 16)
    np.testing.assert_array_equal(samples.z[:3], generator.sample_z(3, 0).numpy())
    assert np.isfinite(samples.column("USFLUX")).all()
    assert (samples.column("USFLUX") >= 0).all()


def test_directions_on_disk_and_as_shown(latent_root: Path) -> None:
    directions = read_directions(latents(latent_root))
    shown = run_json("directions", "show", "--config", TINY, root=latent_root)
    assert set(shown["quantities"]) == set(directions.quantities)
    assert shown["generator"] == directions.about["generator"]
    for name, row in shown["quantities"].items():
        assert 0 <= row["accuracy"]["extremes"] <= 1, name
    for key, vector in load_file(latents(latent_root) / "directions.safetensors").items():
        assert vector.shape == (16,)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5), key


def test_parts_of_an_array_assemble_to_the_same_bytes(latent_copy: Path) -> None:
    folder, config = latents(latent_copy), load_config(TINY)
    before = {name: sha256(folder / name) for name in FILES}
    (folder / "directions.json").unlink()
    tasks = [fit(config, (part, 3))["complete"] for part in (3, 1, 2)]
    assert tasks == [False, False, True]
    assert {name: sha256(folder / name) for name in FILES} == before


def test_second_calls_are_cheap_and_say_so(latent_copy: Path, cli: Cli) -> None:
    done = cli("directions", "fit", "--config", TINY, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["skipped"]
    assert "up to date" in done.stderr


def test_dry_runs_write_nothing(tiny_run_root: Path) -> None:
    before = sorted(tiny_run_root.rglob("*"))
    drawn = run_json("sample", "-c", TINY, "--dry-run", "--part", "1/2", root=tiny_run_root)
    fitted = run_json("directions", "fit", "-c", TINY, "--dry-run", "--part", "1/2",
                      root=tiny_run_root)  # fmt: skip
    assert drawn["dry_run"]
    assert drawn["count"] == 200
    assert not fitted["samples_exist"]
    assert fitted["quantities"] == ["USFLUX", "TOTUSJH", "POLSEP"]
    assert sorted(tiny_run_root.rglob("*")) == before


def test_traverse_in_real_units(latent_copy: Path) -> None:
    reading = read_directions(latents(latent_copy)).quantities["MEANGAM"]["calibration"]["plain"]
    amount = (reading["median"][4] - reading["median"][3]) / 4 or 0.1
    result = run_json(
        "traverse", "-c", TINY, "--quantity", "MEANGAM", f"--by={amount:.4g}deg", "--seed", "1",
        root=latent_copy,
    )  # fmt: skip
    assert result["unit"] == "deg"
    assert Path(result["strip"]).is_file()
    if result["reached"]:
        assert result["measured"] == pytest.approx(result["asked"], rel=0.05)
    else:
        assert result["reason"]


def test_user_mistakes_are_one_line(latent_copy: Path, cli: Cli) -> None:
    mistakes = {
        ("traverse", "-c", TINY, "--quantity", "USFLUX", "--by", "1e21G"): "measured in Mx",
        ("directions", "fit", "-c", TINY, "--part", "3/2"): "write I/N with I from 1",
        ("sample", "-c", TINY, "-s", 'sample.quantities=["FLUX"]'): "no quantity 'FLUX'",
    }
    for command, line in mistakes.items():
        done = cli(*command)
        assert done.returncode == 2, (command, done.stderr)
        assert line in done.stderr, command
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("directions.layers=[1]", "layers needs space = 'w_plus'"),
        ("directions.steps=[1.0, 0.0]", "rising order"),
        ("directions.extremes=0.6", "less than or equal to 0.5"),
        ("directions.metrics='covariance'", "did you mean metric?"),
    ],
)
def test_settings_are_checked(override: str, line: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(line)):
        load_config(TINY, [override])


def test_another_checkpoint_makes_samples_and_directions_stale(latent_copy: Path, cli: Cli) -> None:
    run_json("train", "-c", TINY, "-s", "train.kimg=0.08", root=latent_copy)
    done = cli("traverse", "-c", TINY, "--quantity", "USFLUX", "--by", "1e21Mx")
    assert done.returncode == 1
    assert "holds directions of generator 00000-tiny" in done.stderr
    with pytest.raises(DataError, match="run sunpipe sample again"):
        fit(load_config(TINY))
    assert not sample(load_config(TINY))["skipped"]
    assert not fit(load_config(TINY))["skipped"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR2])
def test_a_signal_stops_and_the_same_command_continues(
    tiny_run_root: Path, root: Path, number: signal.Signals
) -> None:
    shutil.copytree(tiny_run_root, root, dirs_exist_ok=True)
    command = [sys.executable, "-m", "sunpipe", "sample", "-c", str(TINY),
               "-s", COUNT]  # fmt: skip
    env = {**os.environ, "SUNPIPE_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, cwd=REPO, stderr=subprocess.PIPE, text=True) as run:
        deadline = time.monotonic() + 120
        while not list(root.glob("latents/tiny/samples-parts/*/part-*.h5")):
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(number)
        _, errors = run.communicate(timeout=120)
    assert run.returncode == 75, errors
    assert "run the same command to continue" in errors
    assert not (latents(root) / "samples.h5").exists()
    assert not list(root.rglob(".tmp-*"))
    result = run_json("sample", "-c", TINY, "-s", COUNT, root=root)
    assert result["count"] == 1500
