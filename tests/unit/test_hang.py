"""Who hangs, decided from clocks and stacks; and a thread that looks at a lone training."""

from __future__ import annotations

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
from sunpipe.train import hang, progress
from sunpipe.train.hang import Beat, HangWatch, alone, culprits, report, stuck, verdict
from sunpipe.train.late_dump import keep_late_dumps
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
    with told.during("a checkpoint"):
        assert told.limit_s() == 180
    assert Progress(hang_s=float("inf")).limit_s() == float("inf")


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
