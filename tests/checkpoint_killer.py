"""Kill writers of checkpoints, at each step of a save and at random moments.

``python -m tests.checkpoint_killer FOLDER EVERY RANDOM [inplace]``: one kill at every
EVERYth step of two saves, then RANDOM kills at random moments. Each writer is forked,
continues from the newest checkpoint, saves that step again and then new ones until it
is killed; afterwards the newest checkpoint must be whole, hold what was saved, and be no
older than the last one reported safe. Prints what happened as JSON. With ``inplace``
checkpoints are written under their final name, to show that the kills do find the losses
of a writer that is not careful.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from sunpipe import checkpoint, files
from sunpipe.checkpoint_writer import Writer
from sunpipe.errors import DataError

KEEP = 2
STEP = 500  # images between checkpoints
STEMS = ("G", "D", "zero/G")
TELL = os.write  # before it is wrapped


def content(nimg: int, attempt: int, stem: str) -> dict[str, torch.Tensor]:
    """What the checkpoint of one step holds; `attempt` tells a repeated save from the first."""
    source = torch.Generator().manual_seed(nimg * 1000 + attempt * 10 + STEMS.index(stem))
    return {"weight": torch.randn(64, 33, generator=source), "step": torch.tensor(float(nimg))}


class Steps:
    """Counts the steps of a save in the calls that change the file system; kills at one."""

    def __init__(self, fatal: int | None) -> None:
        self.fatal, self.count = fatal, 0

    def pass_one(self) -> None:
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def around(self, owner: Any, name: str) -> None:
        """Die before or after the call."""
        call = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.pass_one()
            result = call(*args, **kwargs)
            self.pass_one()
            return result

        setattr(owner, name, wrapped)

    def through(self, owner: Any, name: str) -> None:
        """Die before, half-way through, or after writing the last argument."""
        call = getattr(owner, name)

        def wrapped(target: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
            self.pass_one()
            if self.count == self.fatal:
                call(target, data[: len(data) // 2], *args, **kwargs)
            self.pass_one()
            result = call(target, data, *args, **kwargs)
            self.pass_one()
            return result

        setattr(owner, name, wrapped)

    def install(self) -> None:
        for name in ("open", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir"):
            self.around(os, name)
        self.around(files, "_exchange")
        self.through(os, "write")
        self.through(Path, "write_text")


@contextmanager
def in_place(path: Path) -> Iterator[Path]:
    """How a checkpoint should not be written."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    yield path


def write(folder: Path, attempt: int, saves: int, steps: Steps, tell: int) -> None:
    """Continue from the newest checkpoint: that step again, then `saves` - 1 new ones."""

    def say(line: str) -> None:
        TELL(tell, f"{line}\n".encode())

    steps.install()
    checkpoint.sweep(folder, lambda _: say("named"))
    path = checkpoint.newest(folder, lambda _: None)
    nimg = checkpoint.load_state(path)["nimg"] if path else STEP
    with Writer(folder, KEEP, say) as writer:
        for number in range(saves):
            now = nimg + number * STEP
            tensors = {stem: content(now, attempt, stem) for stem in STEMS}
            writer.save(now, tensors, {"attempt": attempt})
    say(f"steps {steps.count}")


def forked(work: Callable[[int], None], after_s: float | None) -> tuple[bool, list[str]]:
    """Run `work` in a child, killed after so long; whether it was killed, and its words."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work(writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading) as pipe:
        words = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a writer ended with {os.WEXITSTATUS(status)}")
    return os.WIFSIGNALED(status), words


class Trial:
    """One folder of checkpoints that writers are killed over, and what was lost."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.floor, self.attempt = folder, "", 0
        self.found = {"kills": 0, "runs": 0, "saved": 0, "torn": 0, "leftovers": 0, "named": 0}
        self.lost: list[str] = []

    def run(
        self, what: str, saves: int, fatal: int | None, after_s: float | None, exchange: bool = True
    ) -> list[str]:
        """Let one writer run and be killed, and look at what is left."""
        self.attempt += 1

        def work(tell: int) -> None:
            if not exchange:  # as on NFS and Lustre
                vars(ctypes)["CDLL"] = lambda *_args, **_kwargs: SimpleNamespace()
            write(self.folder, self.attempt, saves, Steps(fatal), tell)

        killed, words = forked(work, after_s)
        self.found["kills"] += killed
        self.found["runs"] += 1
        self.found["named"] += words.count("named")
        safe = [word.split()[1].strip(",") for word in words if word.startswith("checkpoint ")]
        self.found["saved"] += len(safe)
        self.floor = max([self.floor, *safe])
        self.found["leftovers"] += any(self.folder.glob(f"{files.TEMPORARY_PREFIX}*"))
        if not exchange:  # names are given back under the lock, as a run does when it continues
            checkpoint.sweep(self.folder, lambda _: None)
        if why := self.fault():
            self.lost.append(f"{what}: {why}")
        return words

    def fault(self) -> str | None:
        """What is wrong with the newest checkpoint."""
        try:
            path = checkpoint.newest(self.folder, lambda _: None)
        except DataError as error:  # the next writer begins anew, as a user would with --new
            shutil.rmtree(self.folder)
            self.floor = ""
            return str(error)
        if path is None:
            return f"no checkpoint, {self.floor} was safe" if self.floor else None
        if path.name < self.floor:
            return f"{path.name} is the newest, {self.floor} was safe"
        state = checkpoint.load_state(path)
        for stem in STEMS:
            there, saved = checkpoint.load_tensors(path, stem), content(
                state["nimg"], state["attempt"], stem
            )  # fmt: skip
            if any(not torch.equal(there[name], saved[name]) for name in saved):
                return f"{path.name} holds something else in {stem}"
        latest = self.folder / "latest"
        if latest.exists() and not latest.read_text().startswith("kimg-"):
            return f"latest says {latest.read_text()!r}"
        if len(checkpoint.complete(self.folder)) > KEEP + 1:
            return f"{len(checkpoint.complete(self.folder))} checkpoints are kept"
        return None

    def tear(self) -> None:
        """Cut the newest checkpoint short: the one before it is what is safe now."""
        whole = [path for path in checkpoint.complete(self.folder) if not checkpoint.fault(path)]
        if len(whole) > 1:
            file = whole[-1] / "D.safetensors"
            file.write_bytes(file.read_bytes()[:-100])
            self.floor = whole[-2].name
            self.found["torn"] += 1


def main() -> None:
    """See the module's words."""
    folder, every, at_random = Path(sys.argv[1]) / "checkpoints", *map(int, sys.argv[2:4])
    if "inplace" in sys.argv:
        checkpoint.atomic_folder = in_place
        checkpoint.LAG_S = 0.0  # what is gone is gone
    torch.set_num_threads(1)
    chance = random.Random(11)
    folder.mkdir(parents=True)
    trial = Trial(folder)
    trial.run("first", saves=4, fatal=None, after_s=None)
    started = time.perf_counter()
    words = trial.run("count", saves=2, fatal=None, after_s=None)
    pair_s = time.perf_counter() - started
    steps = int(words[-1].split()[1])
    for number, fatal in enumerate(range(0, steps, every)):
        exchange = chance.random() < 0.5
        trial.run(f"step {fatal} of {steps}", 2, fatal, None, exchange)
        if number % 5 == 4:
            trial.tear()
    for _ in range(at_random):
        after = chance.uniform(0.0, 2.5 * min(pair_s, 0.1))  # a busy machine is given no more
        trial.run(f"after {after:.4f} s", 1000, None, after)
    print(json.dumps({**trial.found, "steps": steps, "lost": trial.lost}))


if __name__ == "__main__":
    main()
