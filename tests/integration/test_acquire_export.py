"""Files on tape: ordered as an export, waited for, fetched like all others."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from preprocess.acquire.export import Desk, bring_staged
from preprocess.acquire.journal import Journal
from preprocess.acquire.orders import Order, make_orders
from preprocess.fetch import fetch as fetch_stage
from preprocess.manifest import Entry, read_manifest
from sunpipe.config import validate
from sunpipe.errors import DataError
from sunpipe.files import read_json, write_json
from tests.jsoc_archive import SHARP, tiny_archive
from tests.jsoc_export import EMAIL
from tests.jsoc_server import JsocServer

pytestmark = pytest.mark.usefixtures("root")


class Killed(Exception):
    """What ends a fetch in the middle."""


@pytest.fixture
def jsoc(monkeypatch: pytest.MonkeyPatch) -> Iterator[JsocServer]:
    for name in ("JSOC_EMAIL", "SUNPIPE_JSOC_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    with JsocServer(tiny_archive(6)) as server:
        server.tape = set(sorted(server.archive.keywords)[:4])
        yield server


def fetch(server: JsocServer, retry_failed: bool = False, **changes: Any) -> dict[str, Any]:
    values = {"source": "jsoc", "url": server.url, "retry_wait_s": 0.01, "timeout_s": 10.0,
              "export_poll_s": 0.02, "email": EMAIL, **changes}  # fmt: skip
    request = {"record_set": f"{SHARP}[1]", "segments": ["Br", "Bt"]}
    config = validate({"name": "t", "fetch": values, "query": {"requests": [request]}})
    return fetch_stage(config, retry_failed=retry_failed)


def states(root: Path) -> dict[tuple[str, str], Entry]:
    return read_manifest(root / "archive")


def orders(root: Path) -> list[Path]:
    return list((root / "archive/exports").glob("*.json"))


def test_files_on_tape_are_ordered_and_brought(root: Path, jsoc: JsocServer) -> None:
    result = fetch(jsoc)
    assert (result["fetched"], result["staged"], result["new"]) == (12, 0, 12)
    assert len(jsoc.asked("exp_request")) == 1
    assert len(jsoc.asked("exp_status")) == 3  # 6, 1, 0
    assert orders(root) == []
    assert jsoc.max_concurrent == 1
    record = min(jsoc.tape)
    entry = states(root)[record, "Br"]
    body = jsoc.archive.bodies[jsoc.archive.files[record, "Br"]]
    assert (root / "archive" / entry.path).read_bytes() == body
    assert "/SUM75/" in entry.url
    assert fetch(jsoc)["kept"] == 12


def test_without_an_address_they_stay_staged(
    root: Path, jsoc: JsocServer, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = fetch(jsoc, email="")
    assert (result["fetched"], result["staged"]) == (4, 8)
    assert "fetch.email or JSOC_EMAIL" in capfd.readouterr().err
    assert jsoc.asked("exp_request") == []
    monkeypatch.setenv("JSOC_EMAIL", EMAIL)
    assert fetch(jsoc, email="")["fetched"] == 12


def test_an_order_that_takes_long_is_found_again(root: Path, jsoc: JsocServer) -> None:
    jsoc.export_states = [2, 2, 2, 2, 2, 2, 2, 0]
    assert fetch(jsoc, export_wait_s=0.05)["staged"] == 8
    (order,) = orders(root)
    assert read_json(order)["id"] == "JSOC_20260101_000001"
    assert EMAIL not in order.read_text()
    assert fetch(jsoc)["fetched"] == 12
    assert len(jsoc.asked("exp_request")) == 1
    assert orders(root) == []


def test_an_order_that_was_deleted_is_placed_again(root: Path, jsoc: JsocServer) -> None:
    jsoc.export_states = [2, 2, 2, 2, 2, 2, 2, 0]
    fetch(jsoc, export_wait_s=0.05)
    jsoc.exports["JSOC_20260101_000001"] |= {"deleted": True, "states": []}
    jsoc.export_states = [2, 0]
    assert fetch(jsoc)["fetched"] == 12
    assert len(jsoc.asked("exp_request")) == 2


@pytest.mark.parametrize("old", [True, False])
def test_orders_of_other_runs_are_theirs_until_jsoc_has_deleted_them(
    root: Path, jsoc: JsocServer, old: bool
) -> None:
    kept = root / "archive/exports/other.json"
    write_json(kept, {"id": "JSOC_20250101_000001", "time": "",
                      "record_set": f"{SHARP}[9][2012.01.01_00:00:00_TAI]{{Br}}"})  # fmt: skip
    if old:
        os.utime(kept, (1.4e9, 1.4e9))
    assert fetch(jsoc)["fetched"] == 12
    assert orders(root) == ([] if old else [kept])


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"id": "../x", "record_set": "a.b[1]{c}"}',
     b'{"id": "JSOC_20250101_000001", "record_set": "junk a.b[1]{c}"}',
     b'{"id": "JSOC_20250101_000001", "record_set": 3}'],
)  # fmt: skip
def test_a_damaged_order_is_named(root: Path, jsoc: JsocServer, content: bytes) -> None:
    (root / "archive/exports").mkdir(parents=True)
    (root / "archive/exports/x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.json is not an order; remove it"):
        fetch(jsoc)
    assert jsoc.asked("exp_request") == []


def test_one_order_at_a_time(root: Path, jsoc: JsocServer) -> None:
    assert fetch(jsoc, export_records=1)["fetched"] == 12
    assert len(jsoc.exports) == 4  # the server answers 7 to a second one that is open
    assert len(jsoc.asked("exp_request")) == 4


@pytest.mark.parametrize(
    "first",
    [
        {"status": 4, "error": "Cant save new export-request hash."},  # codespell:ignore cant
        {"status": 7, "error": "User has 1 pending export requests"},
    ],
)
def test_passing_refusals_are_waited_out(jsoc: JsocServer, first: dict[str, Any]) -> None:
    jsoc.export_answers = [first, first]
    assert fetch(jsoc)["fetched"] == 12
    assert len(jsoc.asked("exp_request")) == 3


def test_an_order_that_is_too_large_is_divided(jsoc: JsocServer) -> None:
    jsoc.export_answers = [{"status": 3, "error": "Request exceeds max byte limit",
                            "requestid": "VOID"}] * 2  # fmt: skip
    assert fetch(jsoc)["fetched"] == 12
    assert [text.count("{") for text in jsoc.asked("exp_request")] == [4, 2, 1, 1, 2]


def test_what_staff_must_bring_online_stays_staged(root: Path, jsoc: JsocServer) -> None:
    jsoc.export_answers = [{"status": 25, "error": "data offline, see JSOC_20260101_000007"}]
    assert fetch(jsoc)["staged"] == 8
    assert "data offline" in states(root)[min(jsoc.tape), "Br"].reason
    assert fetch(jsoc)["fetched"] == 12


def test_a_refusal_is_a_final_failure(root: Path, jsoc: JsocServer) -> None:
    jsoc.export_answers = [{"status": 4, "error": "There are no files in this RecordSet"}]
    with pytest.raises(
        DataError, match=r"8 segments failed, 4 arrived.*no files in this RecordSet"
    ):
        fetch(jsoc)
    assert states(root)[min(jsoc.tape), "Br"].final


def test_an_unknown_address_is_told(jsoc: JsocServer) -> None:
    with pytest.raises(DataError, match="register_email"):
        fetch(jsoc, email="nobody@example.org")
    assert len(jsoc.downloads()) == 4  # what was online has come


def test_files_that_an_export_leaves_out_are_missing(root: Path, jsoc: JsocServer) -> None:
    lost = min(jsoc.tape)
    jsoc.missing.add((lost, "Bt"))
    result = fetch(jsoc)
    assert (result["fetched"], result["missing"]) == (11, 1)
    assert "not in the export JSOC_" in states(root)[lost, "Bt"].reason
    assert jsoc.asked("exp_request")[1] == f"{lost}{{Bt}}"  # once more, and no third time
    assert len(jsoc.asked("exp_request")) == 2
    assert fetch(jsoc)["missing"] == 1
    assert len(jsoc.asked("exp_request")) == 2
    jsoc.missing.clear()
    assert fetch(jsoc, retry_failed=True)["fetched"] == 12
    assert orders(root) == []


@pytest.mark.parametrize("times", [1, 2])
def test_a_file_that_could_not_be_written_is_ordered_once_more(
    root: Path, jsoc: JsocServer, times: int
) -> None:
    lost = min(jsoc.tape)
    jsoc.no_data[lost, "Bt"] = times
    result = fetch(jsoc)
    assert (result["fetched"], result["missing"]) == ((12, 0) if times == 1 else (11, 1))
    assert len(jsoc.asked("exp_request")) == 2


def test_files_without_their_names_are_known_by_their_records(jsoc: JsocServer) -> None:
    jsoc.recnum_names = True
    assert fetch(jsoc)["fetched"] == 12
    assert any(path.endswith("40000001.Br.fits") for path in jsoc.downloads())


def test_a_fetch_that_was_killed_goes_on_with_its_order(
    root: Path, jsoc: JsocServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Journal.write
    lines: list[Entry] = []

    def kill(journal: Journal, entries: list[Entry]) -> None:
        write(journal, entries)
        lines.extend(entry for entry in entries if "/SUM75/" in entry.url)
        if len(lines) == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", kill)
        with pytest.raises(Killed):
            fetch(jsoc)
    assert len(orders(root)) == 1
    assert fetch(jsoc)["fetched"] == 12
    assert len(jsoc.asked("exp_request")) == 1
    assert orders(root) == []
    assert len(set(jsoc.downloads())) == 12
    assert len(jsoc.downloads()) <= 13  # one was under way


def test_a_kill_before_the_id_was_kept_costs_nothing(
    root: Path, jsoc: JsocServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise Killed

    jsoc.export_states = [0]
    with monkeypatch.context() as patch:
        patch.setattr(Order, "keep", kill)
        with pytest.raises(Killed):
            fetch(jsoc)
    assert fetch(jsoc)["fetched"] == 12
    assert list(jsoc.exports) == ["JSOC_20260101_000001"]  # JSOC knows the request for a day


def test_a_record_that_lost_its_image_is_missing(root: Path, jsoc: JsocServer) -> None:
    fetch(jsoc, email="")
    lost = min(jsoc.tape)
    jsoc.overrides[lost, "QUALITY"] = "0x80000000"
    result = fetch(jsoc)
    assert (result["fetched"], result["missing"]) == (10, 2)


def test_a_file_that_did_not_arrive_is_brought_from_the_same_export(
    root: Path, jsoc: JsocServer
) -> None:
    jsoc.faults["/SUM75/"] = ["reset"]
    assert fetch(jsoc, retries=0)["staged"] == 1
    assert fetch(jsoc)["fetched"] == 12
    assert len(jsoc.asked("exp_request")) == 1
    assert orders(root) == []


def test_a_file_that_an_export_has_lost_is_ordered_again(root: Path, jsoc: JsocServer) -> None:
    jsoc.faults["/SUM75/"] = ["404"]
    assert fetch(jsoc)["fetched"] == 12
    assert len(jsoc.asked("exp_request")) == 2


def test_what_an_export_refused_is_ordered_again_on_request(root: Path, jsoc: JsocServer) -> None:
    jsoc.export_answers = [{"status": 4, "error": "internal error"}]
    with pytest.raises(DataError, match="--retry-failed"):
        fetch(jsoc)
    assert fetch(jsoc)["failed"] == 8
    assert fetch(jsoc, retry_failed=True)["fetched"] == 12


def test_an_order_of_another_process_is_waited_for(
    root: Path, jsoc: JsocServer, capfd: Any
) -> None:
    (root / "archive/exports").mkdir(parents=True)
    with open(root / "archive/exports/.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert fetch(jsoc, export_wait_s=0.1)["staged"] == 8
        said = capfd.readouterr().err
        assert "another process still orders; 8 segments of this one stay on tape" in said
        assert "up to date" not in said
        release = threading.Timer(0.3, lambda: fcntl.flock(handle, fcntl.LOCK_UN))
        release.start()
        assert fetch(jsoc)["fetched"] == 12
        release.join()
    assert "another process orders files on tape; waited" in capfd.readouterr().err


def test_what_another_process_brought_meanwhile_is_not_ordered(
    root: Path, jsoc: JsocServer
) -> None:
    fetch(jsoc, export_wait_s=0.0)
    entries = [entry for entry in states(root).values() if entry.state == "staged"]
    fetch(jsoc)
    noted: list[Entry] = []

    class OtherDesk:
        archive = root / "archive"
        settings = validate({"name": "t"}).fetch

        @contextmanager
        def alone(self) -> Iterator[tuple[bool, bool]]:
            yield True, True

    def nothing(*_: object) -> None:
        raise AssertionError("nothing was left")

    bring_staged(entries, cast(Desk, OtherDesk()), nothing, nothing, noted.append)
    assert {entry.state for entry in noted} == {"fetched"}
    assert len(noted) == 8


def test_each_wait_is_told(root: Path, jsoc: JsocServer, capfd: Any) -> None:
    jsoc.export_states = [2, 6, 1, 1, 0]
    fetch(jsoc)
    lines = [line for line in capfd.readouterr().err.splitlines() if "; waited " in line]
    said = [line.partition(";")[0] for line in lines]
    name = "export JSOC_20260101_000001 is"
    assert said == [f"{name} queued", f"{name} not known yet", *[f"{name} being processed"] * 2]


def test_orders_keep_to_their_size() -> None:
    def entry(number: int, series: str = SHARP) -> Entry:
        record = f"{series}[{number}][2012.01.01_00:00:00_TAI]"
        return Entry(record, "Br", "", "", 0, "staged", "", "", "")

    made = make_orders([entry(n) for n in range(1, 101)] + [entry(1, "hmi.sharp_720s")], 30)
    assert [len(order.entries) for order in made] == [1, 30, 30, 30, 10]
    assert all(len(order.record_set) < 4096 for order in make_orders([entry(n) for n in
               range(1, 401)], 1000))  # fmt: skip
