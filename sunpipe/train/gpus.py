"""GPU types: what their data sheets promise.

Rates are dense (without 2:4 sparsity) and in 10^12 operations per second, as data
sheets give them; `sunpipe.train.roofline` knows how much of it a training reaches.
Memory is what the driver leaves to a process, in GiB: less than the name of the
type says.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path

from sunpipe.config import read_toml
from sunpipe.errors import UsageError


@dataclass(frozen=True)
class Gpu:
    """One type.

    Attributes
    ----------
    name : str
        As ``--gpu`` and a cluster profile give it.
    memory_gib : float
    fp32, tf32, bf16 : float
        Tflop/s of products; ``tf32`` and ``bf16`` are 0 where no tensor cores do them.
    bandwidth : float
        GB/s (10^9 bytes) of its own memory.
    device : str
        A regular expression for the name that the driver gives it; ``""``: none.
    source : str
        Where the numbers stand.
    """

    name: str
    memory_gib: float
    fp32: float
    tf32: float
    bf16: float
    bandwidth: float
    device: str = ""
    source: str = ""


CPU = "cpu"  # what the measured rates of a machine's processor are called
_SHEETS = "NVIDIA data sheet of the {}, dense rates"
KNOWN: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("v100-16", 15.7, 15.7, 0, 0, 900, r"V100-\w+-16GB", _SHEETS.format("V100 (SXM2)")),
        Gpu("v100", 31.7, 15.7, 0, 0, 900, r"V100", _SHEETS.format("V100 (SXM2)")),
        Gpu("a30", 23.5, 10.3, 82, 165, 933, r"A30\b", _SHEETS.format("A30")),
        Gpu("a40", 44.4, 37.4, 74.8, 149.7, 696, r"A40\b", _SHEETS.format("A40")),
        Gpu("a6000", 47.5, 38.7, 77.4, 154.8, 768, r"RTX A6000", _SHEETS.format("RTX A6000")),
        Gpu("a100-40", 39.4, 19.5, 156, 312, 1555, r"A100-\w+-40GB", _SHEETS.format("A100 40 GB")),
        Gpu("a100", 79.1, 19.5, 156, 312, 2039, r"A100", _SHEETS.format("A100 80 GB (SXM)")),
        Gpu("l40s", 44.4, 91.6, 183, 362, 864, r"L40S", _SHEETS.format("L40S")),
        Gpu("h100-pcie", 79.1, 51, 378, 756, 2000, r"H100 PCIe", _SHEETS.format("H100 (PCIe)")),
        Gpu("h100", 79.1, 67, 494, 989, 3350, r"H100", _SHEETS.format("H100 (SXM)")),
        Gpu("h200", 139.0, 67, 494, 989, 4800, r"H200", _SHEETS.format("H200 (SXM)")),
        Gpu("b200", 178.0, 75, 1125, 2250, 8000, r"B200", _SHEETS.format("HGX B200, an eighth")),
    )
}
_NUMBERS = ("memory_gib", "fp32", "tf32", "bf16", "bandwidth")
_TENSOR = ("tf32", "bf16")  # 0 on GPUs without such units


def find_gpu(name: str) -> Gpu:
    """The type of that name, in any case, or of a TOML file with the attributes of `Gpu`.

    Raises
    ------
    UsageError
        An unknown name, or a file with other keys.
    """
    if name.endswith(".toml"):
        return _from_file(Path(name).expanduser())
    known = KNOWN.get(name.lower())
    if known is None:
        raise UsageError(
            f"no figures for a GPU called {name!r}; known: {', '.join(KNOWN)}; for another, name a"
            f" file NAME.toml with {', '.join(_NUMBERS)} (GiB, Tflop/s dense, GB/s) of its data"
            " sheet"
        )
    return known


def _from_file(path: Path) -> Gpu:
    if not path.is_file():
        raise UsageError(f"no such file of a GPU's figures: {path}")
    data = read_toml(path)
    wrong = sorted(set(data) - {field.name for field in fields(Gpu)})
    missing = [key for key in _NUMBERS if key not in data]
    said = [f"{key}: no such key" for key in wrong] + [f"{key} is missing" for key in missing]
    for key in sorted(data.keys() - set(wrong)):
        if key not in _NUMBERS:
            said += [] if isinstance(data[key], str) else [f"{key} must be text"]
        elif not _rate(data[key], zero=key in _TENSOR):
            said.append(f"{key} must be a number {'of 0 or more' if key in _TENSOR else 'above 0'}")
    if said:
        raise UsageError(f"{path}: {'; '.join(said)}")
    return Gpu(**{"name": path.stem, "source": str(path), **data})


def _rate(value: object, zero: bool) -> bool:
    """Whether it is a number of a data sheet; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and (value > 0 or (zero and value == 0))


def gpu_of_device(device_name: str, memory_bytes: int) -> Gpu | None:
    """The type of a device by the driver's name for it, with its own memory; None if unknown."""
    for gpu in KNOWN.values():
        if gpu.device and re.search(gpu.device, device_name):
            return Gpu(**{**vars(gpu), "memory_gib": memory_bytes / 2**30})
    return None


def gpu_here() -> Gpu | None:
    """The type of this machine's first GPU; None without one, or for one that is not known."""
    import torch

    if not torch.cuda.is_available():
        return None
    about = torch.cuda.get_device_properties(0)
    return gpu_of_device(about.name, about.total_memory)
