"""Many files, many faults, several processes, kills: the archive is the same in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from preprocess.fetch import fetch as fetch_stage
from preprocess.manifest import read_manifest
from sunpipe.config import load_config
from tests.conftest import REPO
from tests.jsoc_archive import SHARP, tiny_archive
from tests.jsoc_export import EMAIL
from tests.jsoc_server import JsocServer

BOOKS = {".lock", ".query.lock", ".manifest.lock", "manifest.parquet"}


def write_config(server: JsocServer, folder: Path, **fetch: Any) -> Path:
    values = {"source": "jsoc", "url": server.url, "retry_wait_s": 0.01, "timeout_s": 30.0, **fetch}
    lines = ['name = "test"', "[fetch]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]
    lines += ["[[query.requests]]", f'series = "{SHARP}"', 'start = "2012-01-01"',
              'end = "2012-01-02"', 'segments = ["Br", "Bt", "Bp"]']  # fmt: skip
    path = folder / "test.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def contents(root: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Files of the archive, and its manifest apart from times."""
    archive = root / "archive"
    files = {str(path.relative_to(archive)): path.read_bytes()
             for path in archive.rglob("*") if path.is_file() and path.name not in BOOKS
             and path.parent.name != "queries"}  # fmt: skip
    rows = [asdict(entry) | {"time": ""} for _, entry in sorted(read_manifest(archive).items())]
    return files, rows


def start(config: Path, root: Path, *options: str) -> subprocess.Popen[str]:
    env: dict[str, Any] = {**os.environ, "SUNPIPE_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-m", "sunpipe", "fetch", "-c", str(config), "--json", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, env=env, cwd=REPO, stdout=pipe, stderr=pipe, text=True)


def finish(*running: subprocess.Popen[str]) -> list[dict[str, Any]]:
    results = []
    for process in running:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        results.append(json.loads(out))
    return results


def test_a_thousand_files_through_faults_with_few_more_requests(root: Path, tmp_path: Path) -> None:
    with JsocServer(tiny_archive(340)) as server:
        server.fault_rate = 0.05
        config = write_config(server, tmp_path, connections=3)
        result = fetch_stage(load_config(config))
        assert (result["fetched"], result["failed"]) == (1020, 0)
        downloads = server.downloads()
        assert 1020 < len(downloads) <= 1.15 * 1020
        assert server.max_concurrent <= 3
        archive = root / "archive"
        for (record, segment), entry in read_manifest(archive).items():
            if segment != "keywords":
                body = server.archive.bodies[server.archive.files[record, segment]]
                assert (archive / entry.path).read_bytes() == body
    assert list((archive / ".partial").iterdir()) == []


def test_a_storm_of_503_pauses_everybody(root: Path, tmp_path: Path) -> None:
    with JsocServer(tiny_archive(20)) as server:
        config = write_config(server, tmp_path, connections=2)
        server.faults[".fits"] = ["503 Retry-After 0.5"] * 2
        assert fetch_stage(load_config(config))["fetched"] == 60
        times = [r.time for r in server.requests if r.path.startswith("/SUM")]
        pauses = [b - a for a, b in pairwise(times)]
        assert max(pauses) > 0.4
        assert len(times) == 62  # nobody knocked meanwhile


def test_two_fetches_of_one_archive_share_the_work(root: Path, tmp_path: Path) -> None:
    with JsocServer(tiny_archive(30), delay_s=0.03) as server:
        config = write_config(server, tmp_path)
        results = finish(start(config, root), start(config, root))
        assert all(result["fetched"] + result["wanted"] == 90 for result in results)
        downloads = server.downloads()
        assert len(downloads) == len(set(downloads)) == 90
        assert server.max_concurrent <= 2
        assert len(server.asked("rs_list")) == 1  # the second waited for the first one's query
        alone = tmp_path / "alone"
        finish(start(config, alone))
    assert contents(root) == contents(alone)
    assert list((root / "archive/journal").iterdir()) == []


def test_parts_at_once_are_the_whole(root: Path, tmp_path: Path) -> None:
    with JsocServer(tiny_archive(30)) as server:
        config = write_config(server, tmp_path)
        results = finish(*(start(config, root, "--part", f"{n}/3") for n in (1, 2, 3)))
        assert sum(result["new"] for result in results) == 90
        assert all(0 < result["records"] < 30 for result in results)
        assert Counter(server.downloads()).most_common(1)[0][1] == 1
        assert finish(start(config, root))[0]["kept"] == 90
        alone = tmp_path / "alone"
        finish(start(config, alone))
    assert contents(root) == contents(alone)


@pytest.mark.timeout(280)
def test_fifty_kills_leave_no_mark(tmp_path: Path) -> None:
    with JsocServer(tiny_archive(60), delay_s=0.02) as server:
        config = write_config(server, tmp_path)
        argv = [sys.executable, "-m", "tests.fetch_killer", str(config), str(tmp_path), "50"]
        done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["kills"] >= 50
        server.delay_s = 0
        finish(start(config, tmp_path / "alone"))
        requests = len(server.downloads())
        assert any(request.range for request in server.requests)  # some were killed in a body
    wanted = contents(tmp_path / "alone")
    assert len(wanted[1]) == 60 * 4
    for root in result["roots"]:
        assert contents(Path(root)) == wanted
    # a kill costs the transfer it hits, and no file that had arrived
    assert requests <= (len(result["roots"]) + 1) * 180 + result["kills"]


def test_kills_place_no_order_twice(tmp_path: Path) -> None:
    with JsocServer(tiny_archive(24), delay_s=0.02) as server:
        server.tape = set(server.archive.keywords)
        server.export_states = [2, 0]
        config = write_config(server, tmp_path, email=EMAIL, export_poll_s=0.02, export_records=8)
        argv = [sys.executable, "-m", "tests.fetch_killer", str(config), str(tmp_path), "12"]
        done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        server.delay_s = 0
        finish(start(config, tmp_path / "alone"))
    assert len(server.exports) == 3  # JSOC gives the same request the same id, no other was made
    wanted = contents(tmp_path / "alone")
    assert len(wanted[1]) == 24 * 4
    for root in result["roots"]:
        assert contents(Path(root)) == wanted
        assert list(Path(root).glob("archive/exports/*.json")) == []


def test_decoders_do_not_outlive_a_killed_fetch(root: Path, tmp_path: Path) -> None:
    with JsocServer(tiny_archive(2)) as server:
        server.faults["Br.fits"] = ["stall"]
        running = start(write_config(server, tmp_path, decoders=2), root)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        deadline = time.monotonic() + 60
        while not any("Br.fits" in path for path in server.downloads()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        workers = [int(pid) for pid in children.read_text().split()]
        assert len(workers) == 2
        running.kill()
        running.communicate()
        while any(Path(f"/proc/{pid}/cmdline").exists() and b"decoder" in
                  Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers):  # fmt: skip
            assert time.monotonic() < deadline
            time.sleep(0.05)
