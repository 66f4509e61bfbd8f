"""Who hangs, decided from clocks and stacks; and a thread that looks at a lone training."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sunpipe.dist import Ranks
from sunpipe.errors import EXIT_LOST
from sunpipe.shards.loader import Loader
from sunpipe.shards.reader import ShardReader
from sunpipe.train import hang, late_dump, progress, stacks
from sunpipe.train.hang import Beat, HangWatch, alone, culprits, report, stuck, verdict
from sunpipe.train.late_dump import LateDump, keep_late_dumps, late_path, late_text
from sunpipe.train.progress import DATA, SETTING_UP, STEP, Progress
from sunpipe.train.stacks import Place, look
from tests.conftest import REPO
from tests.unit.shards_fake import write_dataset

ALONE = Ranks(0, 1, 0, "127.0.0.1", 0, "single")


class Clock:
    """In place of the monotonic clock."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_what_may_take_how_long(clock: Clock) -> None:
    told = Progress(hang_s=30)
    clock.now += 100  # the first step is part of setting up
    told.ready()
    assert (told.doing, told.age_s(), told.limit_s()) == (SETTING_UP, 100, 180)
    told.stepped()
    assert (told.doing, told.age_s(), told.limit_s()) == (STEP, 0, 30)
    clock.now += 20
    told.ready()
    assert (told.doing, told.limit_s()) == (DATA, 30)
    clock.now += 1
    told.fed()
    assert told.limit_s() == 200  # ten times the slowest
    with told.during("a checkpoint"):
        assert told.limit_s() == 180
        clock.now += 100
        told.forgive(90)  # the process was stopped meanwhile
        assert told.age_s() == 10
    assert (told.doing, told.age_s(), told.steps) == (STEP, 0, 1)
    with told.during("metrics"):
        for _ in range(5):  # batches
            clock.now += 170
            assert told.age_s() == 170
            told.alive()
        assert (told.doing, told.age_s(), told.limit_s()) == ("metrics", 0, 510)
    with told.during("a checkpoint"):
        assert told.limit_s() == 180
    assert Progress(hang_s=float("inf")).limit_s() == float("inf")


def test_a_first_step_counts_as_the_slowest_so_far(clock: Clock) -> None:
    told = Progress(hang_s=300)
    clock.now += 1000
    told.ready()
    clock.now += 40
    told.fed()
    clock.now += 350
    told.forgive(10)
    assert (told.doing, told.limit_s()) == (SETTING_UP, 1800)
    told.stepped()
    assert (told.doing, told.limit_s()) == (STEP, 3400)
    told.ready()
    assert (told.doing, told.limit_s()) == (DATA, 400)


def test_exchanges_wait_longer_than_any_rank_may_take_at_first(clock: Clock) -> None:
    assert progress.exchange_s(600, 0) == 600  # nobody watches
    assert progress.exchange_s(9000, 300) == 9000
    assert Progress(hang_s=2).limit_s() == 120  # libraries are read, also on a busy node
    assert progress.exchange_s(60, 2) > Progress(hang_s=2).limit_s()
    told = Progress(hang_s=300)
    with told.during("a checkpoint"):
        longest = told.limit_s()
        clock.now += longest
    with told.during("a checkpoint"):
        assert longest < told.limit_s() < progress.exchange_s(600, 300)


def beat(age: float, waits: bool = False, limit: float = 30.0) -> Beat:
    return Beat(age, limit, waits, STEP, 1000.0)


@pytest.mark.parametrize(
    ("beats", "after", "answer"),
    [
        ([beat(31)], 0, True),
        ([beat(29)], 0, False),
        ([beat(29)], 2, True),  # it said so two seconds ago
        ([beat(50, waits=True), beat(50, limit=60)], 0, False),  # a checkpoint of rank 1
        ([beat(50, waits=True), beat(31)], 0, True),
        ([beat(31, waits=True), beat(31, waits=True)], 0, True),
        ([beat(31, waits=True), beat(1, waits=True)], 0, False),  # it has just come
        # rank 1 waits for its device, and that for rank 0, which draws images
        ([beat(400, limit=1800), beat(310, waits=True, limit=300)], 0, False),
        ([beat(1801, limit=1800), beat(310, waits=True, limit=300)], 0, True),
        ([], 0, False),
    ],
)
def test_who_takes_too_long(beats: list[Beat], after: float, answer: bool) -> None:
    assert stuck(dict(enumerate(beats)), 1000.0 + after) is answer


def place(exchange: bool = False, device: bool = False, reading: tuple[str, ...] = ()) -> Place:
    return Place("work (a.py:1)", exchange, device, reading, "thread MainThread\n", 7)


def test_who_keeps_the_others_waiting() -> None:
    waits, gpu = place(exchange=True), place(device=True)
    assert culprits({0: waits, 1: place(), 2: gpu}) == [1]
    assert culprits({0: waits, 1: gpu}) == [1]
    assert culprits({0: waits, 1: place(), 2: None}) == [2]
    assert culprits({0: waits, 1: waits}) == []
    assert culprits({0: place(), 1: place(), 2: waits}, late=[1, 2]) == [1]
    assert culprits({0: None, 1: place(), 2: waits}, late=[1]) == [1]
    assert culprits({0: place(), 1: waits}, late=[1]) == [0]


def test_a_rank_that_waits_for_its_device_says_so(tmp_path: Path) -> None:
    for busy in (False, True):
        watch = HangWatch(ALONE, Progress(60), None, lambda _: None, busy=lambda b=busy: b)
        assert json.loads(watch.beat())[2] is busy


def test_an_exchange_that_failed_tells_who_did_not_come(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    left: list[int] = []
    said: list[str] = []
    ranks = Ranks(0, 2, 0, "127.0.0.1", 0, "torchrun")
    watch = HangWatch(ranks, Progress(60), tmp_path, said.append, leave=left.append)
    broke = "an exchange failed on rank 0 (Timed out)"
    watch.look(time.monotonic(), left=[0], broke=broke)
    watch.hear_answer(1, json.dumps(place().as_json()))
    watch.look(time.monotonic(), left=[0], broke=broke)
    assert left == [EXIT_LOST]
    assert said[0].startswith(f"{broke}: rank 1 has not gone on for 0 s (setting up; 360 s are")
    assert said[0] in capfd.readouterr().err
    (file,) = tmp_path.glob("hang-*.txt")
    assert file.read_text().startswith(said[0])


def test_a_fault_of_the_watch_is_said_once_and_it_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    left: list[int] = []
    ranks = Ranks(0, 2, 0, "127.0.0.1", 0, "torchrun")
    watch = HangWatch(ranks, Progress(60), tmp_path, lambda _: None, leave=left.append)

    def ask() -> None:
        raise KeyError("path")

    for _ in range(2):
        watch.hear(1, '[61.0, 60.0, false, "a step"]')
        watch._asked = None
        watch.look(time.monotonic(), ask)
    watch.hear_answer(1, json.dumps(place().as_json()))
    watch.look(time.monotonic())
    said = capfd.readouterr().err
    assert said.count("a fault in the watch for hangs, which goes on: KeyError('path')") == 1
    assert left == [EXIT_LOST]


def test_where_no_thread_can_be_started_what_hangs_is_named_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # as at a limit on processes

    left: list[int] = []
    ranks = Ranks(0, 2, 0, "127.0.0.1", 0, "torchrun")
    watch = HangWatch(ranks, Progress(60), tmp_path, lambda _: None, leave=left.append)
    monkeypatch.setattr(threading.Thread, "start", refused)
    hang.complain(set(), KeyError("path"))
    watch.hear(1, '[61.0, 60.0, false, "a step"]')
    watch.look(time.monotonic(), lambda: None)
    watch.hear_answer(1, json.dumps(place().as_json()))
    watch.look(time.monotonic())
    said = capfd.readouterr().err
    assert "which goes on: KeyError('path')" in said
    assert "sunpipe: rank 1 has not gone on for" in said
    assert "===== rank 1" in said  # the stacks that no thread could write
    assert left == [EXIT_LOST]
    watch.dump.close()


def test_a_file_that_is_stale_after_a_pause_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def stale(*_: int) -> None:
        asked.append(1)
        raise OSError(errno.ESTALE, "Stale file handle")

    watch = HangWatch(ALONE, Progress(60), tmp_path, lambda _: None)
    at = watch.beats[0].at
    monkeypatch.setattr(hang, "LOOK_S", 0.01)
    monkeypatch.setattr(hang, "PAUSE_S", -1.0)  # every look comes after one
    monkeypatch.setattr(os, "ftruncate", stale)
    with alone(watch):
        end = time.monotonic() + 60
        while len(asked) < 3 and time.monotonic() < end:
            time.sleep(0.01)
    assert len(asked) >= 3  # its thread goes on
    assert watch.beats[0].at > at
    monkeypatch.setattr(os, "fstat", stale)
    watch.dump.close()
    monkeypatch.undo()
    assert capfd.readouterr().err == ""


def test_a_fault_of_the_late_dump_is_said_once_and_the_watch_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fault(*_: Any) -> None:
        raise ValueError("no file")

    watch = HangWatch(ALONE, Progress(60), tmp_path, lambda _: None)
    monkeypatch.setattr(watch.dump, "forget", fault)
    monkeypatch.setattr(watch.dump, "feed", fault)
    at = watch.beats[0].at
    watch.forgive(7.0)
    watch.put_off(time.monotonic())
    assert watch.beats[0].at == at + 7.0
    assert capfd.readouterr().err.count("a fault in the watch for hangs, which goes on") == 1
    watch.dump.close()


def test_a_late_dump_that_is_closed_stays_closed(tmp_path: Path) -> None:
    dump, ends = LateDump(tmp_path, 0), threading.Event()
    faults: list[BaseException] = []

    def feed() -> None:
        try:
            for now in itertools.count(10, 10):  # each time anew
                dump.feed(float(now), 60.0)
                if ends.is_set():
                    return
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=feed) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    dump.close()
    left = list(tmp_path.iterdir())
    time.sleep(0.05)
    ends.set()
    for thread in threads:
        thread.join()
    dump.feed(1e9, 60.0)
    dump.forget()
    dump.close()
    assert (faults, left) == ([], [])


def test_no_code_of_others_runs_to_find_a_path() -> None:
    class Odd:
        @property
        def path(self) -> Path:
            raise OSError("not now")

    space: dict[str, Any] = {"sys": sys}
    ours = compile("def work(self):\n    return sys._getframe()", f"{stacks.OWN}/x.py", "exec")
    exec(ours, space)
    assert stacks._file(space["work"](Odd())) is None


def test_the_sentence_and_the_file() -> None:
    told = {0: place(exchange=True), 1: place(reading=("/data/shard-00001.h5",)), 2: None}
    beats = {rank: beat(31) for rank in told}
    assert verdict(told, beats, 1001.0) == (
        "rank 2 has not gone on for 32 s (a step; 30 s are allowed) and does not answer (stopped,"
        " or inside a library)"
    )
    del told[2]
    assert verdict(told, beats, 1001.0) == (
        "rank 1 has not gone on for 32 s (a step; 30 s are allowed): work (a.py:1), reading"
        " /data/shard-00001.h5"
    )
    text = report("said", told)
    assert text.startswith("said\n")
    assert text.index("===== rank 1 after 7 steps") < text.index("===== rank 0")
    both = verdict({0: place(exchange=True), 1: place(exchange=True)}, beats, 1000.0)
    assert both.startswith("all ranks wait in exchanges that do not meet: rank 0 waits")
    assert verdict({0: place()}, {0: beat(40)}, 1000.0).startswith("the training has not gone on")


def test_a_rank_that_goes_on_meanwhile_is_let_be(tmp_path: Path) -> None:
    left: list[int] = []
    ranks = Ranks(0, 2, 0, "127.0.0.1", 0, "torchrun")
    watch = HangWatch(ranks, Progress(60), tmp_path, lambda _: None, leave=left.append)
    asked: list[int] = []
    now = time.monotonic()
    watch.hear(1, '[61.0, 60.0, false, "a step"]')
    watch.look(now, lambda: asked.append(1))
    assert asked == [1]
    watch.hear(1, '[0.1, 60.0, false, "a step"]')
    watch.hear_answer(1, watch.answer().replace("MainThread", "other"))
    watch.look(time.monotonic(), lambda: asked.append(1))
    assert (left, asked) == ([], [1])
    watch.dump.close()
    assert list(tmp_path.iterdir()) == []


def test_a_lone_training_whose_data_do_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hang, "LOOK_S", 0.05)
    write_dataset(tmp_path / "data", count=8)
    reader = ShardReader(tmp_path / "data")
    shard, gone, dead = reader.path(0), threading.Event(), threading.Event()
    codes: list[int] = []
    reasons: list[str] = []
    read = os.preadv

    def blocked(*args: Any) -> int:  # as reading from a server that is gone
        dead.wait(60)
        return read(*args)

    def leave(code: int) -> None:
        codes.append(code)
        gone.set()

    told = Progress(hang_s=0.3)
    watch = HangWatch(ALONE, told, tmp_path, reasons.append, leave=leave)
    with Loader(reader, 0, 0, 4) as batches, alone(watch):
        next(batches)
        told.stepped()
        for _ in range(2):  # read ahead
            next(batches)
        monkeypatch.setattr(os, "preadv", blocked)
        told.ready()
        waiting = threading.Thread(target=lambda: [next(batches) for _ in range(3)], daemon=True)
        waiting.start()
        assert gone.wait(30)
        told.hang_s = float("inf")
        dead.set()
        waiting.join(20)
    assert codes[0] == EXIT_LOST
    assert f"reading {shard}" in reasons[0]
    assert "(waiting for data; " in reasons[0]
    (file, *_) = tmp_path.glob("hang-*.txt")
    assert f"at {shard}" in file.read_text()
    assert "_fill" in file.read_text()
    assert reasons[0] in capfd.readouterr().err
    assert not waiting.is_alive()


HOLD = """
import ctypes, sys
from pathlib import Path
from sunpipe.train import late_dump
late_dump.SPARE_S = 0.2
dump = late_dump.LateDump(Path(sys.argv[1]), 3)
dump.feed(10.0, 0.3)
def hold_the_interpreter():
    ctypes.PyDLL(None).sleep(2)
hold_the_interpreter()
"""


def test_a_library_that_keeps_the_interpreter_is_seen_from_outside(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], cwd=REPO, check=True, timeout=60)
    (tmp_path / ".tmp-stacks-rank-4.txt").touch()
    said: list[str] = []
    keep_late_dumps(tmp_path, said.append)
    (file,) = tmp_path.iterdir()
    assert "in hold_the_interpreter" in file.read_text()
    assert said == [f"rank 3 of an earlier start hung inside a library; its stacks: {file.name}"]


class Slow:
    """In place of time: whoever sleeps finds one part more in a file."""

    def __init__(self, file: Path, parts: list[str]) -> None:
        self.file, self.parts, self.now = file, parts, 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.parts:
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(self.parts.pop(0))


def test_late_stacks_are_read_once_they_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(late_path(tmp_path, 1), ["", "Timeout\n", "  in hold\n"])
    monkeypatch.setattr(late_dump, "time", slow)
    assert late_text(tmp_path, 1, patience_s=4.0) == "Timeout\n  in hold\n"
    assert slow.now == pytest.approx(0.4)
    slow.file.unlink()
    slow.parts = [f"{number}\n" for number in range(100)]  # it goes on and on
    assert late_text(tmp_path, 1, patience_s=0.25) == "0\n1\n2\n"
    assert late_text(tmp_path, 1, patience_s=0.0) == "0\n1\n2\n"
    assert late_text(tmp_path, 2, patience_s=0.25) == ""


def test_late_stacks_are_awaited_no_longer_than_they_take(tmp_path: Path) -> None:
    other = threading.Timer(0.2, late_path(tmp_path, 1).write_text, ["in hold_the_interpreter"])
    other.start()
    begun = time.monotonic()
    assert late_text(tmp_path, 1, patience_s=600.0) == "in hold_the_interpreter"
    assert time.monotonic() - begun < 300
    other.join()


def test_stacks_of_a_rank_that_does_not_answer_are_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    ranks = Ranks(0, 3, 0, "127.0.0.1", 0, "torchrun")
    watch = HangWatch(ranks, Progress(60), tmp_path, lambda _: None, leave=left.append)
    monkeypatch.setattr(hang, "ANSWER_S", 0.0)
    monkeypatch.setattr(hang, "LATE_S", 0.0)
    for rank in (1, 2):
        watch.hear(rank, '[61.0, 60.0, false, "a step"]')
    watch.look(time.monotonic())
    late_path(tmp_path, 1).write_text("in hold_the_interpreter")
    watch.look(time.monotonic())
    assert left == [EXIT_LOST]
    (file,) = tmp_path.glob("hang-*.txt")
    first, second, own = file.read_text().split("===== rank ")[1:]
    assert first == "1: no answer\n\nin hold_the_interpreter\n"
    assert second == "2: no answer\n\n\n"
    assert own.startswith("0 after 0 steps")


def test_where_threads_are() -> None:
    ready, done = threading.Event(), threading.Event()

    def idle() -> None:
        ready.set()
        done.wait()

    thread = threading.Thread(target=idle, name="idler")
    thread.start()
    ready.wait()
    found = look(steps=3)
    done.set()
    thread.join()
    assert "thread idler\n" in found.text
    assert " in idle\n" in found.text
    assert (found.exchange, found.device, found.steps) == (False, False, 3)
    assert Place.from_json(found.as_json()) == found
