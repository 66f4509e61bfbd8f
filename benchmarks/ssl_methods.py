r"""SimSiam, VICReg and DINO on one dataset, judged by what a search must find.

Each method is trained by ``sunpipe ssl`` with the settings of the configuration and
a run of its own (``<name>_<method>``), or is taken as it is when it is there::

    python benchmarks/ssl_methods.py --config configs/archive_hour.toml --kimg 60 \\
        --out benchmarks/results/ssl_methods.json

On the vectors of the test split (HARPs that no encoder has seen), cosine distance,
with and without averaging over the symmetries:

- ``same_harp``: share of the tiles with a tile of their own HARP at another time among the 10
  nearest tiles, those of the same time left out; ``chance`` is that of a random order;
- ``usflux``, ``mean_gradient``, ``currents``: Spearman's correlation of USFLUX, MEANGBT and
  TOTUSJZ between a tile and its nearest tile of another HARP;
- ``turned``: share of the tiles whose nearest tile, once turned by 90 degrees, is itself.

Beside the methods: raw pixels, and an encoder that learned nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import document, write
from numpy.typing import NDArray
from scipy.stats import spearmanr

from sunpipe.config import load_config
from sunpipe.embed.encoder import FieldEncoder, encoder_run
from sunpipe.index.store import unit_length
from sunpipe.models.backbone import make_backbone
from sunpipe.paths import Layout
from sunpipe.physics import measure
from sunpipe.physics.channels import apply_symmetry
from sunpipe.run import read_stats
from sunpipe.settings import Config
from sunpipe.shards.normalize import encode
from sunpipe.shards.reader import ShardReader
from sunpipe.train.ssl import train_ssl

METHODS = ("simsiam", "vicreg", "dino")
QUANTITIES = {"usflux": "USFLUX", "mean_gradient": "MEANGBT", "currents": "TOTUSJZ"}
NEAREST = 10
Vectors = Callable[[torch.Tensor], NDArray[np.float32]]


def in_parts(call: Vectors, fields: torch.Tensor) -> NDArray[np.float64]:
    """Vectors of length one, a pass of 256 at a time."""
    found = np.concatenate([call(part) for part in fields.split(256)])
    return unit_length(found).astype(np.float64)


def judge(call: Vectors, data: dict[str, Any]) -> dict[str, float]:
    """The numbers of one kind of vectors; see the top of this file."""
    unit = in_parts(call, data["fields"])
    harp, time = data["harp"], data["time"]
    same = harp[:, None] == harp
    moment = same & (time[:, None] == time)
    far = -(unit @ unit.T)
    nearest = np.argsort(np.where(moment, np.inf, far), axis=1)[:, :NEAREST]
    asked = (same & ~moment).any(axis=1)  # seen at one time only: nothing to find
    other = np.where(same, np.inf, far).argmin(axis=1)
    turned = in_parts(call, apply_symmetry(data["fields"], data["channels"], "rotate90"))
    wanted, rest = (same & ~moment).sum(axis=1), (~moment).sum(axis=1)
    chance = 1 - np.cumprod([1 - wanted / (rest - k) for k in range(NEAREST)], axis=0)[-1]
    result = {
        "same_harp": float((harp[nearest] == harp[:, None]).any(axis=1)[asked].mean()),
        "chance": float(chance[asked].mean()),
        "turned": float(((turned @ unit.T).argmax(axis=1) == np.arange(len(unit))).mean()),
    }
    for name, values in data["values"].items():
        found = spearmanr(values, values[other], nan_policy="omit").statistic
        result[name] = float(found)
    return result


def held_out_tiles(config: Config, every: int) -> dict[str, Any]:
    """Fields, HARP, time and measured quantities of every so many rows of the test split."""
    reader = ShardReader(Layout.current().shards(config.dataset), splits=("test",))
    rows = reader.rows[::every]
    table = reader.records.take(rows)
    fields = torch.from_numpy(reader.images(rows))
    pixel = torch.from_numpy(reader.pixel_cm[rows])
    found = measure(fields, pixel, names=tuple(QUANTITIES.values()))
    return {
        "fields": fields, "harp": np.array(table["harpnum"]), "time": np.array(table["t_rec"]),
        "channels": reader.info.channels,
        "values": {name: found[key].numpy() for name, key in QUANTITIES.items()},
    }  # fmt: skip


def untrained(like: FieldEncoder, config: Config, fields: torch.Tensor) -> FieldEncoder:
    """Random weights, batch norm calibrated on the data: all but the learning."""
    torch.manual_seed(0)
    card, ssl = like.card, config.ssl
    network = make_backbone(card.backbone, len(card.channels), card.resolution, ssl.width, ssl.dim)
    network.train()
    with torch.no_grad():
        for part in fields.split(64):
            network(encode(part, ssl.normalize))
    return FieldEncoder(card, network.eval(), torch.device("cpu"), like.ways)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--kimg", type=float, default=60.0)
    parser.add_argument("--every", type=int, default=1, help="judge every so many test tiles")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    base = load_config(options.config, [*options.overrides, f"ssl.kimg={options.kimg:g}"])
    data = held_out_tiles(base, options.every)
    kinds: dict[str, Vectors] = {
        "pixels": lambda x: encode(x, base.ssl.normalize).flatten(1).numpy()
    }
    trained, encoder = {}, None
    for method in METHODS:
        ssl = dataclasses.replace(base.ssl, method=method)  # type: ignore[arg-type]
        config = dataclasses.replace(base, name=f"{base.name}_{method}", ssl=ssl)
        train_ssl(config)
        run = encoder_run(Layout.current(), config.name)
        rows = read_stats(run)
        trained[method] = {
            "loss": rows[-1]["loss"], "collapse": rows[-1]["collapse"],
            "collapse_highest": max(row["collapse"] for row in rows[1:]),
            "sec_per_kimg": float(np.median([row["sec_per_kimg"] for row in rows])),
        }  # fmt: skip
        for orbit in (False, True):
            encoder = FieldEncoder.load(run, orbit)
            if method == METHODS[0]:
                blank = untrained(encoder, config, data["fields"])
                kinds[f"untrained{', orbit' if orbit else ''}"] = blank.vectors
            kinds[f"{method}{', orbit' if orbit else ''}"] = encoder.vectors
    results = {name: judge(call, data) for name, call in kinds.items()}
    for name, row in results.items():
        print(f"{name:18s}", "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    about = {"tiles": len(data["harp"]), "harps": len(np.unique(data["harp"])),
             "kimg": options.kimg, "settings": {"batch": base.ssl.batch, "lr": base.ssl.lr,
                                                "width": base.ssl.width, "dim": base.ssl.dim},
             "training": trained, "vectors": results}  # fmt: skip
    if options.out:
        write(document("ssl_methods", about), options.out)


if __name__ == "__main__":
    main()
