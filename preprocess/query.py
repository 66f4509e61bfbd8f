"""``sunpipe query``: which records there are, into the manifest as what is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preprocess.acquire.asked import (
    answer_path,
    batch_path,
    forget_batches,
    read_batch,
    write_answer,
)
from preprocess.acquire.coverage import Tally, coverage
from preprocess.acquire.enter import enter
from preprocess.acquire.journal import Journal, asking, open_journal, working
from preprocess.acquire.jsoc import (
    Found,
    conditions_of,
    describe,
    list_records,
    make_client,
)
from preprocess.acquire.request import cadence_s, record_sets, series_of, time_span
from preprocess.archive import parse_record
from preprocess.manifest import Manifest, count_states, read_manifest
from preprocess.times import scale_of
from sunpipe.errors import ConfigError, DataError
from sunpipe.paths import Layout
from sunpipe.query_settings import QueryRequest
from sunpipe.settings import Config
from sunpipe.stage import Result, log


def _wanted_region(found: Found, request: QueryRequest) -> bool:
    """Whether a patch holds a region that was asked for: LIKE also finds parts of numbers."""
    if not request.noaa:
        return True
    listed = f"{found.keywords.get('NOAA_AR', '')},{found.keywords.get('NOAA_ARS', '')}"
    return bool({str(number) for number in request.noaa} & set(listed.replace(" ", "").split(",")))


def _answered_before(mark: Path, tally: Tally, manifest: Manifest, request: QueryRequest) -> bool:
    """Count a batch that a query which was stopped has entered; whether there was one."""
    found = read_batch(mark)
    if found is None:
        return False
    records, counts = found
    if any((record, segment) not in manifest for record in records for segment in request.segments):
        return False
    tally.take(map(parse_record, records), counts)
    return True


def ask_request(
    archive: Path,
    journal: Journal,
    manifest: Manifest,
    config: Config,
    request: QueryRequest,
) -> Result:
    """Ask for one request, batch by batch, and report what was found.

    Raises
    ------
    ConfigError
        When the series lacks a segment or a keyword of a condition.
    DataError
        When JSOC cannot be reached or refuses, or finds more than `max_records`.
    """
    settings, client = config.fetch, make_client(config.fetch.url)
    series = describe(client, request, settings)
    sets = record_sets(request, config.query, conditions_of(request, series))
    answer = answer_path(archive, request, settings.url)
    tally = Tally()
    for place, record_set in enumerate(sets, 1):
        mark = batch_path(answer, record_set)
        if _answered_before(mark, tally, manifest, request):
            log(f"{place}/{len(sets)} {record_set}: answered before")
            continue
        most = request.max_records - len(tally.names) + 1
        listed = list_records(client, record_set, series, request.segments, settings, most)
        batch = Tally()
        records = batch.add(
            found
            for found in listed
            if _wanted_region(found, request) and found.record not in tally.names
        )
        if len(listed) >= most:
            raise DataError(f"{record_set} brings the records to more than max_records ="
                            f" {request.max_records}")  # fmt: skip
        batch.new = enter(archive, journal, manifest, records, request.segments, series.units,
                          settings.url)  # fmt: skip
        if len(sets) > 1:
            write_answer(mark, list(batch.names), batch.counts)
            log(f"{place}/{len(sets)} {record_set}: {len(listed)} records")
        tally.take(batch.names.values(), batch.counts)
    held = (manifest[name, segment] for name in tally.names for segment in request.segments)
    report = {
        "series": series.name,
        "record_sets": len(sets),
        "records": len(tally.names),
        "new_segments": tally.new,
        **count_states(held),
        "duplicates": tally.duplicates,
        "without_image": tally.no_image,
        "known_bytes": tally.known_bytes,
        "records_of_unknown_size": tally.unknown_size,
        **coverage(tally.names.values(), cadence_s(request), time_span(request),
                   request.wavelengths, scale_of(series.name)),
    }  # fmt: skip
    write_answer(answer, list(tally.names), report)
    forget_batches(answer)
    return report


def _need_requests(config: Config) -> None:
    if not config.query.requests:
        raise ConfigError("query.requests is empty: nothing is asked for; see configs/data_*.toml"
                          " for requests, or use sunpipe fetch --source sample")  # fmt: skip


def ask_all(archive: Path, config: Config, only_new: bool = False) -> list[Result]:
    """Put the requests of a configuration to the archive; call it inside `working`.

    Parameters
    ----------
    only_new : bool
        Leave out those that were answered before.
    """
    _need_requests(config)
    reports = []
    with asking(archive):
        asked = [
            request
            for request in config.query.requests
            if not only_new or not answer_path(archive, request, config.fetch.url).is_file()
        ]
        if not asked:
            return []
        if only_new:
            log(f"{len(asked)} requests were never put to the archive; asking now")
        manifest = read_manifest(archive)
        with open_journal(archive) as journal:
            for request in asked:
                report = ask_request(archive, journal, manifest, config, request)
                log(_line(report))
                reports.append(report)
    return reports


def _line(report: Result) -> str:
    text = (
        f"{report['series']}: {report['records']} records, {report['new_segments']} new"
        f" segments, {report['without_image']} without image, {report['duplicates']} twice"
    )
    if report.get("missing_slots"):
        worst = report["longest_gaps"][0]
        text += (
            f"; {report['missing_slots']} of {report['expected_slots']} slots are missing,"
            f" most ({worst['slots']}) from {worst['after']} to {worst['before']}"
            f" of {worst['of']}"
        )
    return text


def query(config: Config) -> Result:
    """The query stage: counts of all requests together, and the report of each."""
    archive = Layout.current().archive
    with working(archive):
        reports = ask_all(archive, config)
    records = sum(report["records"] for report in reports)
    if not records:
        asked = [text for r in config.query.requests for text in record_sets(r, config.query)]
        raise DataError("no record of JSOC matches " + ", ".join(asked[:3])
                        + (f" and {len(asked) - 3} more" if len(asked) > 3 else ""))  # fmt: skip
    keys = (
        "new_segments",
        "wanted",
        "staged",
        "fetched",
        "missing",
        "failed",
        "quarantined",
        "duplicates",
        "without_image",
        "known_bytes",
    )
    return {
        "archive": str(archive),
        "records": records,
        **{key: sum(report[key] for report in reports) for key in keys},
        "requests": reports,
    }


def plan(config: Config) -> dict[str, Any]:
    """What JSOC would be asked, without asking it."""
    _need_requests(config)
    asked = {}
    for place, request in enumerate(config.query.requests):
        sets = record_sets(request, config.query)
        asked[f"request {place + 1}"] = {
            "series": series_of(request),
            "segments": list(request.segments),
            "record_sets": len(sets),
            "first": sets[0],
            "last": sets[-1],
        }
    return {"archive": str(Layout.current().archive), "url": config.fetch.url, "would_ask": asked}
