"""The scorecard as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEASURES = {"distance": "distance", "ratio": "ratio to the next HARPs",
            "residual": "residual of its contrast"}  # fmt: skip
WIDE = "{:<12} {:<9} {:>22} {:>22} {:>9} {:>11} {:>13} {:>9}"
REGION = "{:<16} {:>22} {:>22} {:>22}"
COPIES = "{:<36} {:>22} {:>22}"
MADE = "{:<12} {:<9} {:>22} {:>22} {:>11} {:>11}"


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if value is None else f"{value:.3g}"


def decimals(value: float | None, digits: int = 2) -> str:
    """So many decimals, or a dash; never ``-0.00``."""
    return "-" if value is None else f"{value:z.{digits}f}"


def score(row: Mapping[str, Any] | None, digits: int = 2) -> str:
    """A value with its interval."""
    if row is None or row["low"] is None:
        return plain(row, digits)
    ends = f"[{decimals(row['low'], digits)}, {decimals(row['high'], digits)}]"
    return f"{plain(row, digits)} {ends}"


def plain(row: Mapping[str, Any] | None, digits: int = 2) -> str:
    """A value without its interval."""
    return "-" if row is None else decimals(row["value"], digits)


def _region(result: Mapping[str, Any]) -> list[str]:
    k, unit, rows = result["k"], result["unit"], result["same_region"]
    first = rows["embedding"]["mean_rank"]
    recalls = [f"recall_{limit}" for limit in sorted({1, k})]
    if not first["n"]:
        return [f"The same {unit} again: no query has its {unit} at another time, at least"
                f" {result['exclude_hours']:g} h away"]  # fmt: skip
    lines = [
        f"The same {unit} again, {result['exclude_hours']:g} h away or more, among"
        f" {result['archive']['groups']}: {first['n']} queries of {first['clusters']} {unit}s",
        REGION.format("", f"recall@{1}", f"recall@{k}" if k > 1 else "", "mean rank"),
    ]
    for name, row in rows.items():
        cells = [score(row[recall]) for recall in recalls]
        lines.append(REGION.format(name, *cells, *[""] * (2 - len(cells)),
                                   score(row["mean_rank"], 1)))  # fmt: skip
    return lines


def _physics(result: Mapping[str, Any]) -> list[str]:
    rows, units = result["physics"]["other_harp"], result["units"]
    lines = [
        f"Physics of the best match, the query's {result['unit']} left out",
        WIDE.format("", "", "embedding Pearson", "embedding Spearman", "pixels S", "keywords S",
                    "magnitudes S", "chance S"),
    ]  # fmt: skip
    for name in rows["embedding"]:
        mine = rows["embedding"][name]
        beside = [rows[other][name] if other in rows else None
                  for other in ("pixels", "keywords", "magnitudes", "chance")]  # fmt: skip
        lines.append(WIDE.format(
            name, units[name], score(mine["pearson"]), score(mine["spearman"]),
            *(plain(row and row["spearman"]) for row in beside),
        ))  # fmt: skip
    if "magnitudes" in rows:
        lines.append("magnitudes: keywords without what the encoder's symmetries change")
    return lines


def _invariance(result: Mapping[str, Any]) -> list[str]:
    rows, k = result["invariance"]["symmetries"], result["k"]
    lines = [f"The query turned: {result['invariance']['queries']} queries",
             REGION.format("", "vector moves by", "same best tile",
                           f"of the {k} best stay")]  # fmt: skip
    for name, row in rows.items():
        lines.append(REGION.format(name, f"{row['moved']:.1e}", score(row["top_1"]),
                                   score(row[f"top_{k}"])))  # fmt: skip
    return lines


def _generated(result: Mapping[str, Any]) -> list[str]:
    found = result["generated"]
    if "left_out" in found:
        return [f"Generated queries: {found['left_out']}"]
    rows, units = found["physics"], result["units"]
    lines = [
        f"Generated queries: {found['patches']} of {found['run']} at {found['kimg']:g} kimg",
        MADE.format("", "", "embedding Pearson", "embedding Spearman", "shuffled S", "pixels S"),
    ]
    for name, row in rows["embedding"].items():
        lines.append(MADE.format(
            name, units[name], score(row["pearson"]), score(row["spearman"]),
            decimals(row["spearman_shuffled"]),
            plain(rows["pixels"][name]["spearman"]),
        ))  # fmt: skip
    return lines


def _copies(result: Mapping[str, Any]) -> list[str]:
    found = result["memorisation"]
    if "left_out" in found:
        return [f"Copies? {found['left_out']}"]
    lines = [
        f"Copies? Nearest of {found['train_tiles']} training tiles, of another {result['unit']};"
        " share nearer than 1 % of training tiles are to each other",
        COPIES.format("", "generated", "held out"),
    ]
    for space in ("embedding", "pixels"):
        for what, text in MEASURES.items():
            if what not in found[space]:
                continue
            row = found[space][what]
            lines.append(COPIES.format(f"{space}: {text}", score(row["generated_below"], 3),
                                       score(row.get("held_out_below"), 3)))  # fmt: skip
    lines.append(COPIES.format("copies: by both ratios and residual",
                               score(found["generated_copies"], 3),
                               score(found.get("held_out_copies"), 3)))  # fmt: skip
    medians = found["pixels"]["distance"]
    lines.append(
        "median distance in pixels: generated "
        f"{number(medians['generated_median'])}, held out {number(medians.get('held_out_median'))},"
        f" train to train {number(medians['train_median'])}"
    )
    return lines


def render(result: Mapping[str, Any]) -> str:
    """The scorecard as text; values with 95 % intervals over HARPs (generated: over samples)."""
    archive, queries = result["archive"], result["queries"]
    part = "" if archive["tiles"] == archive["of"] else f" (of {archive['of']}, evenly spread)"
    head = (
        f"{result['name']}: {queries['tiles']} tiles of {queries['groups']} {result['unit']}s"
        f" ({queries['split']}) ask {archive['tiles']} tiles{part} of {archive['records']} records,"
        f" {archive['groups']} {result['unit']}s\nencoder {result['encoder']['run']} at"
        f" {result['encoder']['kimg']:g} kimg, {result['metric']} distance; 95 % intervals over"
        f" {result['unit']}s"
    )
    index = result["index"]
    recall = f"Index: {index.get('left_out')}"
    if "left_out" not in index:
        key = next(name for name in index if name.startswith("recall_"))
        recall = (f"Index ({index['kind']}, {index['vectors']} vectors): recall@{key[7:]} against"
                  f" comparing all {index[key]:.4f}, worst query"
                  f" {index['worst_query']:.2f}")  # fmt: skip
    parts = [[head], _region(result), _physics(result), [recall], _invariance(result),
             _generated(result), _copies(result)]  # fmt: skip
    return "\n\n".join("\n".join(line.rstrip() for line in part) for part in parts if part)
