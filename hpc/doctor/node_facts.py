"""What a node sees, as one line of JSON: ``srun python -m hpc.doctor.node_facts REQUEST``.

`REQUEST` is JSON: ``token`` (a file to read in the data root), ``interface``, ``scratch``.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hpc.doctor.file_systems import existing
from hpc.doctor.network import addresses
from hpc.launch import cache_folder
from sunpipe.errors import UsageError


def scratch_fault(folder: str) -> str:
    """Why the node-local folder cannot be used; empty if it can."""
    try:
        with tempfile.TemporaryDirectory(prefix=".tmp-doctor-", dir=existing(Path(folder))):
            return ""
    except OSError as error:
        return error.strerror or "cannot be written to"


def facts(request: dict[str, str]) -> dict[str, Any]:
    """Time, data root, interface and scratch of this node."""
    found: dict[str, Any] = {
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(), "time": time.time(),
    }  # fmt: skip
    try:
        found["token"] = Path(request["token"]).read_text(encoding="utf-8")
    except OSError as error:
        found["token_fault"] = error.strerror
    if request.get("interface"):
        found["addresses"] = addresses(request["interface"])
    if request.get("scratch"):
        try:
            folder = cache_folder(request["scratch"], os.environ)
            found["scratch_fault"] = scratch_fault(folder)
        except UsageError as error:
            found["scratch_fault"] = str(error)
        if not found["scratch_fault"]:
            found["scratch_free"] = shutil.disk_usage(existing(Path(folder))).free
    return found


if __name__ == "__main__":
    print(json.dumps(facts(json.loads(sys.argv[1]))), flush=True)
