"""Checking what arrived, in processes of their own: a decoder that crashes takes nothing along.

The worker (``python -m preprocess.acquire.decoder``) reads one path per line and
answers one JSON line each. It ends when its input does, so that it cannot
outlive a parent that is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DECODE_S = 300.0  # the largest image takes about a second


@dataclass(frozen=True)
class Verdict:
    """What a worker says of a file.

    Attributes
    ----------
    sha256 : str
        Of its bytes; empty when the worker could not say.
    bytes : int
    fault : str
        Why it cannot be used; empty when it can.
    verified : bool
        Whether it carries checksums, which then are right.
    """

    sha256: str = ""
    bytes: int = 0
    fault: str = ""
    verified: bool = False


class Decoders:
    """A few worker processes, each started anew when it has died; use it as ``async with``."""

    def __init__(self, count: int = 1, command: tuple[str, ...] = ()) -> None:
        self._command = command or (sys.executable, "-m", "preprocess.acquire.decoder")
        self._idle: asyncio.Queue[asyncio.subprocess.Process | None] = asyncio.Queue()
        self._alive: set[asyncio.subprocess.Process] = set()
        self._count = count

    async def __aenter__(self) -> Decoders:
        for _ in range(self._count):  # they load while the first file arrives
            self._idle.put_nowait(await self._start())
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in [*self._alive]:
            await self._end(process)

    async def _start(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        # in a group of its own: ctrl-C is for the parent, which then ends it
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, process_group=0, limit=1 << 20
        )
        self._alive.add(process)
        return process

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()  # to the end of its output: then nothing is left open
        self._alive.discard(process)

    async def check(self, path: Path) -> Verdict:
        """Hash and decode one file; a crash or a hang is a fault of the file."""
        process = await self._idle.get()
        keep: asyncio.subprocess.Process | None = None
        try:
            if process is None or process.returncode is not None:
                process = await self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(str(path)).encode() + b"\n")
            async with asyncio.timeout(DECODE_S):
                answer = await process.stdout.readline()
            if not answer.endswith(b"\n"):
                code = await process.wait()
                return Verdict(fault=f"the decoder ended with {code} [crash]")
            keep = process
            return Verdict(**json.loads(answer))
        except TimeoutError:
            return Verdict(fault=f"not decoded in {DECODE_S:g} s [hang]")
        except (BrokenPipeError, ConnectionResetError):
            return Verdict(fault="the decoder ended before it answered [crash]")
        finally:
            if keep is None and process is not None:
                await self._end(process)
            self._idle.put_nowait(keep)


def examine(path: Path) -> Verdict:
    """Hash and decode one file in this process."""
    import hashlib

    from sunpipe.fits import MAX_BYTES, parse_segment
    from sunpipe.fitsfile import FitsError

    size = path.stat().st_size
    if size > MAX_BYTES:
        return Verdict(bytes=size, fault=f"{size} bytes; at most {MAX_BYTES} [too_large]")
    raw = path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    try:
        found = parse_segment(raw, path.name)
    except FitsError as error:
        return Verdict(digest, size, f"what arrived cannot be used: {error.reason}")
    except MemoryError:
        return Verdict(digest, size, "what arrived cannot be used: no memory for its pixels")
    return Verdict(digest, size, "", found.verified)


def main() -> None:
    """Answer lines until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print does not stand among the answers
    for line in sys.stdin:
        answers.write(json.dumps(examine(Path(json.loads(line))).__dict__) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
