"""Quality of retrieval on the bundled records, beside raw pixels and an untrained encoder.

Run after ``sunpipe shard`` and ``sunpipe ssl``::

    python benchmarks/retrieval.py --config configs/demo.toml --out benchmarks/retrieval.json

For each kind of vector, all tiles of the dataset, cosine distance:

- ``purity``: share of the 10 nearest tiles that are of the query's HARP, tiles that overlap the
  query in the same HARP left out (``chance``: the share a random order gives);
- ``other_harp``: Spearman correlation of a quantity between a tile and its nearest tile of
  another HARP;
- ``turned``: share of the tiles of HARP 6060 at 00:00, turned, mirrored or reversed in polarity,
  whose nearest tile of another record is of HARP 6060 at 00:12;
- ``seen``: the same for views as the encoder is trained with: turned, partly hidden, shifted,
  with noise;
- ``margin``: distance of the nearest other record over that of HARP 6060 at 00:12, for all tiles
  of 00:00 together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from sunpipe.config import load_config
from sunpipe.embed.encoder import FieldEncoder, encoder_run
from sunpipe.index.store import unit_length
from sunpipe.models.encoder import Encoder
from sunpipe.paths import Layout
from sunpipe.physics import measure
from sunpipe.physics.channels import apply_symmetry
from sunpipe.provenance import git_revision, versions
from sunpipe.shards.normalize import encode
from sunpipe.shards.reader import ShardReader
from sunpipe.ssl_settings import SslSettings
from sunpipe.train.ssl_views import random_view

QUANTITIES = ("USFLUX", "MEANGAM", "TOTUSJH", "MEANSHR")
TURNS = ("rotate90", "flip_horizontal", "reverse_polarity")
NEAREST = 10
VIEWS = 4
HARP = 6060
Vectors = Callable[[torch.Tensor], np.ndarray]


def chunks(call: Callable[[torch.Tensor], Any], fields: torch.Tensor) -> np.ndarray:
    return np.concatenate([np.asarray(call(part)) for part in fields.split(128)])


def untrained(
    encoder: FieldEncoder, settings: Any, fields: torch.Tensor, ways: Any
) -> FieldEncoder:
    """Random weights, batch norm calibrated on the data: all but the learning."""
    torch.manual_seed(0)
    card = encoder.card
    network = Encoder(len(card.channels), card.resolution, settings.width, settings.dim).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        for part in fields.split(128):
            network(encode(part, settings.normalize))
    return FieldEncoder(card, network.eval(), torch.device("cpu"), ways)


def nearest_harp(query: np.ndarray, stored: np.ndarray, harp: np.ndarray) -> np.ndarray:
    """HARP of the stored vector nearest to each query."""
    return harp[(unit_length(query).astype(np.float64) @ stored.T).argmax(axis=1)]


def judge(vectors: Vectors, fields: torch.Tensor, reader: ShardReader, values: Any) -> Any:
    table = reader.records.to_pydict()
    harp, record = np.array(table["harpnum"]), np.array(table["record"])
    y, x = np.array(table["tile_y"]), np.array(table["tile_x"])
    tile = reader.info.tile
    same = harp[:, None] == harp
    overlap = same & (abs(y[:, None] - y) < tile) & (abs(x[:, None] - x) < tile)
    unit = unit_length(vectors(fields)).astype(np.float64)
    far = 1 - unit @ unit.T
    nearest = np.argsort(np.where(overlap, np.inf, far), axis=1)[:, :NEAREST]
    other = np.where(same, np.inf, far).argmin(axis=1)
    times = np.unique(record[harp == HARP])
    mine, rest = np.flatnonzero(record == times[0]), np.flatnonzero(record != times[0])
    channels, asked, other_unit = reader.info.channels, fields[mine], unit[rest]
    turned = {
        name: nearest_harp(vectors(apply_symmetry(asked, channels, name)), other_unit, harp[rest])
        for name in TURNS
    }
    mask = torch.from_numpy(reader.masks(mine))
    seen = [
        nearest_harp(
            vectors(random_view(asked, mask, channels, SslSettings(),
                                torch.Generator().manual_seed(seed))),
            other_unit, harp[rest],
        )
        for seed in range(VIEWS)
    ]  # fmt: skip
    joint = {name: float(far[np.ix_(mine, record == name)].min(axis=1).mean())
             for name in np.unique(record[rest])}  # fmt: skip
    return {
        "purity": float((harp[nearest] == harp[:, None]).mean()),
        "purity_per_harp": {int(number): float((harp[nearest] == number)[harp == number].mean())
                            for number in np.unique(harp)},
        "chance": float(((same & ~overlap).sum(1) / (~overlap).sum(1)).mean()),
        "other_harp": {name: float(spearmanr(values[name], values[name][other],
                                             nan_policy="omit").statistic)
                       for name in QUANTITIES},
        "turned": {name: float((found == HARP).mean()) for name, found in turned.items()},
        "seen": float((np.array(seen) == HARP).mean()),
        "margin": min(v for k, v in joint.items() if k != times[1]) / joint[times[1]],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    config, layout = load_config(options.config), Layout.current()
    reader = ShardReader(layout.shards(config.dataset))
    fields = torch.from_numpy(reader.images(reader.rows))
    pixel = torch.tensor(reader.pixel_cm)
    values = {
        name: value.numpy() for name, value in measure(fields, pixel, names=QUANTITIES).items()
    }
    run = encoder_run(layout, config.name)
    kinds: dict[str, Vectors] = {
        "pixels": lambda x: encode(x, config.ssl.normalize).flatten(1).numpy()
    }
    for orbit in (False, True):
        trained = FieldEncoder.load(run, orbit)
        blank = untrained(trained, config.ssl, fields, trained.ways)
        suffix = " + orbit" if orbit else ""
        kinds[f"untrained{suffix}"] = lambda x, e=blank: chunks(e.vectors, x)
        kinds[f"trained{suffix}"] = lambda x, e=trained: chunks(e.vectors, x)
    results = {}
    for name, vectors in kinds.items():
        results[name] = judge(vectors, fields, reader, values)
        print(name, json.dumps(results[name]), flush=True)
    if options.out:
        about = {"tiles": len(reader), "kimg": trained.card.nimg / 1000, "vectors": results,
                 "git": git_revision(), "versions": versions()}  # fmt: skip
        options.out.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
