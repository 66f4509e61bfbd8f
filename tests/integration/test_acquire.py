"""``sunpipe fetch``: the bundled sample, and the real drms client against a local JSOC."""

from __future__ import annotations

import hashlib
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

from preprocess.acquire.decoder import Decoders
from preprocess.acquire.partial import lease
from preprocess.acquire.sample import sample_files
from preprocess.fetch import fetch as fetch_stage
from preprocess.manifest import Entry, read_manifest
from preprocess.query import query as query_stage
from preprocess.shard import shard as shard_stage
from sunpipe.config import validate
from sunpipe.errors import ConfigError, DataError
from sunpipe.files import read_json
from sunpipe.fits import read_segment, read_vector
from tests.conftest import REPO, Cli
from tests.jsoc_server import JsocServer

pytestmark = pytest.mark.usefixtures("root")
RECORD = "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"


@pytest.fixture
def jsoc() -> Iterator[JsocServer]:
    with JsocServer() as server:
        yield server


def settings(server: JsocServer, **changes: object) -> dict[str, Any]:
    return {"source": "jsoc", "url": server.url, "retry_wait_s": 0.01, "timeout_s": 5.0, **changes}


def requests(*record_sets: str, segments: tuple[str, ...] = ("Br", "Bt", "Bp")) -> Any:
    return [{"record_set": text, "segments": list(segments)} for text in record_sets or (RECORD,)]


def fetch(
    server: JsocServer,
    *record_sets: str,
    segments: tuple[str, ...] = ("Br", "Bt", "Bp"),
    retry_failed: bool = False,
    check: bool = False,
    **changes: object,
) -> dict[str, Any]:
    """`sunpipe fetch` in this process."""
    values = {"name": "test", "fetch": settings(server, **changes),
              "query": {"requests": requests(*record_sets, segments=segments)}}  # fmt: skip
    return fetch_stage(validate(values), retry_failed=retry_failed, check=check)


def query(server: JsocServer, *record_sets: str) -> dict[str, Any]:
    """`sunpipe query` in this process."""
    values = {"name": "test", "fetch": settings(server),
              "query": {"requests": requests(*record_sets)}}  # fmt: skip
    return query_stage(validate(values))


def shard(**changes: object) -> dict[str, Any]:
    """`sunpipe shard` in this process."""
    values = {"stride": 48, "reduce": 4, "min_flux_mx": 5e20, **changes}
    result = shard_stage(validate({"name": "test", "dataset": "test", "shard": values}))
    assert result is not None
    return result


def config_file(server: JsocServer, folder: Path, *record_sets: str) -> Path:
    """A TOML file of the same."""
    lines = ['name = "test"', "[fetch]"]
    values = settings(server, timeout_s=30.0)
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    for request in requests(*record_sets):
        lines += ["[[query.requests]]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in request.items()]
    path = folder / "test.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


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


def test_parts_of_the_sample_are_all_of_it(root: Path, cli: Cli) -> None:
    parts = [json.loads(cli("fetch", "--part", f"{n}/3", "--json").stdout) for n in (1, 2, 3)]
    assert sum(part["new"] for part in parts) == 15
    assert len(states(root)) == 15
    assert cli("fetch", "--part", "4/3").returncode == 2


# --- JSOC


def test_jsoc_gives_the_same_record_as_the_sample(root: Path, jsoc: JsocServer) -> None:
    assert fetch(jsoc)["fetched"] == 3
    files = [root / "archive" / states(root)[RECORD, name].path for name in ("Br", "Bt", "Bp")]
    found = read_vector(*files)  # with the keywords that stand beside them
    sample = {segment: path for record, segment, path, _ in sample_files() if record == RECORD}
    assert (found.fields[0] == read_segment(sample["Br"]).data).all()
    assert found.record == RECORD
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


@pytest.mark.parametrize("fault", ["short", "html", "page", "500", "reset"])
def test_a_lasting_fault_stores_nothing_and_spares_the_neighbours(
    root: Path, jsoc: JsocServer, fault: str
) -> None:
    jsoc.ranges = False
    jsoc.faults["Bt.fits"] = [fault] * 3
    with pytest.raises(DataError, match=r"1 segments failed, 2 arrived.*same command again$"):
        fetch(jsoc, retries=2)
    entry = states(root)[RECORD, "Bt"]
    assert (entry.state, entry.final) == ("failed", False)
    assert not (root / "archive" / entry.path).exists()
    assert leftovers(root) == []
    assert fetch(jsoc)["fetched"] == 3
    assert len(jsoc.downloads()) == 6  # 3 tries, 2 neighbours, 1 more


@pytest.mark.parametrize("fault", ["flip", "cut"])
def test_a_file_that_is_damaged_upstream_is_quarantined(
    root: Path, jsoc: JsocServer, fault: str
) -> None:
    jsoc.faults["Bt.fits"] = [fault] * 2
    result = fetch(jsoc)
    assert (result["fetched"], result["quarantined"]) == (2, 1)
    entry = states(root)[RECORD, "Bt"]
    assert "twice with the same bytes" in entry.reason
    assert not (root / "archive" / entry.path).exists()
    assert fetch(jsoc)["quarantined"] == 1
    assert len(jsoc.downloads()) == 4  # not tried again
    assert fetch(jsoc, retry_failed=True)["fetched"] == 3


@pytest.mark.parametrize("fault", ["huge", "away"])
def test_what_is_too_large_or_elsewhere_is_refused_at_once(
    root: Path, jsoc: JsocServer, fault: str
) -> None:
    jsoc.faults["Bt.fits"] = [fault] * 9
    with pytest.raises(DataError, match=r"1 segments failed, 2 arrived.*--retry-failed"):
        fetch(jsoc)
    entry = states(root)[RECORD, "Bt"]
    assert (entry.state, entry.final) == ("failed", True)
    assert fetch(jsoc)["failed"] == 1
    assert len(jsoc.downloads()) == 3  # one try, and none by the second fetch
    jsoc.faults.clear()
    assert fetch(jsoc, retry_failed=True)["fetched"] == 3


def test_a_decoder_that_crashes_costs_its_file_only(
    root: Path, jsoc: JsocServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = jsoc.archive.bodies[jsoc.archive.files[RECORD, "Bt"]]
    digest = hashlib.sha256(body).hexdigest()
    code = (
        "import json, os, signal, sys\n"
        "from pathlib import Path\n"
        "from preprocess.acquire.decoder import examine\n"
        "for line in sys.stdin:\n"
        "    found = examine(Path(json.loads(line)))\n"
        f"    if found.sha256 == '{digest}': os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    print(json.dumps(found.__dict__), flush=True)\n"
    )
    command = (sys.executable, "-c", code)
    monkeypatch.setattr(
        "preprocess.acquire.session.Decoders", lambda count: Decoders(count, command)
    )
    result = fetch(jsoc)
    assert (result["fetched"], result["quarantined"]) == (2, 1)
    assert "the decoder ended with -11 [crash], twice" in states(root)[RECORD, "Bt"].reason
    assert leftovers(root) == list((root / "archive/.partial").iterdir()) == []


def test_a_redirect_on_the_same_host_is_followed(jsoc: JsocServer) -> None:
    jsoc.faults["Bt.fits"] = ["moved"]
    assert fetch(jsoc)["fetched"] == 3


def test_a_broken_transfer_is_resumed_where_it_broke(root: Path, jsoc: JsocServer) -> None:
    jsoc.faults["Bt.fits"] = ["short"]
    assert fetch(jsoc)["fetched"] == 3
    first, second = [r for r in jsoc.requests if r.path.endswith("Bt.fits")]
    size = states(root)[RECORD, "Bt"].bytes
    assert first.range == ""
    assert second.range == f"bytes={size // 2}-"
    sample = {segment: path for record, segment, path, _ in sample_files() if record == RECORD}
    found = read_segment(root / "archive" / states(root)[RECORD, "Bt"].path)
    assert (found.data == read_segment(sample["Bt"]).data).all()


def test_what_another_file_left_is_not_resumed(root: Path, jsoc: JsocServer) -> None:
    query(jsoc)
    for segment in ("Br", "Bt", "Bp"):
        with lease(root / "archive", RECORD, segment) as partial:
            assert partial is not None
            url = states(root)[RECORD, segment].url if segment == "Br" else jsoc.url + "SUM1/x"
            partial.restart(url=url, total=123456, validator='"x"')
            partial.handle.write(b"SIMPLE  = " + bytes(70))
    assert fetch(jsoc)["fetched"] == 3
    ranges = {r.path.rpartition("/")[2]: [] for r in jsoc.requests}
    for request in jsoc.requests:
        ranges[request.path.rpartition("/")[2]].append(request.range)
    assert ranges["Br.fits"] == ["bytes=80-"]  # it is another file: all of it came at once
    assert ranges["Bt.fits"] == ranges["Bp.fits"] == [""]


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
    assert entry.state == "missing"
    assert entry.reason == "NoDataDirectory: the record has no image"
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
    assert fetch(jsoc)["failed"] == 1
    entry = states(root)[RECORD, "Br"]
    assert (entry.state, entry.final) == ("failed", True)
    assert path in entry.reason
    assert len(jsoc.downloads()) == 2
    assert fetch(jsoc, retry_failed=True)["failed"] == 1  # there is no address to try


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
    with pytest.raises(ConfigError, match="no segment Bx"):
        fetch(jsoc, segments=("Bx",))


def test_an_unreachable_archive_names_the_alternative(root: Path, cli: Cli, tmp_path: Path) -> None:
    with JsocServer() as gone:
        pass
    done = cli("fetch", "-c", config_file(gone, tmp_path))
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert "cannot be reached" in line
    assert "sunpipe fetch --source sample" in line
    assert "make demo" in line
    assert "Traceback" not in done.stderr
    assert leftovers(root) == []


def stopped_in_the_middle(root: Path, jsoc: JsocServer, config: Path, number: int) -> Any:
    """Start a fetch, send it a signal during its second file; returns code and stderr."""
    jsoc.faults["Br.fits"] = ["stall"]
    command = [sys.executable, "-m", "sunpipe", "fetch", "-c", str(config)]
    env: dict[str, Any] = {**os.environ, "SUNPIPE_ROOT": str(root)}
    with subprocess.Popen(command, env=env, cwd=REPO, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 60
        half = root / "archive/.partial"
        while not (
            any(
                entry.segment == "Bp" and entry.state == "fetched"
                for entry in states(root).values()
            )
            and any(path.stat().st_size for path in half.glob("*.part"))
        ):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(number)
        _, errors = running.communicate(timeout=60)
    return running.returncode, errors


def test_a_killed_fetch_continues_where_it_stopped(
    root: Path, cli: Cli, jsoc: JsocServer, tmp_path: Path
) -> None:
    config = config_file(jsoc, tmp_path)
    stopped_in_the_middle(root, jsoc, config, signal.SIGKILL)
    assert {entry.state for entry in states(root).values()} == {"fetched", "wanted"}
    done = cli("fetch", "-c", config, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["fetched"], result["new"], result["kept"]) == (3, 2, 1)
    assert len(jsoc.downloads()) == 4  # Bp was not asked for again
    assert [r.range != "" for r in jsoc.requests if r.path.endswith("Br.fits")] == [False, True]
    assert leftovers(root) == list((root / "archive/.partial").iterdir()) == []
    assert list((root / "archive/journal").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_half_written(
    root: Path, jsoc: JsocServer, tmp_path: Path, number: int
) -> None:
    code, errors = stopped_in_the_middle(root, jsoc, config_file(jsoc, tmp_path), number)
    assert code == 75, errors
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert leftovers(root) == []
    assert list((root / "archive/journal").iterdir()) == []
    assert [states(root)[RECORD, name].state for name in ("Bp", "Br")] == ["fetched", "wanted"]


def test_a_file_that_changed_is_brought_again(root: Path, jsoc: JsocServer) -> None:
    fetch(jsoc)
    entry = states(root)[RECORD, "Bt"]
    path = root / "archive" / entry.path
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + b"x")
    assert fetch(jsoc)["new"] == 1  # written after it was fetched
    path.write_bytes(raw[:-1] + b"x")
    os.utime(path, (1e9, 1e9))
    assert fetch(jsoc)["new"] == 0
    assert fetch(jsoc, check=True)["new"] == 1
    assert path.read_bytes() == raw


def test_a_fetch_after_the_manifest_was_lost_asks_again(root: Path, jsoc: JsocServer) -> None:
    fetch(jsoc)
    (root / "archive/manifest.parquet").unlink()
    result = fetch(jsoc)
    assert (result["fetched"], result["new"]) == (3, 3)
    assert len(jsoc.downloads()) == 3  # whole files with right checksums are adopted


@pytest.mark.remote_data
def test_the_real_jsoc(root: Path, cli: Cli) -> None:
    done = cli("fetch", "-c", REPO / "configs/download.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fetched"] == 3
