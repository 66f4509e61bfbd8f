"""``sunpipe fetch``: the bundled sample, and the real drms client against a local JSOC."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preprocess.fetch import fetch as fetch_stage
from preprocess.inputs import list_inputs, load
from preprocess.manifest import Entry, read_manifest
from preprocess.sample import sample_files
from preprocess.shard import shard as shard_stage
from sunpipe.config import validate
from sunpipe.errors import DataError
from sunpipe.files import read_json
from sunpipe.fits import read_segment
from tests.conftest import REPO, Cli
from tests.jsoc_server import JsocServer

pytestmark = pytest.mark.usefixtures("root")
RECORD = "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"


@pytest.fixture
def jsoc() -> Iterator[JsocServer]:
    with JsocServer() as server:
        yield server


def settings(server: JsocServer, *records: str, **changes: object) -> dict[str, Any]:
    return {"source": "jsoc", "url": server.url, "records": list(records or (RECORD,)),
            "retry_wait_s": 0.01, "timeout_s": 5.0, **changes}  # fmt: skip


def fetch(server: JsocServer, *records: str, **changes: object) -> dict[str, Any]:
    """`sunpipe fetch` in this process."""
    values = settings(server, *records, **changes)
    return fetch_stage(validate({"name": "test", "fetch": values}))


def shard(**changes: object) -> dict[str, Any]:
    """`sunpipe shard` in this process."""
    values = {"stride": 48, "reduce": 4, "min_flux_mx": 5e20, **changes}
    result = shard_stage(validate({"name": "test", "dataset": "test", "shard": values}))
    assert result is not None
    return result


def options(server: JsocServer) -> list[str]:
    values = settings(server)
    sets = [f"fetch.{key}={json.dumps(value)}" for key, value in values.items()]
    return [word for text in sets for word in ("--set", text)]


def states(root: Path) -> dict[tuple[str, str], Entry]:
    return read_manifest(root / "archive")


def leftovers(root: Path) -> list[Path]:
    return list(root.rglob(".tmp-*"))


# --- the bundled sample


def test_sample_is_laid_out_like_a_fetch(root: Path, cli: Cli) -> None:
    done = cli("fetch", "--json")
    result = json.loads(done.stdout)
    assert (result["records"], result["fetched"], result["new"]) == (4, 15, 15)
    path = root / "archive/hmi.sharp_cea_720s/377/20110215_020000_TAI"
    assert (path / "hmi.sharp_cea_720s.377.20110215_020000_TAI.Br.fits").is_file()
    digests = {(record, segment): digest for record, segment, _, digest in sample_files()}
    assert {key: entry.sha256 for key, entry in states(root).items()} == digests


def test_a_second_fetch_brings_nothing_and_mends_what_was_broken(root: Path, cli: Cli) -> None:
    cli("fetch")
    entry = states(root)[RECORD, "Bt"]
    broken = root / "archive" / entry.path
    before = (root / "archive/manifest.parquet").stat().st_mtime_ns
    again = cli("fetch", "--json")
    assert "up to date" in again.stderr
    assert json.loads(again.stdout)["kept"] == 15
    assert (root / "archive/manifest.parquet").stat().st_mtime_ns == before
    broken.write_bytes(broken.read_bytes()[:1000])
    assert json.loads(cli("fetch", "--json").stdout)["new"] == 1
    assert broken.stat().st_size == entry.bytes


def test_dry_run_writes_nothing(root: Path, cli: Cli) -> None:
    done = cli("fetch", "--dry-run", "--json")
    assert RECORD in done.stdout
    assert list(root.iterdir()) == []


def test_unknown_source_is_one_line(cli: Cli) -> None:
    done = cli("fetch", "--source", "moon")
    assert done.returncode == 2
    assert "fetch.source" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_fetches_at_once_are_refused(root: Path, cli: Cli) -> None:
    import fcntl

    (root / "archive").mkdir()
    with open(root / "archive/.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = cli("fetch")
    assert done.returncode == 1
    assert "another process is fetching" in done.stderr


# --- JSOC


def test_jsoc_gives_the_same_record_as_the_sample(root: Path, jsoc: JsocServer) -> None:
    assert fetch(jsoc)["fetched"] == 3
    (item,) = list_inputs(states(root))
    found = load(root / "archive", item, "strict")
    sample = {segment: path for record, segment, path, _ in sample_files() if record == RECORD}
    assert (found.fields[0] == read_segment(sample["Br"]).data).all()
    assert found.header["USFLUX"] == 2.71476e22
    assert found.header["QUALITY"] == 0
    assert found.pixel_cm == pytest.approx(3.64423e7, rel=1e-5)


def test_stored_segments_carry_no_keywords(root: Path, jsoc: JsocServer) -> None:
    fetch(jsoc)
    path = root / "archive" / states(root)[RECORD, "Br"].path
    assert "TELESCOP" not in read_segment(path).header
    keywords = read_json(path.with_name("keywords.json"))
    assert keywords["keywords"]["HARPNUM"] == 377
    assert "R_VALUE" not in keywords["keywords"]  # nan in the archive
    assert keywords["units"]["Br"] == "Mx/cm^2"


def test_the_server_is_treated_politely(root: Path, jsoc: JsocServer) -> None:
    fetch(jsoc, "hmi.sharp_cea_720s[377]", "hmi.sharp_cea_720s[6060]")
    assert jsoc.max_concurrent == 1
    assert len(jsoc.downloads()) == len(set(jsoc.downloads())) == 9
    agents = {request.agent for request in jsoc.requests if request.path.startswith("/SUM")}
    assert all(agent.startswith("sunpipe/") for agent in agents)
    fetch(jsoc, "hmi.sharp_cea_720s[377]")
    assert len(jsoc.downloads()) == 9


@pytest.mark.parametrize("fault", ["503", "short", "reset", "html", "flip"])
def test_a_passing_fault_is_survived(root: Path, jsoc: JsocServer, fault: str) -> None:
    jsoc.faults["Bt.fits"] = [fault]
    assert fetch(jsoc)["fetched"] == 3
    assert len(jsoc.downloads()) == 4
    read_segment(root / "archive" / states(root)[RECORD, "Bt"].path)
    assert leftovers(root) == []


@pytest.mark.parametrize("fault", ["503", "html", "short"])
def test_a_passing_fault_of_a_query_is_survived(jsoc: JsocServer, fault: str) -> None:
    jsoc.faults["rs_list"] = [fault, fault]
    assert fetch(jsoc)["fetched"] == 3


@pytest.mark.parametrize("fault", ["short", "html", "flip"])
def test_a_lasting_fault_stores_nothing_and_spares_the_neighbours(
    root: Path, jsoc: JsocServer, fault: str
) -> None:
    jsoc.faults["Bt.fits"] = [fault] * 3
    with pytest.raises(DataError, match=r"1 segments failed, 2 arrived.*same command again"):
        fetch(jsoc, retries=2)
    entry = states(root)[RECORD, "Bt"]
    assert entry.state == "failed"
    assert not (root / "archive" / entry.path).exists()
    assert leftovers(root) == []
    assert fetch(jsoc)
    assert len(jsoc.downloads()) == 6  # 3 tries, 2 neighbours, 1 more


def test_retry_after_is_honoured(jsoc: JsocServer) -> None:
    jsoc.faults["Br.fits"] = ["503 Retry-After 1"]
    fetch(jsoc)
    tries = [request.time for request in jsoc.requests if request.path.endswith("Br.fits")]
    assert tries[1] - tries[0] >= 1.0


def test_a_record_without_image_does_not_fail_its_neighbour(root: Path, jsoc: JsocServer) -> None:
    late = "hmi.sharp_cea_720s[6060][2015.10.30_00:12:00_TAI]"
    jsoc.missing |= {(late, segment) for segment in ("Br", "Bt", "Bp")}
    jsoc.overrides[late, "QUALITY"] = "0x80000000"
    result = fetch(jsoc, "hmi.sharp_cea_720s[6060]")
    assert (result["fetched"], result["missing"], result["failed"]) == (3, 3, 0)
    entry = states(root)[late, "Br"]
    assert (entry.state, entry.reason) == ("missing", "NoDataDirectory")
    assert shard()["by_reason"]["quality"] == 1
    del jsoc.overrides[late, "QUALITY"]
    fetch(jsoc, "hmi.sharp_cea_720s[6060]")
    assert shard()["by_reason"]["missing_segment"] == 1


def test_an_expired_storage_unit_is_missing(root: Path, jsoc: JsocServer) -> None:
    jsoc.faults["Bp.fits"] = ["404"]
    assert fetch(jsoc)
    entry = states(root)[RECORD, "Bp"]
    assert (entry.state, entry.reason) == ("missing", "HTTP 404")


def test_hexadecimal_quality_survives(root: Path, jsoc: JsocServer) -> None:
    jsoc.overrides[RECORD, "QUALITY"] = "0x00000200"
    fetch(jsoc)
    with pytest.raises(DataError, match="ECLIPSE"):
        shard()
    assert shard(quality="lenient")["rows"] > 0


@pytest.mark.parametrize("path", ["/etc/passwd", "http://127.0.0.1:1/x", "/SUM1/D1/S00000/../x"])
def test_strange_paths_are_not_followed(root: Path, jsoc: JsocServer, path: str) -> None:
    jsoc.paths[RECORD, "Br"] = path
    with pytest.raises(DataError, match="1 segments failed"):
        fetch(jsoc)
    assert states(root)[RECORD, "Br"].state == "failed"
    assert len(jsoc.downloads()) == 2


@pytest.mark.parametrize(
    ("name", "text"), [("T_REC", "2011.02.15/../../x"), ("HARPNUM", "MISSING")]
)
def test_strange_identities_make_no_path(
    root: Path, jsoc: JsocServer, name: str, text: str
) -> None:
    jsoc.overrides[RECORD, name] = text
    with pytest.raises(DataError):
        fetch(jsoc)
    assert jsoc.downloads() == []


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("hmi.no_such_series[377]", "series not found"),
        ("hmi.sharp_cea_720s[999999]", "no record"),
        ("hmi.sharp_cea_720s[377][bad query]", "syntax error"),
    ],
)
def test_refused_queries_are_one_line(jsoc: JsocServer, record: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        fetch(jsoc, record)


def test_unknown_segments_are_named(jsoc: JsocServer) -> None:
    with pytest.raises(DataError, match="no segment Bx"):
        fetch(jsoc, segments=["Bx"])


def test_an_unreachable_archive_names_the_alternative(root: Path, cli: Cli) -> None:
    with JsocServer() as gone:
        pass
    done = cli("fetch", *options(gone))
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert "cannot be reached" in line
    assert "sunpipe fetch --source sample" in line
    assert "make demo" in line
    assert "Traceback" not in done.stderr
    assert leftovers(root) == []


def test_a_killed_fetch_continues_where_it_stopped(root: Path, cli: Cli, jsoc: JsocServer) -> None:
    jsoc.faults["Bp.fits"] = ["stall"]
    command = [sys.executable, "-m", "sunpipe", "fetch", *options(jsoc)]
    env: dict[str, Any] = {**os.environ, "SUNPIPE_ROOT": str(root)}
    with subprocess.Popen(command, env=env, cwd=REPO, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 60
        while not any(path.endswith("Bp.fits") for path in jsoc.downloads()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
    assert len(leftovers(root)) == 1
    done = cli("fetch", *options(jsoc), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fetched"] == 3
    assert len(jsoc.downloads()) == 4  # Br and Bt were not asked for again
    assert leftovers(root) == []


def test_ctrl_c_leaves_nothing_half_written(root: Path, cli: Cli, jsoc: JsocServer) -> None:
    jsoc.faults["Bp.fits"] = ["stall"]
    command = [sys.executable, "-m", "sunpipe", "fetch", *options(jsoc)]
    env: dict[str, Any] = {**os.environ, "SUNPIPE_ROOT": str(root)}
    with subprocess.Popen(command, env=env, cwd=REPO, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 60
        while not any(path.endswith("Bp.fits") for path in jsoc.downloads()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 75
    assert "run the same command again" in errors
    assert leftovers(root) == []
    assert {entry.state for entry in states(root).values()} == {"fetched"}


@pytest.mark.remote_data
def test_the_real_jsoc(root: Path, cli: Cli) -> None:
    done = cli("fetch", "--source", "jsoc", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fetched"] == 3
