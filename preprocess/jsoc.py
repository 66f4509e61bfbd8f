"""JSOC through drms: query keywords and segment paths, then fetch the files as stored.

Segments as stored carry no keywords; those of the query are written beside
them in ``keywords.json`` and the reader fills them in. Paths are queried and
files fetched directly, because exports need a registered e-mail and are costly
for JSOC.
"""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from preprocess.archive import KEYWORDS, relative_path
from preprocess.download import TransferError, download_once, with_retries
from preprocess.fetch import is_present, open_manifest
from preprocess.manifest import Entry, Manifest
from sunpipe.errors import DataError
from sunpipe.files import atomic_path, digest, read_json, sha256, write_json
from sunpipe.fits import read_segment, record_string
from sunpipe.fitsfile import FitsError
from sunpipe.provenance import now
from sunpipe.settings import FetchSettings
from sunpipe.sidecar import sidecar
from sunpipe.stage import log

STORED_PATH = re.compile(r"/SUM\d{1,4}/D\d{1,12}/S\d{5}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
MARKERS = ("NoDataDirectory", "InvalidSegName", "BadSegLink")
LOST = ("MISSING", "Invalid KeyLink")
NO_UNIT = ("", "none", "na", "n/a")
INTEGERS = {"short": 16, "int": 32, "longlong": 64}
GIVE_UP_AFTER = 3  # segments in a row that the server does not answer


@dataclass(frozen=True)
class Found:
    """One record as the archive's database knows it: keywords, units and paths by segment."""

    record: str
    keywords: dict[str, Any]
    units: dict[str, str]
    paths: dict[str, str]


def convert(text: Any, kind: str, name: str = "") -> Any:
    """A keyword value of a query in its own type, None where it is missing.

    Values arrive as text. Hexadecimal integers are two's complement: QUALITY
    0x80000000 is negative. An integer's smallest value means missing, except
    for QUALITY, where it means that there is no image.
    """
    text = str(text)
    if text in LOST:
        return None
    if kind in INTEGERS:
        bits = INTEGERS[kind]
        try:
            value = int(text, 16 if text.lower().startswith("0x") else 10)
        except ValueError:
            return None
        value = ((value & (2**bits - 1)) ^ 2 ** (bits - 1)) - 2 ** (bits - 1)
        return None if value == -(2 ** (bits - 1)) and name != "QUALITY" else value
    if kind in ("float", "double"):
        try:
            number = float(text)
        except ValueError:
            return None
        return number if math.isfinite(number) else None
    return text


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Drms takes its timeout from the socket module."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _client(url: str) -> Any:
    import drms

    return drms.Client(
        drms.ServerConfig(
            name="archive",
            cgi_baseurl=urljoin(url, "cgi-bin/ajax/"),
            cgi_jsoc_info="jsoc_info",
            cgi_jsoc_fetch="jsoc_fetch",
            cgi_show_series="show_series",
            cgi_check_address="checkAddress.sh",
            http_download_baseurl=url,
        )
    )


def _ask(work: Callable[[], Any], settings: FetchSettings, what: str) -> Any:
    """One query with retries; every way it can fail ends in one clear line."""
    from drms import DrmsQueryError

    def once() -> Any:
        try:
            return work()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TransferError(f"its answer is not JSON of a query ({error!r})") from None

    try:
        with _timeout(settings.timeout_s):
            return with_retries(once, settings.retries, settings.retry_wait_s)
    except DrmsQueryError as error:
        raise DataError(f"JSOC refuses {what}: {error}") from None
    except TransferError as error:
        raise unreachable(settings.url, error) from None


def unreachable(url: str, error: TransferError) -> DataError:
    """The line a user gets when JSOC does not answer."""
    return DataError(f"JSOC cannot be reached at {url} ({error}); what was fetched is kept, run the"
                     " same command again later, or use the bundled sample:"
                     " sunpipe fetch --source sample, or make demo")  # fmt: skip


def _rows(keys: Any, paths: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    if len(keys) != len(paths):
        raise DataError(f"JSOC listed keywords for {len(keys)} records and files for {len(paths)}")
    yield from zip(keys.to_dict("records"), paths.to_dict("records"), strict=True)


def query(client: Any, record_set: str, settings: FetchSettings) -> list[Found]:
    """Keywords and stored paths of every record of a record set."""
    series = record_set.partition("[")[0]
    info = _ask(lambda: client.info(series), settings, series)
    kinds = dict(zip(info.keywords.index, info.keywords["type"], strict=True))
    places = {name: place for place, name in enumerate(info.segments.index)}
    segments = list(settings.segments)
    if wrong := sorted(set(segments) - set(info.segments.index)):
        raise DataError(f"{series} has no segment {', '.join(wrong)}; it has"
                        f" {', '.join(info.segments.index)}")  # fmt: skip
    keys, files = _ask(
        # as text: drms' own conversion loses hexadecimal QUALITY under pandas 3
        lambda: client.query(record_set, key="**ALL**", seg=segments, convert_numeric=False),
        settings,
        record_set,
    )
    found = []
    for texts, where in _rows(keys, files):
        keywords = {
            name: value
            for name, text in texts.items()
            if (value := convert(text, kinds.get(name, "string"), name)) is not None
        }
        harpnum, t_rec = keywords.get("HARPNUM"), keywords.get("T_REC")
        if not isinstance(harpnum, int) or not isinstance(t_rec, str):
            raise DataError(f"{series} has no HARPNUM and T_REC; sunpipe fetches SHARP series")
        record = record_string(series, harpnum, t_rec)
        for segment in segments:
            relative_path(record, segment)  # refuses what must not become a path
        units = {}
        for segment in segments:
            # a keyword of its own for each segment, or the unit of the series
            unit = keywords.get(f"BUNIT_{places[segment]:03d}", info.segments["units"][segment])
            if unit is not None and str(unit).lower() not in NO_UNIT:
                units[segment] = str(unit)
        paths = {segment: str(where.get(segment, MARKERS[0])) for segment in segments}
        found.append(Found(record, keywords, units, paths))
    return found


def _store_keywords(archive: Path, manifest: Manifest, found: Found, url: str) -> Entry | None:
    content = sidecar(found.record, found.keywords, found.units)
    entry = manifest.get((found.record, KEYWORDS))
    relative = relative_path(found.record, KEYWORDS)
    path = archive / relative
    if is_present(archive, entry) and digest(read_json(path)) == digest(content):
        return None
    write_json(path, content)
    return Entry(found.record, KEYWORDS, relative, sha256(path), path.stat().st_size, "fetched", "",
                 url, now())  # fmt: skip


def found_whole(path: Path) -> bool:
    """Whether a killed fetch brought this file, but could not write it down.

    Files get their name only when they are whole; here its checksums must say
    so again.
    """
    try:
        return path.is_file() and read_segment(path).verified
    except FitsError:
        return False


def _fetch_segment(
    archive: Path, found: Found, segment: str, settings: FetchSettings
) -> tuple[Entry, bool]:
    """Fetch one segment; returns its entry and whether the server was silent."""
    relative = relative_path(found.record, segment)
    where = found.paths[segment]

    def entry(state: str, reason: str, url: str = "", path: Path | None = None) -> Entry:
        sum_, size = (sha256(path), path.stat().st_size) if path else ("", 0)
        return Entry(found.record, segment, relative, sum_, size, state, reason, url, now())

    if where in MARKERS or where.endswith("/"):
        return entry("missing", where), False
    if not STORED_PATH.fullmatch(where):
        return entry("failed", f"JSOC names the path {where!r}"), False
    url = urljoin(settings.url, where)
    if found_whole(archive / relative):
        return entry("fetched", "", url, archive / relative), False
    try:
        with atomic_path(archive / relative) as temporary:
            with_retries(
                lambda: download_once(url, temporary, settings.timeout_s),
                settings.retries,
                settings.retry_wait_s,
            )
    except TransferError as error:
        state = "missing" if str(error) in ("HTTP 404", "HTTP 410") else "failed"
        return entry(state, str(error), url), error.unreachable
    return entry("fetched", "", url, archive / relative), False


def fetch_jsoc(archive: Path, settings: FetchSettings) -> dict[str, int]:
    """Query the record sets and fetch what is not there yet, one file at a time.

    Returns
    -------
    dict
        How many segments were ``new`` and how many already ``kept``.

    Raises
    ------
    DataError
        When JSOC cannot be reached, no record matches, or transfers failed.
    """
    client = _client(settings.url)
    counts = {"new": 0, "kept": 0}
    with open_manifest(archive) as (manifest, record):
        asked = (item for name in settings.records for item in query(client, name, settings))
        found = list({item.record: item for item in asked}.values())
        if not found:
            raise DataError("no record of JSOC matches " + ", ".join(settings.records))
        silent = 0
        failed: list[Entry] = []
        for place, item in enumerate(found):
            if note := _store_keywords(archive, manifest, item, settings.url):
                record(note)
            for segment in settings.segments:
                before = manifest.get((item.record, segment))
                if is_present(archive, before):
                    counts["kept"] += 1
                    continue
                if before and before.state == "fetched":  # changed since: not to be adopted
                    (archive / before.path).unlink(missing_ok=True)
                entry, quiet = _fetch_segment(archive, item, segment, settings)
                record(entry)
                log(f"{place + 1}/{len(found)} {Path(entry.path).name}: {entry.state}"
                    f" {entry.reason}".rstrip())  # fmt: skip
                counts["new"] += entry.state == "fetched"
                if entry.state == "failed":
                    failed.append(entry)
                silent = silent + 1 if quiet else 0
                if silent == GIVE_UP_AFTER:
                    raise unreachable(settings.url, TransferError(entry.reason))
    if failed:
        first = failed[0]
        raise DataError(
            f"{len(failed)} segments failed, {counts['new']} arrived; first {first.path}"
            f" ({first.reason}); run the same command again"
        )
    return counts
