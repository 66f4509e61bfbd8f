"""Feeding a network: float16 images of 3 x 1024 x 1024 in random order, ours beside its rivals.

Run it alone on a machine::

    OMP_NUM_THREADS=1 python benchmarks/loader.py --out benchmarks/results/loader.json

Every contender fills the same batches from a file in the page cache, pinned to
one core, all in one run, one after the other and round again; the figures are
medians over the rounds in MB (10^6 bytes) of float16 pixels per second. ``cpu``
counts the processor's seconds of the process, ``wall`` the clock's: on a busy
machine only ``cpu`` can be compared. ``plain reads`` is the limit: ``preadv``
of the same bytes into the same batches. ``webdataset`` can only read in the
order of its file. Images are like AIA's: bright structures over five decades of
scale, photon noise, whole DN; LZ4 with bitshuffle halves them.

``workers`` reads with 1 and 2 workers on two cores, by the clock: our loader's
threads, and torch's DataLoader with processes that read by h5py.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import webdataset
import zarr

from preprocess.dataset.hdf5 import write_shard
from sunpipe.files import sha256
from sunpipe.provenance import git_revision
from sunpipe.shards.loader import Loader
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import DatasetInfo

SIDE, CHANNELS, BATCH = 1024, 3, 8
SHAPE = (CHANNELS, SIDE, SIDE)
Images = np.ndarray
Fill = Callable[[Images, Any], None]


def scene(rng: np.random.Generator) -> Images:
    """One channel: a power-law sky, brighter on the disc, with photon noise, in whole DN."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    frequency[0, 0] = 1
    sky = np.zeros((SIDE, SIDE))
    for slope, weight in ((-1.6, 1.1), (-1.2, 0.3)):
        noise = np.fft.rfft2(rng.standard_normal((SIDE, SIDE)))
        layer = np.fft.irfft2(noise * frequency**slope)
        sky += weight * layer / layer.std()
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    radius = np.hypot(y, x) / (0.39 * SIDE)
    dn = np.exp(5 + sky) * np.where(radius < 1, 1, np.exp(8 * (1 - radius)))
    # 4 x 4 pixels were averaged: a sixteenth of the photon noise's variance
    return np.rint(rng.poisson(16 * np.minimum(dn, 16000)) / 16)


def make_images(count: int, seed: int = 0) -> Images:
    """`count` images; each scene is shown in eight orientations."""
    rng = np.random.default_rng(seed)
    out = np.empty((count, *SHAPE), np.float16)
    for first in range(0, count, 8):
        scenes = np.stack([scene(rng) for _ in range(CHANNELS)]).astype(np.float16)
        for turn in range(min(8, count - first)):
            turned = np.rot90(scenes, turn % 4, (1, 2))
            out[first + turn] = turned[:, ::-1] if turn >= 4 else turned
    return out


def make_dataset(folder: Path, images: Images, storage: str) -> ShardReader:
    """A dataset of one shard, written by sunpipe."""
    folder.mkdir()
    about = {"channels": ["171", "193", "211"], "units": ["DN/s"] * 3, "scale": 1.0,
             "max_error": 0.0}  # fmt: skip
    mask = np.ones(SHAPE[1:], np.uint8)
    path = folder / "shard-00000.h5"
    write_shard(path, ((image, mask) for image in images), len(images), SIDE, "float16", about,
                storage)  # fmt: skip
    rows = np.arange(len(images))
    table = {"row": rows, "shard": 0 * rows, "position": rows, "split": ["train"] * len(rows)}
    pq.write_table(pa.table(table), folder / "records.parquet")
    DatasetInfo(
        name=folder.name, product="aia_fulldisk", **about, resolution=SIDE, tile=SIDE, stride=0,
        reduce=1, dtype="float16", storage=storage, max_relative_error=0.0,
        shards={path.name: sha256(path)}, files={}, counts={}, settings={}, versions={},
    ).write(folder)  # fmt: skip
    return ShardReader(folder)


class Stores:
    """The same images in every store, and how each fills a batch."""

    def __init__(self, folder: Path, images: Images) -> None:
        self.count, self.folder = len(images), folder
        self.sizes: dict[str, int] = {}
        self.chunked = make_dataset(folder / "chunked", images, "chunked")
        self.contiguous = make_dataset(folder / "contiguous", images, "contiguous")
        self.careless = ShardReader(folder / "contiguous", check=False)
        np.save(folder / "images.npy", images)
        self.memmap = np.load(folder / "images.npy", mmap_mode="r")
        self.offset = os.path.getsize(folder / "images.npy") - images.nbytes
        self.plain = os.open(folder / "images.npy", os.O_RDONLY)
        with h5py.File(folder / "gzip.h5", "w") as file:
            file.create_dataset("images", data=images, chunks=(1, *SHAPE), compression="gzip",
                                compression_opts=4, shuffle=True, fletcher32=True)  # fmt: skip
        self.files = {
            "chunked": h5py.File(folder / "chunked/shard-00000.h5"),
            "contiguous": h5py.File(folder / "contiguous/shard-00000.h5"),
            "gzip": h5py.File(folder / "gzip.h5"),
        }
        codec = zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle", typesize=2)
        self.zarr = {}
        for name, compressors in (("none", None), ("lz4", codec)):
            self.zarr[name] = zarr.create_array(
                folder / f"{name}.zarr", shape=images.shape, chunks=(1, *SHAPE), dtype="f2",
                compressors=compressors,
            )  # fmt: skip
            self.zarr[name][:] = images
        with webdataset.TarWriter(str(folder / "images.tar")) as tar:
            for place, image in enumerate(images):
                kept = io.BytesIO()
                np.save(kept, image)
                tar.write({"__key__": f"{place:06d}", "npy": kept.getvalue()})
        self.tar: Iterator[Any] = iter(())

    def contenders(self) -> dict[str, Fill]:
        """Name to a function that fills a batch with the images of rows."""
        return {
            "plain reads (the limit)": self._plain,
            "sunpipe chunked": self._ours(self.chunked),
            "sunpipe contiguous": self._ours(self.contiguous),
            "sunpipe contiguous, unchecked": self._ours(self.careless),
            "h5py bitshuffle+lz4+fletcher32": self._h5py("chunked"),
            "h5py contiguous": self._h5py("contiguous"),
            "h5py gzip4+shuffle+fletcher32": self._h5py("gzip"),
            "npy memmap": self._memmap,
            "zarr 3 uncompressed": self._zarr("none"),
            "zarr 3 blosc lz4 bitshuffle": self._zarr("lz4"),
            "webdataset tar of npy (in order)": self._webdataset,
        }

    def _plain(self, batch: Images, rows: Any) -> None:
        size = batch[0].nbytes
        for place, row in enumerate(rows):
            target = batch[place].reshape(-1).view(np.uint8).data
            if os.preadv(self.plain, [target], self.offset + int(row) * size) != size:
                raise OSError("short read")

    @staticmethod
    def _ours(reader: ShardReader) -> Fill:
        def fill(batch: Images, rows: Any) -> None:
            for place, row in enumerate(rows):
                reader.read_into("images", int(row), batch[place])

        return fill

    def _h5py(self, name: str) -> Fill:
        data = self.files[name]["images"]

        def fill(batch: Images, rows: Any) -> None:
            for place, row in enumerate(rows):
                data.read_direct(batch, np.s_[int(row)], np.s_[place])

        return fill

    def _memmap(self, batch: Images, rows: Any) -> None:
        for place, row in enumerate(rows):
            batch[place] = self.memmap[row]

    def _zarr(self, name: str) -> Fill:
        array = self.zarr[name]

        def fill(batch: Images, rows: Any) -> None:
            for place, row in enumerate(rows):
                batch[place] = array[int(row)]

        return fill

    def _webdataset(self, batch: Images, rows: Any) -> None:
        for place in range(len(rows)):
            item = next(self.tar, None)
            if item is None:
                self.tar = iter(webdataset.WebDataset(str(self.folder / "images.tar"),
                                                      shardshuffle=False))  # fmt: skip
                item = next(self.tar)
            batch[place] = np.load(io.BytesIO(item["npy"]))

    def bytes(self) -> dict[str, int]:
        """Size of each store on disk."""
        found = {}
        for path in sorted(self.folder.iterdir()):
            files = [path] if path.is_file() else list(path.rglob("*"))
            found[path.name] = sum(each.stat().st_size for each in files if each.is_file())
        return found


def check(stores: Stores, images: Images) -> None:
    """Every contender gives every pixel, or the figures mean nothing."""
    batch = np.empty((BATCH, *SHAPE), np.float16)
    rows = np.arange(BATCH)
    for name, fill in stores.contenders().items():
        batch[:] = -1
        fill(batch, rows)
        if not np.array_equal(batch, images[:BATCH]):
            raise SystemExit(f"{name} gives other pixels")
    stores.tar = iter(())


def one_core(stores: Stores, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of MB/s on one core, contenders interleaved."""
    batch = np.empty((BATCH, *SHAPE), np.float16)
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in stores.contenders()}
    for turn in range(rounds + 1):  # the first only warms the caches up
        order = np.random.default_rng(turn).permutation(stores.count)
        for name, fill in stores.contenders().items():
            cpu, wall = time.process_time(), time.perf_counter()
            for start in range(0, stores.count - BATCH + 1, BATCH):
                fill(batch, order[start : start + BATCH])
            spent = time.process_time() - cpu, time.perf_counter() - wall
            if turn:
                seen[name].append(spent)
    amount = stores.count // BATCH * batch.nbytes / 1e6
    return {
        name: {"cpu": amount / float(np.median([each[0] for each in spent])),
               "wall": amount / float(np.median([each[1] for each in spent]))}
        for name, spent in seen.items()
    }  # fmt: skip


class H5pyImages(torch.utils.data.Dataset):
    """What most training code does: h5py, opened in each worker."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count, self.data = path, count, None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> torch.Tensor:
        if self.data is None:
            self.data = h5py.File(self.path)["images"]
        return torch.from_numpy(self.data[place])


def by_workers(stores: Stores, rounds: int) -> dict[str, dict[str, float]]:
    """MB/s by the clock with 1 and 2 workers on all cores."""
    seen: dict[tuple[str, int], list[float]] = {}
    size = BATCH * int(np.prod(SHAPE)) * 2 / 1e6
    path = stores.folder / "chunked/shard-00000.h5"
    many = 3 * (stores.count // BATCH)
    for turn in range(rounds):
        for workers in (1, 2):
            for name, reader in (("chunked", stores.chunked), ("contiguous", stores.contiguous)):
                with Loader(reader, turn, 0, BATCH, threads=workers, ahead=2) as loader:
                    next(loader)
                    start = time.perf_counter()
                    for _ in range(many):
                        next(loader)
                    spent = time.perf_counter() - start
                seen.setdefault((f"sunpipe {name}, threads", workers), []).append(
                    many * size / spent
                )
            peer = torch.utils.data.DataLoader(
                H5pyImages(path, stores.count), BATCH, shuffle=True, num_workers=workers,
                persistent_workers=True, drop_last=True,
            )  # fmt: skip
            for _ in peer:  # start the workers
                pass
            start = time.perf_counter()
            for _ in range(3):
                for _ in peer:
                    pass
            spent = time.perf_counter() - start
            seen.setdefault(("torch DataLoader of h5py, processes", workers), []).append(
                3 * len(peer) * size / spent
            )
            del peer
    table: dict[str, dict[str, float]] = {}
    for (name, workers), rates in seen.items():
        table.setdefault(name, {})[str(workers)] = float(np.median(rates))
    return table


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")),
                 platform.processor())  # fmt: skip
    return {"cpu": model, "cores": os.cpu_count(), "load": os.getloadavg()[0],
            "system": platform.platform()}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the stores are made, and removed")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="sunpipe-loader-", dir=options.folder))
    about = machine()
    try:
        images = make_images(options.images)
        stores = Stores(folder, images)
        check(stores, images)
        sizes, cores = stores.bytes(), os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        rates = one_core(stores, options.rounds)
        os.sched_setaffinity(0, cores)
        workers = by_workers(stores, 3)
    finally:
        shutil.rmtree(folder)
    limit = rates["plain reads (the limit)"]["cpu"]
    print(f"{'one core, MB/s of float16':36s} {'cpu':>7s} {'wall':>7s}  of the limit")
    for name, rate in rates.items():
        print(f"{name:36s} {rate['cpu']:7.0f} {rate['wall']:7.0f}  {rate['cpu'] / limit:.2f}")
    for name, each in workers.items():
        print(f"{name:36s} " + "  ".join(f"{n}: {rate:.0f}" for n, rate in each.items()))
    result = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/loader.py " + " ".join(sys.argv[1:]),
        "machine": about, "revision": git_revision(),
        "versions": {"h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version,
                     "hdf5plugin": hdf5plugin.version, "numpy": np.__version__,
                     "torch": torch.__version__, "zarr": zarr.__version__,
                     "webdataset": webdataset.__version__},
        "images": [options.images, *SHAPE], "dtype": "float16",
        "ratio": images.nbytes / sizes["chunked"], "bytes": sizes,
        "one_core_mb_per_s": rates, "workers_mb_per_s": workers,
        "share_of_plain_reads": {name: rate["cpu"] / limit for name, rate in rates.items()},
    }  # fmt: skip
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
