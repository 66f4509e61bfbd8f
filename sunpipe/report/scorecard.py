"""The scorecard of the search (``evaluations/<name>/retrieval.json``), beside its baselines."""

from __future__ import annotations

from typing import Any

from sunpipe.errors import DataError
from sunpipe.files import read_json
from sunpipe.report.section import Section, section
from sunpipe.report.sources import Found, Sources

STAGE = "evaluate retrieval"
WORDS = {"embedding": "this search", "pixels": "pixels", "keywords": "keywords",
         "magnitudes": "keywords without signs", "chance": "chance"}  # fmt: skip
FIRST = ("USFLUX", "TOTUSJH", "MEANGAM", "MEANSHR", "R_VALUE", "NETFLUX", "POLSEP", "TILT")
Row = dict[str, Any]


def interval(score: Any) -> Row | None:
    """A score with its 95 % interval, where there is one."""
    if not isinstance(score, dict) or not isinstance(score.get("value"), int | float):
        return None
    return {key: score.get(key) for key in ("value", "low", "high", "n", "clusters")}


def regions(card: dict[str, Any]) -> list[Row]:
    """Whether the active region of a held-out tile is found again, by each way of searching."""
    k = card["k"]
    return [
        {"name": WORDS.get(name, name), "own": name == "embedding",
         "scores": [interval(scores.get(key)) for key in
                    ("recall_1", f"recall_{k}", "mean_rank")]}
        for name, scores in card["same_region"].items()
    ]  # fmt: skip


def physics(card: dict[str, Any]) -> tuple[list[str], list[Row]]:
    """Spearman's coefficient between query and best answer of another HARP, by quantity.

    Returns
    -------
    ways : list of str
        Ways of searching, as keys.
    rows : list of dict
        ``name`` and ``scores``, one for each of `ways`.
    """
    table = card["physics"]["other_harp"]
    ways = [way for way in WORDS if way in table]
    names = [name for name in FIRST if name in table["embedding"]]
    names += [name for name in table["embedding"] if name not in names]
    rows = [{"name": name, "scores": [interval(table[way].get(name, {}).get("spearman"))
                                      for way in ways]} for name in names]  # fmt: skip
    return ways, rows


def copies(card: dict[str, Any]) -> Row | None:
    """Whether generated patches are copies of training tiles."""
    about, made = card.get("memorisation"), card.get("generated", {})
    if not isinstance(about, dict) or "generated_copies" not in about:
        return None
    return {"run": made.get("run"), "kimg": made.get("kimg"),
            "generated": interval(about["generated_copies"]),
            "held_out": interval(about.get("held_out_copies")),
            "tiles": about.get("train_tiles")}  # fmt: skip


def extract(card: Any) -> Row:
    """What the page shows of a scorecard.

    Raises
    ------
    DataError
        It is not one.
    """
    try:
        ways, rows = physics(card)
        index, (harps, tiles) = card["index"], (card["queries"][key] for key in ("groups", "tiles"))
        recall = next((index[key] for key in index if key.startswith("recall_")), None)
        return {
            "k": int(card["k"]), "unit": str(card["unit"]), "queries": int(tiles),
            "groups": int(harps), "split": str(card["queries"]["split"]),
            "archive": {key: int(card["archive"][key]) for key in ("tiles", "groups", "records")},
            "encoder": str(card["encoder"]["run"]), "digest": str(card["encoder"]["digest"]),
            "metric": str(card["metric"]), "hours": float(card["exclude_hours"]),
            "regions": regions(card), "ways": [WORDS[way] for way in ways], "physics": rows[:8],
            "all_physics": rows[8:], "recall": recall if isinstance(recall, int | float) else None,
            "copies": copies(card),
        }  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"retrieval.json is not a scorecard ({error!r})") from None


def read(sources: Sources) -> Found[Row]:
    """The scorecard of this experiment, when it is of the encoder that is there now."""
    path = sources.layout.evaluations(sources.cfg.name) / "retrieval.json"
    if not path.is_file():
        before = () if sources.index.value is not None else sources.index.stages
        return Found(None, "missing", "not made yet", (*before, STAGE))
    try:
        found = extract(read_json(path))
    except DataError as error:
        return Found(None, "broken", str(error), (STAGE,))
    encoder = sources.encoder
    if encoder.value is None:
        return encoder.blocked("the encoder", STAGE)
    if encoder.value != found["digest"]:
        return Found(None, "stale", f"made with encoder {found['digest'][:12]}, this one is"
                                    f" {encoder.value[:12]}", (STAGE,))  # fmt: skip
    return Found(found, "current")


def scorecard(sources: Sources) -> Section:
    """How good the search is, with intervals."""
    found = read(sources)
    return section("scorecard", "Scorecard of the search", sources, (found,),
                   lambda: found.value)  # type: ignore[arg-type, return-value]  # fmt: skip
