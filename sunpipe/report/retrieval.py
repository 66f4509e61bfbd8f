"""Search results: generated patches and the observations nearest to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sunpipe.report import numbers
from sunpipe.report.charts import scatter
from sunpipe.report.pictures import colour_limit, gradient, tile
from sunpipe.report.section import Section, section
from sunpipe.report.sources import Sources

if TYPE_CHECKING:
    from sunpipe.embed.searches import Search
    from sunpipe.index.store import Index
    from sunpipe.shards.reader import ShardReader

SHOWN = 6  # queries
MATCHES = 2  # of each
LISTED = ("USFLUX", "MEANGAM", "TOTUSJH")  # quantities under a picture
PLOTTED = ("USFLUX", "TOTUSJH", "MEANGAM")
HELD_OUT = 6  # records looked up
TOP_RECORDS = 10
WORDS = {"flip_horizontal": "mirrors", "flip_vertical": "mirrors", "rotate90": "quarter turns",
         "reverse_polarity": "polarity"}  # fmt: skip


def listed(row: dict[str, Any], side: str, search: Search) -> list[str]:
    """Quantities of one side of a hit as text."""
    return [
        f"{name} {numbers.with_unit(row[f'{side}_{name}'], search.quantities[name]['unit'])}"
        for name in LISTED if f"{side}_{name}" in row
    ]  # fmt: skip


def shown_queries(hits: list[dict[str, Any]], count: int) -> list[int]:
    """Queries from the nearest to the farthest best match, evenly spaced in rank."""
    first = sorted((row["distance"], row["query"]) for row in hits if row["rank"] == 1)
    if not first:
        return []
    places = np.linspace(0, len(first) - 1, min(count, len(first))).round().astype(int)
    return [first[place][1] for place in places]


def pairs(
    search: Search, hits: list[dict[str, Any]], fields: Any, reader: ShardReader
) -> dict[str, Any]:
    """Queries beside their matches, all on one colour scale."""
    by_query: dict[int, list[dict[str, Any]]] = {}
    for row in sorted(hits, key=lambda row: (row["query"], row["rank"])):
        by_query.setdefault(row["query"], []).append(row)
    chosen = shown_queries(hits, SHOWN)
    matches = {query: by_query[query][:MATCHES] for query in chosen}
    images = {query: reader.images([row["row"] for row in rows])[:, 0]
              for query, rows in matches.items()}  # fmt: skip
    every = [fields[query, 0] for query in chosen] + list(images.values())
    limit = colour_limit(every)
    name = search.channels[0]
    rows = [
        {
            "query": tile(fields[query, 0], limit, f"{name} of generated patch {query}",
                          number=query, listed=listed(matches[query][0], "query", search)),
            "matches": [
                tile(image, limit, f"{name} of {row['record']}", record=row["record"],
                     distance=numbers.number(row["distance"], 2), split=row["split"],
                     corner=(row["tile_x"], row["tile_y"]), listed=listed(row, "match", search))
                for row, image in zip(matches[query], images[query], strict=True)
            ],
        }
        for query in chosen
    ]  # fmt: skip
    return {"pairs": rows, "limit": limit, "gradient": gradient(), "channel": name}


def beats_control(found: dict[str, Any], kind: str = "pearson") -> bool:
    """Whether a correlation is beyond the 95th percentile of the shuffled ones."""
    value, control = found[kind], found[f"{kind}_shuffled_p95"]
    return value is not None and control is not None and value > control


def charts(search: Search, hits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Query against best match of some quantities."""
    first = [row for row in hits if row["rank"] == 1]
    plotted = []
    for name in PLOTTED:
        about = search.quantities.get(name)
        if about is None or not first:
            continue
        x, y = (np.array([row[f"{side}_{name}"] for row in first], float)
                for side in ("query", "match"))  # fmt: skip
        both = np.isfinite(x) & np.isfinite(y)
        if not both.any():
            continue
        x, y = x[both], y[both]
        factor, label = numbers.axis_scale(np.concatenate([x, y]), about["unit"])
        plotted.append({
            "svg": scatter(f"scatter-{name}", x / factor, y / factor,
                           f"generated {name} ({label})", f"nearest real {name} ({label})"),
            "name": name, "better": beats_control(about, "spearman"), **about,
        })  # fmt: skip
    return plotted


def held_out(index: Index) -> list[dict[str, Any]]:
    """Ask with held-out records that have a sibling of the same HARP in the index.

    The record itself may not answer. One row per record: its record string, the
    first answer, whether it is the same HARP, and the first answer of another one.
    """
    from sunpipe.index.search import record_query, search

    table = index.table.select(["record", "harpnum", "split"]).to_pylist()
    harps: dict[int, list[str]] = {}
    for row in table:
        if row["split"] == "test" and row["record"] not in harps.setdefault(row["harpnum"], []):
            harps[row["harpnum"]].append(row["record"])
    asked = [(harp, record) for harp, records in sorted(harps.items()) if len(records) > 1
             for record in records]  # fmt: skip
    rows = []
    for harp, record in asked[:HELD_OUT]:
        answers = search(index, record_query(index, record), 10)
        other = next((hit for hit in answers if hit["harpnum"] != harp), None)
        if answers:
            rows.append({
                "record": record, "harpnum": harp, "answer": answers[0]["record"],
                "distance": answers[0]["distance"], "found": answers[0]["harpnum"] == harp,
                "other": other["harpnum"] if other else None,
                "other_distance": other["distance"] if other else None,
                "candidates": len({row["record"] for row in table} - {record}),
            })  # fmt: skip
    return rows


def ignored(sources: Sources) -> str:
    """What the encoder was trained not to see, in words; empty when its run does not say."""
    run = sources.ssl_run.value
    named = run.config.get("ssl", {}).get("symmetries", []) if run is not None else []
    return ", ".join(dict.fromkeys(WORDS.get(name, str(name)) for name in named))


def build(search: Search, sources: Sources, known: list[dict[str, Any]]) -> dict[str, Any]:
    """What ``search.html`` shows."""
    from sunpipe.embed.searches import read_hits, read_queries

    folder = sources.layout.searches(sources.cfg.name)
    hits = read_hits(folder).to_pylist()
    fields, _ = read_queries(folder)
    reader, index = sources.dataset.value, sources.index.value
    assert reader is not None
    assert index is not None
    records = list(search.records.items())
    return {
        **pairs(search, hits, fields, reader), "charts": charts(search, hits),
        "queries": search.queries, "answered": search.answered, "indexed": index.info.count,
        "index_records": len(set(index.table["record"].to_pylist())),
        "metric": index.info.metric, "records": records[:TOP_RECORDS],
        "more_records": max(0, len(records) - TOP_RECORDS), "held_out": known,
        "ignored": ignored(sources), "quantities": search.quantities,
        "where": search.made_from["settings"].get("where"),
    }  # fmt: skip


def retrieval(sources: Sources, known: list[dict[str, Any]]) -> Section:
    """Search results."""
    found = sources.search
    needs = (found, sources.dataset)
    return section("search", "Search results", sources, needs,
                   lambda: build(found.value, sources, known))  # type: ignore[arg-type]  # fmt: skip
