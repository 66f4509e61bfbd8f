"""Files that change upstream, books that were lost, clocks that differ: no version is mixed."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from preprocess.acquire import journal as journals
from preprocess.acquire.journal import open_journal
from preprocess.fetch import fetch as fetch_stage
from preprocess.manifest import Entry, read_manifest
from preprocess.query import query as query_stage
from sunpipe.config import validate
from sunpipe.errors import DataError
from sunpipe.files import read_json
from tests.integration.test_acquire_many import finish, start, write_config
from tests.jsoc_archive import SHARP, tiny_archive
from tests.jsoc_server import JsocServer

SEGMENTS = ("Br", "Bt")


def plain(value: int) -> bytes:
    """A FITS file without checksums, of one length whatever it holds."""
    out = io.BytesIO()
    fits.PrimaryHDU(np.full((400, 40), value, np.int16)).writeto(out)
    return out.getvalue()


@pytest.fixture
def jsoc() -> Iterator[JsocServer]:
    archive = tiny_archive(1, SEGMENTS)
    with JsocServer(archive) as server:
        yield server


def config(server: JsocServer, segments: tuple[str, ...] = SEGMENTS, **changes: Any) -> Any:
    values = {
        "source": "jsoc",
        "url": server.url,
        "retry_wait_s": 0.01,
        "timeout_s": 5.0,
        **changes,
    }
    request = {"record_set": f"{SHARP}[1]", "segments": list(segments)}
    return validate({"name": "t", "fetch": values, "query": {"requests": [request]}})


def states(root: Path) -> dict[tuple[str, str], Entry]:
    return read_manifest(root / "archive")


def pixels(root: Path, segment: str = "Br") -> set[int]:
    (entry,) = (entry for entry in states(root).values() if entry.segment == segment)
    return set(np.unique(fits.getdata(root / "archive" / entry.path)).tolist())


def set_body(server: JsocServer, segment: str, value: int) -> None:
    for (_, name), where in server.archive.files.items():
        if name == segment:
            server.archive.bodies[where] = plain(value)


def make_again(server: JsocServer, unit: int = 99) -> str:
    """Move all files to a new storage unit with new pixels, as a reprocessing does."""
    for n, key in enumerate(sorted(server.archive.files)):
        where = f"/SUM61/D{unit}/S00000/{key[1]}.fits"
        server.archive.files[key] = where
        server.archive.bodies[where] = plain(70 + n)
    (record,) = server.archive.keywords
    server.archive.keywords[record]["USFLUX"] = 9.9e22
    return record


@pytest.mark.parametrize(
    ("validators", "if_range", "resumed"),
    [((), True, False), (("weak",), True, False), (("ETag",), True, True), (("ETag",), False, True),
     (("Last-Modified",), True, True), (("Last-Modified",), False, True)],
)  # fmt: skip
def test_a_resumed_file_is_never_made_of_two(
    root: Path, jsoc: JsocServer, validators: tuple[str, ...], if_range: bool, resumed: bool
) -> None:
    jsoc.validators, jsoc.if_range = validators, if_range
    set_body(jsoc, "Br", 1)
    jsoc.faults["Br.fits"] = ["short"]
    with pytest.raises(DataError, match="1 segments failed"):
        fetch_stage(config(jsoc, retries=0))
    set_body(jsoc, "Br", 2)  # as long as the first
    assert fetch_stage(config(jsoc, retries=2))["fetched"] == 2
    assert pixels(root) == {2}
    asked = [r.range for r in jsoc.requests if r.path.endswith("Br.fits")]
    assert bool(asked[1]) == resumed


@pytest.mark.parametrize("validators", [("ETag",), ("Last-Modified",)])
def test_an_unchanged_file_is_resumed(
    root: Path, jsoc: JsocServer, validators: tuple[str, ...]
) -> None:
    jsoc.validators = validators
    jsoc.faults["Br.fits"] = ["short"]
    assert fetch_stage(config(jsoc))["fetched"] == 2
    asked = [r.range for r in jsoc.requests if r.path.endswith("Br.fits")]
    assert asked[0] == ""
    assert asked[1] != ""


def test_a_record_made_again_is_brought_again_with_its_keywords(
    root: Path, jsoc: JsocServer
) -> None:
    fetch_stage(config(jsoc))
    old = states(root)
    record = make_again(jsoc)
    result = query_stage(config(jsoc))
    assert (result["wanted"], result["fetched"]) == (2, 0)
    assert query_stage(config(jsoc))["wanted"] == 2  # asked twice, still wanted
    assert all((root / "archive" / entry.path).is_file() for entry in old.values())
    assert fetch_stage(config(jsoc))["new"] == 2
    assert pixels(root) == {70}
    assert pixels(root, "Bt") == {71}
    keywords = read_json(root / "archive" / old[record, "keywords"].path)
    assert (keywords["keywords"]["USFLUX"], keywords["unit"]) == (9.9e22, "99")
    assert query_stage(config(jsoc))["fetched"] == 2


def test_segments_that_were_not_asked_for_are_made_again_too(root: Path, jsoc: JsocServer) -> None:
    fetch_stage(config(jsoc))
    record = make_again(jsoc)
    query_stage(config(jsoc, segments=("Br",)))
    assert states(root)[record, "Bt"].state == "wanted"
    assert fetch_stage(config(jsoc))["new"] == 2
    assert (pixels(root), pixels(root, "Bt")) == ({70}, {71})


def test_old_pixels_are_not_adopted_with_the_books_lost(root: Path, jsoc: JsocServer) -> None:
    fetch_stage(config(jsoc))  # with checksums
    make_again(jsoc)
    (root / "archive/manifest.parquet").unlink()
    assert fetch_stage(config(jsoc))["new"] == 2
    assert pixels(root) == {70}


def test_new_keywords_alone_bring_no_file_again(root: Path, jsoc: JsocServer) -> None:
    fetch_stage(config(jsoc))
    (record,) = jsoc.archive.keywords
    jsoc.archive.keywords[record]["USFLUX"] = 5e21
    assert query_stage(config(jsoc))["fetched"] == 2
    assert fetch_stage(config(jsoc))["new"] == 0
    path = root / "archive" / states(root)[record, "keywords"].path
    assert read_json(path)["keywords"]["USFLUX"] == 5e21


def test_files_stay_until_others_replace_them(root: Path, jsoc: JsocServer) -> None:
    for segment in SEGMENTS:
        set_body(jsoc, segment, 5)
    fetch_stage(config(jsoc))
    paths = [root / "archive" / e.path for e in states(root).values() if e.segment in SEGMENTS]
    (root / "archive/manifest.parquet").unlink()
    jsoc.faults["/SUM61"] = ["500"] * 2
    with pytest.raises(DataError, match="2 segments failed"):
        fetch_stage(config(jsoc, retries=0))
    assert all(path.is_file() for path in paths)
    assert fetch_stage(config(jsoc))["fetched"] == 2
    for path in paths:
        path.write_bytes(path.read_bytes() + b"x")  # damaged, but better than nothing
    jsoc.faults["/SUM61"] = ["500"] * 2
    with pytest.raises(DataError, match="2 segments failed"):
        fetch_stage(config(jsoc, retries=0))
    assert all(path.is_file() for path in paths)
    assert fetch_stage(config(jsoc))["fetched"] == 2
    assert pixels(root) == {5}


def test_files_without_checksums_are_shared_by_two_fetches(root: Path, tmp_path: Path) -> None:
    archive = tiny_archive(20, ("Br", "Bt", "Bp"))
    for n, where in enumerate(archive.bodies):
        archive.bodies[where] = plain(n)
    with JsocServer(archive, delay_s=0.03) as server:
        path = write_config(server, tmp_path)
        finish(start(path, root), start(path, root))
        assert len(server.downloads()) == len(set(server.downloads())) == 60
    assert {e.state for e in states(root).values()} == {"fetched"}


def test_the_clock_of_another_machine_does_not_decide(
    root: Path, jsoc: JsocServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(UTC) + timedelta(seconds=60)

    with monkeypatch.context() as clock:
        clock.setattr(journals, "datetime", Ahead)
        query_stage(config(jsoc))
    assert fetch_stage(config(jsoc))["fetched"] == 2
    assert {entry.state for entry in states(root).values()} == {"fetched"}
    assert fetch_stage(config(jsoc))["new"] == 0
    assert len(jsoc.downloads()) == 2


def test_what_a_query_replaced_meanwhile_is_not_entered(root: Path, jsoc: JsocServer) -> None:
    query_stage(config(jsoc))
    (record,) = jsoc.archive.keywords
    from preprocess.fetch import _Books

    archive = root / "archive"
    held = read_manifest(archive)
    with open_journal(archive) as mine, open_journal(archive) as query:
        books = _Books(mine, held)
        entry = held[record, "Br"]
        newer = replace(entry, url=entry.url + "x", time=journals.stamp(entry))
        query.write([newer])
        books.record(replace(entry, state="fetched", sha256="0" * 64, bytes=3))
        assert books.new == 0
    assert states(root)[record, "Br"] == newer


def test_an_old_mtime_is_not_newer_than_the_keywords(root: Path, jsoc: JsocServer) -> None:
    fetch_stage(config(jsoc))
    (root / "archive/manifest.parquet").unlink()
    for path in (root / "archive").rglob("*.Br.fits"):
        os.utime(path, (1e9, 1e9))
    assert fetch_stage(config(jsoc))["new"] == 2
    assert [p.rpartition("/")[2] for p in jsoc.downloads()] == ["Br.fits", "Bt.fits", "Br.fits"]
