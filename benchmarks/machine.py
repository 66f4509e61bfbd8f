"""What a result needs beside its numbers: machine, versions, command."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def cpu_model() -> str:
    """Name of the processor, as the kernel has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cpu_flags(*names: str) -> dict[str, bool]:
    """Whether the processor has these instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return dict.fromkeys(names, False)
    flags = set(text.partition("flags")[2].partition("\n")[0].split())
    return {name: name in flags for name in names}


def circumstances(name: str, cuda: bool = True) -> dict[str, Any]:
    """Where, how and when something is measured; without `cuda` a GPU had no part in it."""
    cuda = cuda and torch.cuda.is_available()
    return {
        "command": f"python benchmarks/{name}.py {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_model(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if cuda else None,
            **cpu_flags("avx512f", "avx512_bf16", "amx_bf16"),
        },
        "versions": {
            "python": platform.python_version(), "cuda": torch.version.cuda,
            **{package: version(package) for package in ("sunpipe", "torch", "deepspeed", "numpy")},
        },
    }  # fmt: skip


def document(name: str, results: dict[str, Any]) -> dict[str, Any]:
    """`results` with the circumstances in which they were measured."""
    return {**circumstances(name), **results}


def write(found: dict[str, Any], out: Path | None) -> None:
    """Write to a file, or to standard output."""
    text = json.dumps(found, indent=2) + "\n"
    if out is None:
        sys.stdout.write(text)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
