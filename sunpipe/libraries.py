"""Libraries of compiled code, each tried by one real task: ``python -m sunpipe.libraries NAME``.

`sunpipe doctor` starts it as a process of its own, because a wheel that does not
fit the machine may end the process instead of raising.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Facts = dict[str, Any]


def try_torch() -> Facts:
    """Torch's build, the devices it sees, and whether each of them computes.

    Returns
    -------
    dict
        ``version``, ``cuda`` (of the wheel; None: CPU only), ``nccl``, ``archs`` (what
        the wheel holds code for), ``devices``: name, capability, bytes and, when it
        does not compute, ``fault``.
    """
    import torch

    facts: Facts = {"version": torch.__version__, "cuda": torch.version.cuda, "nccl": None,
                    "archs": [], "devices": []}  # fmt: skip
    if torch.version.cuda is None:
        return facts
    facts["archs"] = torch.cuda.get_arch_list()
    for number in range(torch.cuda.device_count()):
        kind = torch.cuda.get_device_properties(number)
        device: Facts = {"name": kind.name, "capability": f"{kind.major}.{kind.minor}",
                         "bytes": kind.total_memory}  # fmt: skip
        try:
            side = torch.eye(64, device=f"cuda:{number}") * 3
            if (side @ side).sum().item() != 64 * 9:
                device["fault"] = "a matrix product came out wrong"
        except RuntimeError as error:
            device["fault"] = str(error).splitlines()[0]
        facts["devices"].append(device)
    if facts["devices"]:
        facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    return facts


def try_torchvision() -> Facts:
    """Whether torchvision was built for the torch that is installed."""
    import torchvision  # type: ignore[import-untyped]

    return {"version": torchvision.__version__}


def try_faiss() -> Facts:
    """Faiss finds each of some vectors as its own nearest neighbour."""
    import faiss

    rows = np.random.default_rng(0).standard_normal((256, 32)).astype(np.float32)
    index = faiss.IndexFlatL2(32)
    index.add(rows)
    _, found = index.search(rows, 1)
    if not np.array_equal(found[:, 0], np.arange(256)):
        return {"version": faiss.__version__, "fault": "vectors do not find themselves"}
    return {"version": faiss.__version__}


def try_hdf5() -> Facts:
    """Shards' filters: bitshuffle with lz4 there and back, and Fletcher32 notices a flipped bit."""
    import h5py
    import hdf5plugin

    facts: Facts = {"version": h5py.version.hdf5_version, "plugins": hdf5plugin.version}
    image = np.random.default_rng(0).integers(-3000, 3000, (64, 64)).astype(np.int16)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("images", data=image, chunks=image.shape, fletcher32=True,
                            **hdf5plugin.Bitshuffle(cname="lz4"))  # fmt: skip
        where = file["images"].id.get_chunk_info(0).byte_offset
    with h5py.File(content, "r") as file:
        if not np.array_equal(file["images"][()], image):
            return {**facts, "fault": "an image is another one after bitshuffle and lz4"}
    damaged = bytearray(content.getvalue())
    damaged[where + 100] ^= 1
    with h5py.File(io.BytesIO(damaged), "r") as file:
        try:
            file["images"][()]
        except OSError:
            return facts
    return {**facts, "fault": "Fletcher32 does not notice a flipped bit"}


TRIALS: dict[str, Callable[[], Facts]] = {
    "torch": try_torch, "torchvision": try_torchvision, "faiss": try_faiss, "hdf5": try_hdf5,
}  # fmt: skip


def main() -> None:
    """Print one JSON document: what was seen, ``fault`` if something is wrong."""
    try:
        facts = TRIALS[sys.argv[1]]()
    except Exception as error:  # whatever a library raises when it does not fit
        words = str(error).splitlines() or [""]
        facts = {"fault": f"{type(error).__name__}: {words[0]}"}
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
