"""Journals, leases, retries and the decoders: what several processes rely on."""

from __future__ import annotations

import asyncio
import fcntl
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hpc.stages import STAGES
from preprocess.acquire.decoder import Decoders, Verdict
from preprocess.acquire.journal import merge_dead, open_journal, stamp
from preprocess.acquire.partial import lease, partial_path, sweep_empty
from preprocess.acquire.progress import Progress, size_text
from preprocess.acquire.retry import TransferError, pause_s, retry_after_s, with_retries
from preprocess.acquire.sample import sample_files
from preprocess.acquire.states import in_part
from preprocess.archive import relative_path
from preprocess.manifest import Entry, merge, read_manifest
from sunpipe.errors import DataError
from sunpipe.files import sha256
from tests.conftest import REPO

RECORD = "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"


def entry(segment: str = "Br", **changes: object) -> Entry:
    values = {"record": RECORD, "segment": segment, "path": relative_path(RECORD, segment),
              "sha256": "", "bytes": 0, "state": "wanted", "reason": "", "url": "",
              "time": stamp()}  # fmt: skip
    return Entry(**{**values, **changes})


def test_a_journal_counts_before_it_is_merged_and_after(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.write([entry(), entry("Bt")])
        journal.write([entry(state="fetched")])
        assert not (tmp_path / "manifest.parquet").exists()
        assert [e.state for e in read_manifest(tmp_path).values()] == ["fetched", "wanted"]
        assert merge_dead(tmp_path) == 0  # its writer lives
        journal.merge()
        journal.write([entry("Bp")])
        assert len(read_manifest(tmp_path)) == 3
    assert list((tmp_path / "journal").iterdir()) == []
    assert [key[1] for key in read_manifest(tmp_path)] == ["Bp", "Br", "Bt"]


def test_the_later_entry_holds_in_any_order_of_merging(tmp_path: Path) -> None:
    old, new = entry(), entry(state="fetched")
    merge(tmp_path, [new])
    merge(tmp_path, [old])
    assert read_manifest(tmp_path)[new.key] == new


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_torn_last_line_was_never_written(tmp_path: Path, cut: int) -> None:
    with open_journal(tmp_path) as journal:
        journal.write([entry(), entry("Bt")])
        raw = journal.path.read_bytes()
        (tmp_path / "journal/dead.jsonl").write_bytes(raw[:-cut])
        journal.path.write_bytes(b"")
        journal.lines = 0
    assert [key[1] for key in read_manifest(tmp_path)] == ["Br"]
    assert merge_dead(tmp_path) == 1
    assert [key[1] for key in read_manifest(tmp_path)] == ["Br"]


@pytest.mark.parametrize("line", ["{}", "no json", '{"record": "x"}'])
def test_a_journal_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal/x.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="line 1"):
        read_manifest(tmp_path)


def test_a_journal_cannot_name_a_path_outside(tmp_path: Path) -> None:
    import json

    (tmp_path / "journal").mkdir()
    bad = asdict(replace(entry(), path="../../etc/passwd"))
    (tmp_path / "journal/x.jsonl").write_text(json.dumps(bad) + "\n")
    with pytest.raises(DataError, match="etc/passwd"):
        merge_dead(tmp_path)


def test_a_lease_is_for_one(tmp_path: Path) -> None:
    with lease(tmp_path, RECORD, "Br") as mine:
        assert mine is not None
        with lease(tmp_path, RECORD, "Br") as theirs:
            assert theirs is None
        with lease(tmp_path, RECORD, "Bt") as other:
            assert other is not None
        mine.restart(url="x", total=3, validator="")
        mine.handle.write(b"ab")
    with lease(tmp_path, RECORD, "Br") as mine:  # what came so far is there
        assert mine is not None
        assert (mine.size(), mine.note["total"]) == (2, 3)
        mine.publish(tmp_path / "done")
    assert (tmp_path / "done").read_bytes() == b"ab"
    assert list((tmp_path / ".partial").iterdir()) == []


def test_a_lease_on_a_file_that_was_published_meanwhile_is_none(tmp_path: Path) -> None:
    with lease(tmp_path, RECORD, "Br") as mine:
        assert mine is not None
        mine.handle.write(b"whole")
        with open(partial_path(tmp_path, RECORD, "Br"), "ab+") as late:
            mine.publish(tmp_path / "done")
            fcntl.flock(mine.handle, fcntl.LOCK_UN)
            fcntl.flock(late, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with lease(tmp_path, RECORD, "Br") as fresh:  # another file than the late one
                assert fresh is not None
                assert fresh.size() == 0
    assert (tmp_path / "done").read_bytes() == b"whole"


def test_what_a_kill_leaves_empty_is_swept(tmp_path: Path) -> None:
    folder = tmp_path / ".partial"
    folder.mkdir()
    for name in ("a.part", "a.json", "a.new", "b.part", "b.json"):
        (folder / name).write_text("")
    (folder / "b.part").write_bytes(b"SIMPLE")
    sweep_empty(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["b.json", "b.part"]


def test_torn_notes_are_good_for_nothing(tmp_path: Path) -> None:
    path = partial_path(tmp_path, RECORD, "Br")
    path.parent.mkdir()
    path.write_bytes(b"abc")
    path.with_suffix(".json").write_text('{"url": "x"')
    with lease(tmp_path, RECORD, "Br") as mine:
        assert mine is not None
        assert (mine.size(), mine.note) == (0, {})


def test_pauses() -> None:
    waits = [pause_s(attempt, 1.0) for attempt in range(12)]
    assert all(2**n / 2 <= wait <= 2**n for n, wait in enumerate(waits[:7]))
    assert max(waits) == 240
    assert pause_s(0, 1.0, 30.0) == 30.0
    assert retry_after_s("2.5") == 2.5
    assert retry_after_s("soon") == retry_after_s(None) == 0
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s("Wed, 21 Oct 2099 07:28:00 GMT") > 1e6


def test_final_failures_are_not_tried_again() -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        raise TransferError("no", transient=len(tries) < 3)

    with pytest.raises(TransferError, match="no"):
        with_retries(work, 9, 0.0)
    assert len(tries) == 3


def test_parts_are_a_partition_that_new_records_do_not_change() -> None:
    names = [f"hmi.sharp_cea_720s[{n}][2011.02.15_02:00:00_TAI]" for n in range(1, 2001)]
    owner = {name: [i for i in range(1, 9) if in_part(name, (i, 8))] for name in names}
    assert all(len(parts) == 1 for parts in owner.values())
    sizes = [sum(parts == [i] for parts in owner.values()) for i in range(1, 9)]
    assert 190 < min(sizes) <= max(sizes) < 310


def test_the_job_is_an_array_that_jsoc_can_bear() -> None:
    text = (REPO / "jobs/download.sh").read_text()
    assert "#SBATCH --array=1-8%2\n" in text  # parts count from 1, two run at a time
    assert '--part "$SLURM_ARRAY_TASK_ID/${SUNPIPE_PARTS:-$SLURM_ARRAY_TASK_MAX}"' in text
    assert STAGES["fetch"].parts


def check(paths: list[Path], command: tuple[str, ...] = ()) -> list[Verdict]:
    async def work() -> list[Verdict]:
        async with Decoders(2, command) as decoders:
            return list(await asyncio.gather(*(decoders.check(path) for path in paths)))

    return asyncio.run(work())


def test_decoders_say_what_is_wrong(tmp_path: Path) -> None:
    good = sample_files()[0][2]
    bad = tmp_path / "bad.fits"
    bad.write_bytes(good.read_bytes()[:-2880])
    found = check([good, bad, good])
    assert found[0] == found[2]
    assert (found[0].fault, found[0].sha256) == ("", sha256(good))
    assert "truncated" in found[1].fault


def test_a_decoder_that_crashes_is_replaced(tmp_path: Path) -> None:
    code = ("import sys, os, json, signal\n"
            "for line in sys.stdin:\n"
            "    if 'bomb' in line: os.kill(os.getpid(), signal.SIGSEGV)\n"
            "    print(json.dumps({'sha256': 'a', 'bytes': 1}), flush=True)\n")  # fmt: skip
    paths = [Path(name) for name in ("x", "bomb", "y", "bomb", "bomb", "z")]
    found = check(paths, (sys.executable, "-c", code))
    assert ["crash" in verdict.fault for verdict in found] == [p.name == "bomb" for p in paths]


def test_progress_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(4, tick_s=0.0) as progress:
        progress.add_bytes(2_500_000)
        progress.finish("fetched")
        progress.finish("missing")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("fetch 1/4 files, 2.5 MB, ")
    assert "ETA 0:00:0" in lines[0]
    assert lines[-1].endswith("1 missing")
    assert size_text(3.2e12) == "3.20 TB"
