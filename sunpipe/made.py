"""The files of each stage's artefact: the one that tells all others apart stands first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sunpipe.checkpoint import complete
from sunpipe.errors import DataError
from sunpipe.files import read_json
from sunpipe.paths import Layout
from sunpipe.run import find_run, ssl_name
from sunpipe.settings import Config

Files = Callable[[Config, Layout], list[Path]]


def _fetch(_cfg: Config, layout: Layout) -> list[Path]:
    return [layout.archive / "manifest.parquet"]


def _shard(cfg: Config, layout: Layout) -> list[Path]:
    folder = layout.shards(cfg.dataset)
    try:
        listed = sorted(read_json(folder / "dataset.json")["shards"])
    except (DataError, OSError, KeyError, TypeError):
        listed = []  # the fingerprint of dataset.json itself says what is wrong
    names = [name for name in listed if isinstance(name, str) and Path(name).name == name]
    return [folder / name for name in ("dataset.json", "records.parquet", *names)]


def _run(layout: Layout, name: str) -> list[Path]:
    """The newest checkpoint of the newest run: what the next start of a training goes on from."""
    folder = find_run(layout, name)
    found = complete(folder / "checkpoints") if folder else []
    if not found:
        return [(folder or layout.runs / name) / "checkpoints" / "latest"]
    return [found[-1] / "COMPLETE", *sorted(found[-1].rglob("*.safetensors"))]


def _sample(cfg: Config, layout: Layout) -> list[Path]:
    return [layout.latents(cfg.name) / "samples.h5"]


def _directions(cfg: Config, layout: Layout) -> list[Path]:
    names = ("directions.json", "directions.safetensors", "leakage.parquet", "traverse.h5")
    return [layout.latents(cfg.name) / name for name in names]


def _embed(cfg: Config, layout: Layout) -> list[Path]:
    folder = layout.embeddings(cfg.name)
    vectors = sorted(folder.glob("embedding-*.npy"))
    return [folder / "embedding.json", folder / "metadata.parquet", *vectors]


def _index(cfg: Config, layout: Layout) -> list[Path]:
    names = ("index.json", "vectors.faiss", "metadata.parquet")
    return [layout.index(cfg.name) / name for name in names]


def _search(cfg: Config, layout: Layout) -> list[Path]:
    names = ("search.json", "queries.h5", "hits.parquet")
    return [layout.searches(cfg.name) / name for name in names]


def _report(cfg: Config, layout: Layout) -> list[Path]:
    return [layout.report(cfg.name) / name for name in ("report.html", "hero.png", "report.json")]


FILES: dict[str, Files] = {
    "fetch": _fetch, "shard": _shard,
    "train": lambda cfg, layout: _run(layout, cfg.name), "sample": _sample,
    "directions": _directions, "ssl": lambda cfg, layout: _run(layout, ssl_name(cfg.name)),
    "embed": _embed, "index": _index, "search": _search, "report": _report,
}  # fmt: skip


def archive_gaps(layout: Layout) -> str:
    """What the archive lacks of the files that its manifest lists as fetched; empty if nothing.

    One look at each file: to be asked before they are read, not at every start.

    Returns
    -------
    str
        For example ``archive lacks 3 of 12 files``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = layout.archive / "manifest.parquet"
    try:
        table = pq.read_table(path, columns=["path", "bytes", "state"])
    except (pa.ArrowException, OSError) as error:
        return f"{path.name} cannot be read ({error})"
    columns = (table.column(name).to_pylist() for name in ("path", "bytes", "state"))
    held = [(name, size) for name, size, state in zip(*columns, strict=True) if state == "fetched"]
    gone = sum(_size(layout.archive / name) != size for name, size in held)
    return f"archive lacks {gone} of {len(held)} files" if gone else ""


def _size(path: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def made_by(stage: str, cfg: Config, layout: Layout) -> list[Path]:
    """Files that `stage` leaves for this configuration, whether they are there or not."""
    return FILES[stage](cfg, layout)
