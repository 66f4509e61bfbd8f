"""JSOC's database through drms: keywords, storage paths and whereabouts of records."""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from preprocess.acquire.conditions import Condition, parse_condition, spell
from preprocess.acquire.request import prime_keys, series_of
from preprocess.acquire.retry import TransferError, with_retries
from preprocess.archive import RecordName, parse_record, relative_path
from sunpipe.errors import ConfigError, DataError
from sunpipe.query_settings import FetchSettings, QueryRequest

STORED_PATH = re.compile(r"/SUM\d{1,4}/D\d{1,12}/S\d{5}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
MARKERS = ("NoDataDirectory", "InvalidSegName", "BadSegLink")
LOST = ("MISSING", "Invalid KeyLink")
NO_UNIT = ("", "none", "na", "n/a")
INTEGERS = {"short": 16, "int": 32, "longlong": 64}
WHEREABOUTS = ("*size*", "*online*", "*archive*", "*sunum*")


@dataclass(frozen=True)
class Series:
    """What a series says of itself: types of keywords, units of segments, prime keys."""

    name: str
    kinds: dict[str, str]
    units: dict[str, Any]
    prime: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """One record as the archive's database knows it.

    Attributes
    ----------
    name : RecordName
    keywords, units, paths : dict
        Keywords by name; unit and storage path (or a marker) by segment.
    size : int or None
        Bytes of the record's storage.
    online, on_tape : bool
        Where its storage unit is.
    stored : bool
        Whether it has a storage unit at all.
    unit : str
        Number of the storage unit, which another version of its pixels does not
        have; empty when there is none.
    """

    name: RecordName
    keywords: dict[str, Any]
    units: dict[str, str]
    paths: dict[str, str]
    size: int | None = None
    online: bool = True
    on_tape: bool = False
    stored: bool = True
    unit: str = ""
    record: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "record", str(self.name))

    @property
    def no_image(self) -> bool:
        """Whether QUALITY's sign bit says that there is none."""
        quality = self.keywords.get("QUALITY")
        return isinstance(quality, int) and quality < 0


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


def make_client(url: str) -> Any:
    """A drms client of the archive at `url`."""
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


def ask(work: Callable[[], Any], settings: FetchSettings, what: str) -> Any:
    """One call through drms with retries; every way it can fail ends in one clear line."""
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
    """The line a user gets when JSOC does not answer, or refuses whatever is asked."""
    what = "does not serve" if error.refused else "cannot be reached"
    return DataError(f"JSOC {what} at {url} ({error}); what was fetched is kept, run the same"
                     " command again later, or use the bundled sample:"
                     " sunpipe fetch --source sample, or make demo")  # fmt: skip


def describe(client: Any, request: QueryRequest, settings: FetchSettings) -> Series:
    """Structure of the request's series.

    Raises
    ------
    DataError
        When JSOC does not know it.
    ConfigError
        When it lacks a segment, or its prime keys are not those of its kind.
    """
    name = series_of(request)
    info = ask(lambda: client.info(name), settings, name)
    if wrong := sorted(set(request.segments) - set(info.segments.index)):
        raise ConfigError(f"{name} has no segment {', '.join(wrong)}; it has"
                          f" {', '.join(info.segments.index)}")  # fmt: skip
    prime = tuple(info.primekeys or ())
    known = {key for kind in ("hmi.sharp", "hmi", "aia.") for key in prime_keys(kind)}
    if "T_REC" not in prime or not set(prime) <= known:
        raise ConfigError(f"{name} is identified by {', '.join(prime) or 'nothing'}; sunpipe"
                          " fetches SHARP and full-disk series")  # fmt: skip
    if not request.record_set and prime != prime_keys(name)[: len(prime)]:
        raise ConfigError(f"the prime keys of {name} are {', '.join(prime)}; write a record_set")
    kinds = dict(zip(info.keywords.index, info.keywords["type"], strict=True))
    return Series(name, kinds, dict(info.segments["units"]), prime)


def conditions_of(request: QueryRequest, series: Series) -> list[Condition]:
    """The request's conditions as the series spells their keywords."""
    return spell([parse_condition(text) for text in request.where], series.kinds, series.name)


def _name(series: Series, keywords: dict[str, Any]) -> RecordName:
    """Identity of a record; what cannot become a path is refused."""
    values: dict[str, Any] = {key: keywords.get(key) for key in series.prime}
    lacking = [key for key, value in values.items() if value is None and key != "CAMERA"]
    if lacking:
        raise DataError(f"a record of {series.name} has no {' and no '.join(lacking)}")
    number = values.get("WAVELNTH", values.get("CAMERA"))
    try:
        number = int(number) if number is not None else None
    except ValueError:
        raise DataError(f"a record of {series.name} has the number {number!r}") from None
    name = RecordName(series.name, str(values["T_REC"]), values.get("HARPNUM"), number)
    return parse_record(str(name))


def _units(series: Series, segments: Sequence[str], keywords: dict[str, Any]) -> dict[str, str]:
    places = {name: place for place, name in enumerate(series.units)}
    found = {}
    for segment in segments:
        # a keyword of its own for each segment, or the unit of the series
        unit = keywords.get(f"BUNIT_{places[segment]:03d}", series.units[segment])
        if unit is not None and str(unit).lower() not in NO_UNIT:
            found[segment] = str(unit)
    return found


def _unit(paths: dict[str, str], number: str) -> str:
    """Storage unit of a record: that of a path, or the number that JSOC names."""
    for path in paths.values():
        if STORED_PATH.fullmatch(path):
            return path.split("/")[2].removeprefix("D")
    return number if number.isascii() and number.isdigit() else ""


def _rows(keys: Any, paths: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    if len(keys) != len(paths):
        raise DataError(f"JSOC listed keywords for {len(keys)} records and files for {len(paths)}")
    yield from zip(keys.to_dict("records"), paths.to_dict("records"), strict=True)


def list_records(
    client: Any,
    record_set: str,
    series: Series,
    segments: Sequence[str],
    settings: FetchSettings,
    most: int | None = None,
) -> list[Found]:
    """Keywords, stored paths and whereabouts of records, of the first `most` if that is given."""
    keys, files = ask(
        # as text: drms' own conversion loses hexadecimal QUALITY under pandas 3
        lambda: client.query(
            record_set,
            key=["**ALL**", *WHEREABOUTS],
            seg=list(segments),
            n=most,
            convert_numeric=False,
        ),
        settings,
        record_set,
    )
    found = []
    for texts, where in _rows(keys, files):
        size, online, tape, unit = (str(texts.pop(key, "NA")) for key in WHEREABOUTS)
        keywords = {
            name: value
            for name, text in texts.items()
            if (value := convert(text, series.kinds.get(name, "string"), name)) is not None
        }
        name = _name(series, keywords)
        for segment in segments:
            relative_path(str(name), segment)  # refuses what must not become a path
        paths = {segment: str(where.get(segment, MARKERS[0])) for segment in segments}
        found.append(
            Found(
                name,
                keywords,
                _units(series, segments, keywords),
                paths,
                int(size) if size.isdigit() else None,
                online != "N",
                tape in ("Y", "Pending"),
                unit != "-1",
                _unit(paths, unit),
            )
        )
    return found


def segment_state(found: Found, segment: str, url: str) -> tuple[str, str, str, bool]:
    """(state, reason, url, final) of a segment as the query tells it."""
    where = found.paths[segment]
    if STORED_PATH.fullmatch(where):
        return "wanted", "", urljoin(url, where), False
    if where in MARKERS or where.endswith("/"):
        if where != MARKERS[0] and not where.endswith("/"):
            return "missing", where, "", True
        if found.no_image or not found.stored:
            return "missing", f"{where}: the record has no image", "", True
        if not found.online and found.on_tape:
            return "staged", "on tape", "", False
        return "missing", where, "", True
    return "failed", f"JSOC names the path {where!r}", "", True
