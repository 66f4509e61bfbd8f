"""The numbers of the scorecard, put together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.evaluate.retrieval_bench import Bench
from sunpipe.evaluate.retrieval_measured import units
from sunpipe.evaluate.retrieval_nearest import Nearest
from sunpipe.evaluate.retrieval_scores import (
    like,
    magnitudes,
    physics,
    physics_shuffled,
    same_region,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PROTOCOLS = {"other_harp": True, "other_time": False}


def about(bench: Bench, split: str, chosen: Ints) -> dict[str, Any]:
    """What was compared."""
    archive, card = bench.archive, bench.encoder.card
    _, names = magnitudes(bench.values, bench.names)
    return {
        "encoder": {"run": card.run, "kimg": card.nimg / 1000, "orbit": card.orbit,
                    "digest": card.digest},
        "metric": bench.metric, "unit": archive.unit,
        "archive": {"tiles": len(archive), "of": archive.total, "groups": len(archive.names),
                    "records": len(set(archive.records))},
        "queries": {"split": split, "tiles": len(chosen),
                    "groups": len(np.unique(archive.group[chosen]))},
        "k": bench.settings.k, "exclude_hours": bench.settings.exclude_hours,
        "bootstrap": bench.settings.bootstrap, "units": units(names),
        "keywords_used": bench.keywords.names if bench.keywords else [],
        "magnitudes_used": bench.magnitudes.names if bench.magnitudes else [],
    }  # fmt: skip


def real_scores(bench: Bench, found: dict[str, Nearest], chosen: Ints) -> dict[str, Any]:
    """Same region and physics of real queries, for each retriever and protocol."""
    settings = bench.settings
    wide, names = magnitudes(bench.values, bench.names)
    result: dict[str, Any] = {
        "same_region": {name: same_region(table, settings.k, settings.bootstrap, bench.seed)
                        for name, table in found.items()},
        "physics": {},
    }  # fmt: skip
    for protocol, other in PROTOCOLS.items():
        result["physics"][protocol] = {
            name: physics(table, wide[chosen], wide, names, other, table.asked.group,
                          settings.bootstrap, bench.seed)
            for name, table in found.items()
        }  # fmt: skip
    return result


def generated_scores(bench: Bench, found: dict[str, Nearest], values: Floats) -> dict[str, Any]:
    """Physics of generated queries and their best real match, beside the same matches dealt."""
    wide, names = magnitudes(bench.values, bench.names)
    mine = like(values, bench.names, names)
    samples = np.arange(len(values))
    scores = {
        name: physics(table, mine, wide, names, False, samples, bench.settings.bootstrap,
                      bench.seed)
        for name, table in found.items()
        if name != "chance"  # the shuffled matches say what chance gives
    }  # fmt: skip
    for name, row in physics_shuffled(found["embedding"], mine, wide, names, bench.seed).items():
        scores["embedding"][name] |= row
    return {"physics": scores}
