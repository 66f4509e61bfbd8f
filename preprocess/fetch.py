"""``sunpipe fetch``: bring what is wanted; what is there and verified is not brought again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from preprocess.acquire.journal import Journal, Others, open_journal, stamp, working
from preprocess.acquire.retry import FOREIGN, GONE
from preprocess.acquire.sample import fetch_sample, sample_files
from preprocess.acquire.states import WHOLE, Part, in_part, sort_out
from preprocess.archive import parse_record
from preprocess.manifest import Entry, Manifest, count_states, read_manifest
from sunpipe.errors import DataError
from sunpipe.parts import parse_part
from sunpipe.paths import Layout
from sunpipe.query_settings import QueryRequest, registered_email
from sunpipe.settings import Config
from sunpipe.stage import Result, log


def _answer(archive: Path, config: Config, request: QueryRequest) -> list[str]:
    """Records of a request; none when it was never put to the archive."""
    from preprocess.acquire.asked import answer_path, read_answer

    path = answer_path(archive, request, config.fetch.url)
    return read_answer(path) if path.is_file() else []


def asked_keys(archive: Path, config: Config, part: Part = WHOLE) -> list[tuple[str, str]]:
    """(record, segment) of what the requests found, in the order of `RecordName.order`."""
    keys = {
        (record, segment): None
        for request in config.query.requests
        for record in _answer(archive, config, request)
        if in_part(record, part)
        for segment in request.segments
    }
    records = {record: parse_record(record).order for record, _ in keys}
    return sorted(keys, key=lambda key: (records[key[0]], key[1]))


def ask_first(archive: Path, config: Config, part: Part = WHOLE) -> Manifest:
    """The manifest of a part, once all requests were put to the archive.

    Those are that never were, and those whose rows the manifest has lost.
    """
    from preprocess.acquire.asked import answer_path
    from preprocess.query import ask_all

    def mine(record: str) -> bool:
        return in_part(record, part)

    keep = None if part == WHOLE else mine
    manifest = read_manifest(archive, keep)
    answered = bool(config.query.requests)
    for request in config.query.requests:
        path = answer_path(archive, request, config.fetch.url)
        records = filter(mine, _answer(archive, config, request))
        if any((record, segment) not in manifest
               for record in records for segment in request.segments):  # fmt: skip
            log("the manifest lacks rows of a query; asking again")
            path.unlink(missing_ok=True)
        answered = answered and path.is_file()
    if answered:
        return manifest
    del manifest  # asking reads it as well
    ask_all(archive, config, only_new=True)
    return read_manifest(archive, keep)


class _Books:
    """Enters what becomes of each file into the journal and the manifest in memory."""

    def __init__(self, journal: Journal, manifest: Manifest) -> None:
        self.journal = journal
        self.manifest = manifest
        self.others = Others(journal.archive, journal.path)
        self.new = 0
        self.failed: list[Entry] = []
        self.gone: list[Entry] = []

    def known(self, entry: Entry) -> Entry | None:
        """What another process has made of a segment since this one read the books."""
        return self.others.find(entry, merged=True)

    def record_or_ask(self, entry: Entry) -> None:
        """Like `record`; what is not at its address waits for `ask_gone`."""
        if entry.state == "missing" and entry.reason in (*GONE, FOREIGN):
            self.gone.append(entry)
        else:
            self.record(entry)

    def record(self, entry: Entry) -> None:
        """Write down what became of a file."""
        held = self.manifest.get(entry.key)
        if held is not None:
            later = self.others.find(held)
            if later is not None and later.url != held.url and later.state in ("wanted", "staged"):
                return  # a query found another version meanwhile: what came is the old one
            held = later or held
        entry = replace(entry, time=stamp(held))
        self.journal.write([entry])
        self.manifest[entry.key] = entry
        self.new += entry.state == "fetched"
        if entry.state == "failed":
            self.failed.append(entry)

    def ask_gone(self, config: Config) -> list[Entry]:
        """Ask where files that are not at their address are now; those that are wanted anew."""
        from preprocess.acquire.again import ask_again

        gone = {entry.key: entry for entry in self.gone}
        self.gone = []
        if not gone:
            return []
        # in memory only, until it is known: a kill leaves them as they were
        self.manifest.update(gone)
        ask_again(self.journal.archive, self.journal, self.manifest, config.fetch, gone)
        for key, entry in gone.items():
            if self.manifest[key] is entry:
                self.record(entry)
        return [self.manifest[key] for key in gone if self.manifest[key].state != "missing"]


def _fetch_staged(archive: Path, config: Config, staged: Sequence[Entry], books: _Books) -> None:
    """Order what is on tape, or say what is needed for that."""
    from preprocess.acquire.export import Desk, bring_staged
    from preprocess.acquire.jsoc import make_client
    from preprocess.acquire.progress import Progress
    from preprocess.acquire.session import bring

    email = registered_email(config.fetch)
    if not email:
        log(f"{len(staged)} segments are on tape and stay staged: give an e-mail that JSOC knows"
            " (fetch.email or JSOC_EMAIL) and run the same command again")  # fmt: skip
        return

    def bring_these(entries: Sequence[Entry], record: Callable[[Entry], None]) -> None:
        with Progress(len(entries), "fetch from tape") as progress:
            bring(archive, entries, config.fetch, record, progress, books.known)

    def note(entry: Entry) -> None:
        books.manifest[entry.key] = entry

    desk = Desk(archive, make_client(config.fetch.url), config.fetch, email)
    bring_staged(staged, desk, books.record, bring_these, note)


def fetch_jsoc(
    archive: Path,
    config: Config,
    part: Part = WHOLE,
    retry_failed: bool = False,
    check: bool = False,
) -> dict[str, int]:
    """Fetch what the requests of ``[query]`` found and is not there yet.

    Returns
    -------
    dict
        Records, segments per state, ``new`` and ``kept`` segments.

    Raises
    ------
    DataError
        When JSOC cannot be reached, no record matches, or transfers failed.
    """
    from preprocess.acquire.again import ask_again, without_keywords
    from preprocess.acquire.jsoc import unreachable
    from preprocess.acquire.progress import Progress
    from preprocess.acquire.retry import TransferError
    from preprocess.acquire.session import Unreachable, bring

    manifest = ask_first(archive, config, part)
    keys = asked_keys(archive, config, part)
    if not keys and part == WHOLE:
        raise DataError("no record of JSOC matches the requests of [query]; sunpipe query --dry-run"
                        " shows what is asked")  # fmt: skip
    with open_journal(archive) as journal:
        books = _Books(journal, manifest)
        if lost := without_keywords(archive, manifest, keys, check):
            log("keywords.json of some records is not what was written; asking for them again")
            ask_again(archive, journal, manifest, config.fetch, lost)
        held = [manifest[key] for key in keys]
        todo, staged, kept = sort_out(archive, held, retry_failed, check)
        try:
            if todo:
                with Progress(len(todo)) as progress:
                    bring(archive, todo, config.fetch, books.record_or_ask, progress, books.known)
            found = books.ask_gone(config)
            staged += [entry for entry in found if entry.state == "staged"]
            if todo := [entry for entry in found if entry.state == "wanted"]:
                with Progress(len(todo), "fetch from new places") as progress:
                    bring(archive, todo, config.fetch, books.record, progress, books.known)
            if staged:
                _fetch_staged(archive, config, staged, books)
        except Unreachable as error:
            failure = TransferError(str(error), refused=error.refused)
            raise unreachable(config.fetch.url, failure) from None
    if books.failed:
        first = books.failed[0]
        raise DataError(
            f"{len(books.failed)} segments failed, {books.new} arrived; first {first.path}"
            f" ({first.reason}); run the same command again"
            + ("" if any(not entry.final for entry in books.failed) else " with --retry-failed")
        )
    states = count_states(manifest[key] for key in keys)
    return {"records": len({record for record, _ in keys}), **states, "new": books.new,
            "kept": kept}  # fmt: skip


def fetch(
    config: Config, part: str | None = None, retry_failed: bool = False, check: bool = False
) -> Result:
    """Bring what ``[query]`` asks for, or the bundled sample, into the archive.

    Parameters
    ----------
    part : str, optional
        ``I/N``: only the I-th of N shares of the records.
    retry_failed : bool
        Also try what failed for good, or was missing or damaged upstream.
    check : bool
        Hash every file that is there already.
    """
    archive = Layout.current().archive
    share = parse_part(part) if part else WHOLE
    with working(archive):
        if config.fetch.source == "sample":
            counts = fetch_sample(archive, share)
            manifest = read_manifest(archive)
            counts = {
                "records": len({record for record, _ in manifest}),
                **count_states(manifest.values()),
                **counts,
            }
        else:
            counts = fetch_jsoc(archive, config, share, retry_failed, check)
    if not any(counts[key] for key in ("new", "wanted", "staged", "failed")):
        log("the archive is up to date")
    return {"source": config.fetch.source, "archive": str(archive), **counts}


def plan(config: Config, part: str | None = None) -> dict[str, Any]:
    """What `fetch` would do, without asking anyone."""
    archive = Layout.current().archive
    share = parse_part(part) if part else WHOLE
    found: dict[str, Any] = {"archive": str(archive), "source": config.fetch.source}
    if config.fetch.source == "sample":
        found["would_ask_for"] = [f"{record}{{{segment}}}"
                                  for record, segment, _, _ in sample_files()
                                  if in_part(record, share)]  # fmt: skip
        return found
    from preprocess.query import plan as plan_query

    manifest = read_manifest(archive)
    held = [manifest[key] for key in asked_keys(archive, config, share) if key in manifest]
    return {**found, "asked_before": count_states(held), **plan_query(config)}
