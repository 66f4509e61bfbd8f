"""A safetensors file, written to the device and hashed in one pass over the memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# in the order of the file, that of the library: wide types first keeps each tensor aligned
DTYPES = {
    "int64": "I64", "float64": "F64", "float32": "F32", "int32": "I32", "bfloat16": "BF16",
    "float16": "F16", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
RANK = {name: rank for rank, name in enumerate(DTYPES)}
ALIGNMENT = 8  # of the first byte of data, from the start of the file
CHUNK = 1 << 22  # still in the processor's cache when it is written after it was hashed


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _header(named: Mapping[str, torch.Tensor]) -> bytes:
    entries, offset = {}, 0
    for name, tensor in named.items():
        end = offset + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": DTYPES[_type(tensor)],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def write_tensors(path: Path, named: Mapping[str, torch.Tensor]) -> str:
    """Write named tensors to a new file at `path` and wait until the device has it.

    The bytes are those of ``safetensors.torch.save``, without its two copies of
    all tensors. The digest is of what is in memory, so that a file that arrives
    otherwise is found by it; what was written leaves the page cache, so that
    reading it back reads the device.

    Format: length of the header (8 bytes, little endian), header (JSON, padded
    with blanks to a multiple of 8), data in the header's order without holes
    (huggingface/safetensors, README, "Format").

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    OSError
        The disk is full or fails.
    KeyError
        A tensor of a type that is not in `DTYPES`.
    """
    import torch

    order = sorted(named, key=lambda name: (RANK[_type(named[name])], name))
    ordered = {name: named[name].detach().cpu().contiguous() for name in order}
    content = hashlib.sha256()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        parts = [memoryview(_header(ordered))]
        parts += [t.reshape(-1).view(torch.uint8).numpy().data for t in ordered.values()]
        for part in parts:
            for start in range(0, len(part), CHUNK):
                chunk = part[start : start + CHUNK]
                content.update(chunk)
                while len(chunk):
                    chunk = chunk[os.write(handle, chunk) :]
        os.fsync(handle)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
    return content.hexdigest()
