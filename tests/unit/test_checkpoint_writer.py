"""Checkpoints in the background: what was meant is written, and no error is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sunpipe import checkpoint
from sunpipe.checkpoint_writer import Writer
from sunpipe.errors import DataError


class Gate:
    """Holds back or spoils the writing thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.reached = threading.Event(), threading.Event()
        self.error: OSError | None = None
        self.open.set()
        self.save = checkpoint.save
        monkeypatch.setattr(checkpoint, "save", self.passing)

    def passing(self, *args: Any) -> Path:
        self.reached.set()
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        return self.save(*args)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.open.set()


def test_the_weights_of_the_moment_are_written(tmp_path: Path, gate: Gate) -> None:
    layer, state = torch.nn.Linear(4, 3), {"pl_mean": 0.5, "ada": {"p": 0.25}}
    meant = {key: value.clone() for key, value in layer.state_dict().items()}
    said: list[str] = []
    gate.open.clear()
    with Writer(tmp_path, 2, said.append) as writer:
        writer.save(1000, {"G": layer.state_dict()}, state)
        assert gate.reached.wait(30)
        assert writer.busy
        with torch.no_grad():
            layer.weight.zero_()
        state["ada"] = {"p": 9.0}
        gate.open.set()
    path = checkpoint.newest(tmp_path, print)
    assert path is not None
    found = checkpoint.load_tensors(path, "G")
    assert all(torch.equal(found[key], meant[key]) for key in meant)
    assert checkpoint.load_state(path)["ada"] == {"p": 0.25}
    assert len(said) == 1
    assert said[0].startswith("checkpoint kimg-000001.000, 0.0 MB in ")


def test_a_save_waits_for_the_one_before_it(tmp_path: Path, gate: Gate) -> None:
    weight = torch.zeros(5)
    with Writer(tmp_path, 9, print) as writer:
        for nimg in range(1000, 6000, 1000):
            weight.fill_(nimg)
            writer.save(nimg, {"G": {"w": weight.expand(2, 5)}}, {})
            weight.fill_(-1)
    for path in checkpoint.complete(tmp_path):
        nimg = checkpoint.load_state(path)["nimg"]
        assert torch.equal(checkpoint.load_tensors(path, "G")["w"], torch.full((2, 5), nimg + 0.0))
    assert len(checkpoint.complete(tmp_path)) == 5


def test_shapes_and_types_may_change_between_saves(tmp_path: Path) -> None:
    values = [torch.ones(2), torch.ones(3), torch.ones(3, dtype=torch.float64), torch.tensor(2)]
    with Writer(tmp_path, 9, print) as writer:
        for number, value in enumerate(values):
            writer.save(number, {"G": {"w": value}}, {})
    for number, path in enumerate(checkpoint.complete(tmp_path)):
        found = checkpoint.load_tensors(path, "G")["w"]
        assert found.dtype == values[number].dtype
        assert torch.equal(found, values[number])


@pytest.mark.parametrize("how", ["save", "wait", "check"])
def test_an_error_of_the_thread_is_raised_by_the_next_call_once(
    tmp_path: Path, gate: Gate, how: str
) -> None:
    gate.error = OSError(28, "No space left on device", str(tmp_path / "kimg-000001.000"))
    said: list[str] = []
    with Writer(tmp_path, 2, said.append) as writer:
        writer.save(1000, {"G": {"w": torch.ones(2)}}, {})
        while writer.busy:
            time.sleep(0.001)
        call = {"save": lambda: writer.save(2000, {}, {}), "wait": writer.wait,
                "check": writer.check}[how]  # fmt: skip
        with pytest.raises(OSError, match=r"No space left.*kimg-000001\.000"):
            call()
        gate.error = None
        writer.check()
        writer.save(2000, {"G": {"w": torch.ones(2)}}, {})
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["kimg-000002.000"]
    assert len(said) == 1


def test_check_does_not_wait(tmp_path: Path, gate: Gate) -> None:
    gate.open.clear()
    gate.error = OSError(28, "full")
    writer = Writer(tmp_path, 2, print)
    writer.save(1000, {}, {})
    writer.check()
    assert writer.busy
    gate.open.set()
    with pytest.raises(OSError, match="full"):
        writer.wait()


def test_the_end_waits_and_raises(tmp_path: Path, gate: Gate) -> None:
    gate.error = OSError(28, "full")
    with pytest.raises(OSError, match="full"), Writer(tmp_path, 2, print) as writer:
        writer.save(1000, {}, {})


@pytest.mark.parametrize("fails", [False, True])
def test_an_exception_is_not_hidden_by_that_of_a_write(
    tmp_path: Path, gate: Gate, fails: bool
) -> None:
    gate.error = OSError(28, "full") if fails else None
    said: list[str] = []

    def train() -> None:
        with Writer(tmp_path, 2, said.append) as writer:
            writer.save(1000, {}, {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert len(checkpoint.complete(tmp_path)) == (0 if fails else 1)
    assert any("checkpoint not written: [Errno 28] full" in line for line in said) == fails


def test_a_poisoned_step_is_refused_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    with Writer(tmp_path, 1, print) as writer:
        writer.save(1000, {"D": {"w": torch.ones(2)}}, {})
        for tensors, state, words in (
            ({"D": {"w": torch.tensor([1.0, float("nan")])}}, {}, "w of D.safetensors"),
            ({}, {"pl_mean": float("inf")}, "state.json"),
        ):
            with pytest.raises(DataError, match=f"kimg-000002.000 is not written: .*{words}"):
                writer.save(2000, tensors, state)
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["kimg-000001.000"]
