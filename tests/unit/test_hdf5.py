"""A disk that fills up: every writer of HDF5 ends in one error and leaves nothing half-written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from sunpipe.hdf5 import hdf5_sink, new_hdf5
from tests.conftest import REPO

# Each writes about a megabyte of noise to `folder`. A size limit of files stands for the disk.
WRITERS = {
    "shard": """
        from preprocess.dataset.hdf5 import write_shard
        about = {"channels": ["Br"], "units": ["Gauss"], "scale": 1.0, "max_error": 0.1}
        pairs = ((noise[:1, :64, :64] * n, noise[0, :64, :64] > 0) for n in range(64))
        write_shard(folder / "x.h5", pairs, 64, 64, "float32", about)
    """,
    "samples": """
        from sunpipe.latent.samples import Samples, write_samples
        rows = noise.reshape(-1, 512)
        names = ["USFLUX"]
        write_samples(folder / "x.h5", Samples(rows, rows, names, ["Mx"], rows[:, :1], {"a": 1}))
    """,
    "part": """
        from sunpipe.latent.fit import Fitted
        from sunpipe.latent.parts import write_part
        write_part(folder, Fitted("USFLUX", {}, {"plain": noise[0, 0]}, [walk]))
    """,
    "directions": """
        from sunpipe.latent.directions import write_directions
        write_directions(folder, {"generator": "f"}, {"USFLUX": noise[0, 0]}, [], [walk])
    """,
    "traverse": """
        from sunpipe.latent.strip import draw_strip
        from sunpipe.latent.walk_files import Seen, write_latents
        draw_strip(walk, folder / "strip.png", "title", ["0"] * 4)
        latents = noise[:, 0]
        write_latents(folder / "walk.h5", Seen(walk, noise[:, None], latents, latents), {"a": 1})
    """,
    "search": """
        import pyarrow as pa
        from sunpipe.embed.searches import write_search
        write_search(folder / "x", pa.table({"row": [1]}), noise[:, None], noise[0])
    """,
}
HEAD = """
import resource
import sys
from pathlib import Path
import numpy as np
from sunpipe.cli import guarded
from sunpipe.latent.walks import Walk

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
folder = Path(sys.argv[1])
noise = np.random.default_rng(0).normal(size=(4, 256, 256)).astype(np.float32)
walk = Walk("USFLUX", "plain", np.zeros(4), 1.0, np.arange(1), ["USFLUX"], ["Mx"],
            np.zeros((1, 4, 1)), noise[None, :, None], ["Br"], 1e8)

def write():
"""


@pytest.mark.parametrize("limit", [4_000, 60_000, 400_000])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line(writer: str, limit: int, tmp_path: Path) -> None:
    code = HEAD + WRITERS[writer].replace("\n    ", "\n") + "\n\nguarded(write)\n"
    code = code.replace("\n        ", "\n    ")
    command = [sys.executable, "-c", code, str(tmp_path), str(limit)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=REPO, check=False, timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"File too large: {tmp_path}" in done.stderr
    assert ".tmp-" not in done.stderr
    whole = {"directions.safetensors", "leakage.parquet", "strip.png"}
    assert {path.name for path in tmp_path.iterdir()} <= whole


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    for value in (1, 2):
        with new_hdf5(path) as file:
            file["rows"] = np.full(9, value)
    with pytest.raises(KeyError), new_hdf5(path) as file:
        file["nothing"]
    with h5py.File(path) as file:
        assert file["rows"][:].tolist() == [2] * 9
    assert list(tmp_path.iterdir()) == [path]


def test_hdf5_is_written_in_one_place() -> None:
    writers = [
        path.relative_to(REPO).as_posix()
        for package in ("sunpipe", "preprocess")
        for path in (REPO / package).rglob("*.py")
        if re.search(r"""h5py\.File\([^)]*["'][wax]""", path.read_text())
    ]
    in_memory = ["sunpipe/libraries.py"]  # tries the filters on bytes, no file
    assert sorted(writers) == ["sunpipe/hdf5.py", *in_memory]


class Interrupted:
    """A file whose writer presses ctrl-C."""

    def write(self, data: memoryview) -> int:
        raise KeyboardInterrupt


def interrupted_write(path: Path) -> None:
    with hdf5_sink(path) as (file, sink):
        sink._handle = Interrupted()  # type: ignore[assignment]
        file["x"] = np.zeros(100_000)


def test_ctrl_c_inside_a_write_is_a_ctrl_c_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted_write(tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []
