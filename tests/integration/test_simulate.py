"""``sunpipe simulate``: an archive of known truth that every later stage reads."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from preprocess.manifest import read_manifest
from preprocess.simulate import Request, simulate
from preprocess.simulate_cli import simulate as command
from preprocess.simulation.observe import CLEAN, Noise
from preprocess.simulation.record import Plan
from preprocess.simulation.truth import read_truth
from sunpipe.errors import DataError, SunpipeError
from sunpipe.files import sha256
from sunpipe.fits import read_segment, read_vector
from sunpipe.fitsfile import FitsError
from tests.conftest import REPO, Cli, run_cli

SMALL = ("simulate", "--seed", "5", "--size", "160x96", "--jobs", "1", "--json")
SEGMENTS = ("Br", "Bt", "Bp", "magnetogram", "bitmap", "conf_disambig")


def answer(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def digests(archive: Path) -> dict[str, str]:
    return {str(path.relative_to(archive)): sha256(path) for path in archive.rglob("*.fits")}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with four noisy records of two HARPs. Do not write to it."""
    root = tmp_path_factory.mktemp("simulated")
    done = answer(run_cli(*SMALL, "-n", "4", "--harps", "2", "--errors", root=root))
    assert (done["new"], done["kept"], done["harps"]) == (4, 0, 2)
    return root


def records(archive: Path) -> list[dict[str, Path]]:
    folders = sorted((archive / "sim.sharp_cea_720s").glob("*/*"))
    return [{path.name.split(".")[-2]: path for path in folder.iterdir()} for folder in folders]


def test_the_manifest_lists_every_file_as_it_is(simulated: Path) -> None:
    archive = simulated / "archive"
    manifest = read_manifest(archive)
    assert len(manifest) == 4 * 9
    for (record, _), entry in manifest.items():
        assert record.startswith("sim.sharp_cea_720s[90000")
        assert entry.state == "fetched"
        assert entry.url.startswith("simulated:")
        assert sha256(archive / entry.path) == entry.sha256
    assert len(digests(archive)) == len(manifest)


def test_headers_hold_the_truth_and_say_what_they_are(simulated: Path) -> None:
    table = read_truth(simulated / "archive").to_pylist()
    assert [row["telescop"] for row in table] == ["SIMULATED"] * 4
    for row, files in zip(table, records(simulated / "archive"), strict=True):
        for name in SEGMENTS:
            segment = read_segment(files[name])
            header = segment.header
            assert segment.verified
            assert header["TELESCOP"] == "SIMULATED"
            assert header["SYNTHET"] is True
            assert header["HARPNUM"] == row["harpnum"]
            assert header["T_REC"] == row["t_rec"]
            assert header["DATAMAX"] == pytest.approx(np.nanmax(segment.data), abs=1e-9)
            for card, column in (("SIMFLUX", "flux_mx"), ("SIMALPHA", "alpha_per_mm"),
                                 ("SIMSEP", "separation_mm"), ("SIMTILT", "tilt_deg")):  # fmt: skip
                assert header[card] == row[column]


def test_vectors_are_read_under_their_own_series_and_physics_sees_the_truth(
    simulated: Path,
) -> None:
    from sunpipe.physics.keywords import sharp_keywords

    for files in records(simulated / "archive"):
        found = read_vector(files["Br"], files["Bt"], files["Bp"])
        assert found.record.startswith("sim.sharp_cea_720s[90000")
        maps = {name: read_segment(files[name]).data for name in ("bitmap", "conf_disambig")}
        sigma = np.stack([read_segment(files[f"{part}_err"]).data for part in ("Br", "Bt", "Bp")])
        keywords = sharp_keywords(found.fields, found.header, **maps, sigma=sigma)
        header = found.header
        # the header's own numbers, computed in float32 before rounding to 0.01 G
        assert keywords.keywords["USFLUX"] == pytest.approx(header["USFLUX"], rel=1e-3)
        assert keywords.errors["ERRVF"] == pytest.approx(header["ERRVF"], rel=1e-3)
        assert keywords.cmask == header["CMASK"]
        # the mask leaves weak plage out
        assert 0.5 < keywords.keywords["USFLUX"] / header["SIMFLUX"] < 1.15
        assert keywords.keywords["TILT"] == pytest.approx(header["SIMTILT"], abs=6.0)


def test_the_noise_free_truth_survives_the_file(tmp_path: Path) -> None:
    """Through FITS, reader and physics: flux, separation, tilt and twist are the inputs."""
    import torch

    from sunpipe.physics.measurement import measure

    make(tmp_path, 3, steps=1, noise=CLEAN)
    for files in records(tmp_path):
        found = read_vector(files["Br"], files["Bt"], files["Bp"])
        fields = torch.from_numpy(found.fields)[None]
        mask = torch.ones(fields[:, 0].shape, dtype=torch.bool)
        names = ("USFLUX", "POLSEP", "TILT", "MEANALP")
        seen = {name: float(value) for name, value in
                measure(fields, found.pixel_cm, mask=mask, names=names).items()}  # fmt: skip
        header = found.header
        assert seen["USFLUX"] == pytest.approx(header["SIMFLUX"], rel=1e-3)
        assert seen["POLSEP"] == pytest.approx(header["SIMSEP"], rel=1e-3)
        assert seen["TILT"] == pytest.approx(header["SIMTILT"], abs=0.05)
        assert seen["MEANALP"] == pytest.approx(header["SIMALPHA"], rel=0.05, abs=3e-3)


def make(archive: Path, records: int, jobs: int = 1, first_harp: int = 900_001,
         **changes: object) -> dict:  # fmt: skip
    """`simulate` in this process, with the settings of `SMALL`."""
    plan = Plan(5, 12, 3600, "2011.01.01_00:00:00_TAI", (96, 160), Noise(), False)
    return simulate(Request(replace(plan, **changes), records, first_harp), archive, jobs)  # type: ignore[arg-type]


def test_the_same_bytes_at_any_number_of_processes(simulated: Path, tmp_path: Path) -> None:
    make(tmp_path, 4, jobs=2, steps=2, errors=True)
    assert digests(tmp_path) == digests(simulated / "archive")
    assert read_truth(tmp_path) == read_truth(simulated / "archive")


def test_a_run_goes_on_where_it_was_and_mends_what_was_damaged(tmp_path: Path) -> None:
    assert make(tmp_path, 2)["new"] == 2
    before = digests(tmp_path)
    more = make(tmp_path, 3)
    assert (more["new"], more["kept"], more["simulated"]) == (1, 2, 3)
    whole = digests(tmp_path)
    assert before.items() <= whole.items()
    victim = next(tmp_path.rglob("*.Bt.fits"))
    victim.write_bytes(victim.read_bytes()[:-2880])
    (tmp_path / "simulated.parquet").unlink()
    again = make(tmp_path, 3)
    assert (again["new"], again["kept"], again["simulated"]) == (1, 2, 3)
    assert digests(tmp_path) == whole
    with_errors = make(tmp_path, 3, errors=True)
    assert with_errors["new"] == 3
    assert whole.items() <= digests(tmp_path).items()


def test_harps_share_the_records() -> None:
    def numbers(records: int, harps: int | None, steps: int) -> list[tuple[int, int]]:
        plan = Plan(5, steps, 3600, "2011.01.01_00:00:00_TAI", None, Noise(), False)
        return sorted(Request(plan, records, shared_by=harps))

    first = 900_001
    assert numbers(3, None, 2) == [(first, 0), (first, 1), (first + 1, 0)]
    assert numbers(9, 4, 3) == [
        *((first, step) for step in range(3)),
        *((first + harp, step) for harp in (1, 2, 3) for step in range(2)),
    ]


def test_many_kept_records_are_passed_over_by_many_processes(tmp_path: Path) -> None:
    make(tmp_path, 10, shape=(40, 40))
    found = make(tmp_path, 11, jobs=2, shape=(40, 40))
    assert (found["new"], found["kept"]) == (1, 10)


def test_other_settings_do_not_mix_into_the_same_names(tmp_path: Path) -> None:
    make(tmp_path, 1)
    for change in ({"noise": CLEAN}, {"seed": 6}, {"cadence_s": 720}, {"steps": 3}):
        with pytest.raises(DataError, match="simulated with other settings"):
            make(tmp_path, 1, **change)
    assert make(tmp_path, 1, first_harp=900_002, noise=CLEAN)["simulated"] == 2


def test_a_full_disk_is_said_and_nothing_looks_complete(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            make(tmp_path, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename.endswith(".fits")
    assert not list(tmp_path.rglob("*.fits"))
    assert make(tmp_path, 1)["new"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"records": 0}, "at least 1 record"),
        ({"records": -3}, "at least 1 record"),
        ({"records": 99_999_999, "harps": 99_999_999}, "fewer records"),
        ({"records": 20_000_000}, "GB free"),
        ({"records": 500, "harps": 1}, "more --harps"),
        ({"cadence": 100}, "multiple of 720"),
        ({"size": "5x5"}, "32 to 4096"),
        ({"size": "axb"}, "such as 512x256"),
        ({"start": "2011-02-15"}, "2011.02.15_02:00:00_TAI"),
        ({"start": "1911.02.15_02:00:00_TAI"}, "2009 to 2049"),
        ({"first_harp": 377}, "900001"),
        ({"harps": 3}, "--harps 3"),
        ({"seed": -1}, "--seed -1"),
        ({"jobs": 0}, "--jobs 0"),
    ],
)
def test_mistakes_are_refused(root: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(SunpipeError, match=words):
        command(**({"records": 1, "size": "1600x900"} | options))  # type: ignore[arg-type]
    assert not list(root.rglob("*.fits"))


def test_a_mistake_gives_one_line(cli: Cli) -> None:
    done = cli("simulate", "-n", "0")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("sunpipe: --records 0")
    assert "Traceback" not in done.stderr


def test_a_dry_run_writes_nothing(cli: Cli, root: Path) -> None:
    plan = answer(cli(*SMALL, "-n", "24", "--dry-run"))
    assert (plan["records"], plan["harps"]) == (24, 2)
    assert not list(root.rglob("*.fits"))


def test_shards_take_simulated_records(simulated: Path, tmp_path: Path) -> None:
    from shutil import copytree

    root = tmp_path / "root"
    copytree(simulated, root)
    sizes = ("-s", "shard.tile=64", "-s", "shard.stride=64", "--json")
    made = answer(run_cli("shard", *sizes, root=root))
    assert made["rows"] > 0
    assert made["rows"] + made["quarantined"] == made["records_in"]
    table = pq.read_table(next((root / "shards").rglob("records.parquet")))
    assert all(name.startswith("sim.") for name in table.column("record").to_pylist())
    assert answer(run_cli("verify", "--json", root=root))["ok"]


def test_a_simulated_file_is_no_observation_of_hmi(simulated: Path, tmp_path: Path) -> None:
    """Without its series a file that calls itself SIMULATED is refused."""
    from sunpipe.fitsorigin import check_instrument

    header = read_segment(records(simulated / "archive")[0]["Br"]).header
    check_instrument(header, "x.fits")
    with pytest.raises(FitsError) as caught:
        check_instrument(header | {"SERIES": "hmi.sharp_cea_720s"}, "x.fits")
    assert caught.value.reason == "wrong_instrument"


@pytest.mark.parametrize(
    ("number", "jobs"), [(signal.SIGINT, "2"), (signal.SIGKILL, "1")], ids=["ctrl-C", "kill -9"]
)
def test_a_stopped_run_continues_to_the_same_bytes(
    simulated: Path, tmp_path: Path, number: signal.Signals, jobs: str
) -> None:
    command = [sys.executable, "-m", "sunpipe", *SMALL, "-n", "4", "--harps", "2", "--errors",
               "--out", str(tmp_path / "archive"), "--jobs", jobs]  # fmt: skip
    env = {**os.environ, "SUNPIPE_ROOT": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=REPO, env=env, stderr=subprocess.PIPE, text=True,
                          stdout=subprocess.PIPE) as run:  # fmt: skip
        deadline = time.monotonic() + 120
        while not list((tmp_path / "archive").rglob("*.fits")) and time.monotonic() < deadline:
            time.sleep(0.01)
        run.send_signal(number)
        _, errors = run.communicate(timeout=60)
    if number == signal.SIGINT:
        assert run.returncode == 75, errors
        assert "run the same command again" in errors
        assert "Traceback" not in errors
    make(tmp_path / "archive", 4, steps=2, errors=True)
    assert digests(tmp_path / "archive") == digests(simulated / "archive")
    assert len(read_truth(tmp_path / "archive")) == 4
    assert not list((tmp_path / "archive").rglob(".tmp-*"))
