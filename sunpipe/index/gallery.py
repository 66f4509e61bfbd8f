"""``--html FILE``: an answer as one page that needs nothing but itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sunpipe.errors import DataError
from sunpipe.files import write_text
from sunpipe.index import text, thumbnails
from sunpipe.index.answer import Answer, Hit
from sunpipe.index.datasets import Datasets
from sunpipe.index.fold import Fold
from sunpipe.index.search import Query
from sunpipe.index.store import Index
from sunpipe.provenance import now

Json = dict[str, Any]


def pictures(index: Index, answer: Answer, query: Query | None) -> Json:
    """Thumbnails of the question and of every hit on one colour scale.

    Returns
    -------
    dict
        ``hits`` (a picture or None for each), ``query`` (or None), ``bar`` (None without
        pictures), ``why`` (why there are none; empty when there are).
    """
    info = index.info.dataset
    found: list[thumbnails.Patch | None] = [None] * len(answer.hits)
    asked = query.picture if query is not None else None
    why, datasets = "", Datasets(index)
    try:
        found = [thumbnails.patch(datasets, hit["record"], hit["tile"]) for hit in answer.hits]
        if query is not None and query.about["kind"] == "record":
            asked = thumbnails.patch(datasets, str(query.record)).image
    except DataError as error:
        why = str(error)
    finally:
        datasets.close()
    asked = thumbnails.blocks(asked) if asked is not None else None
    images = [one.image for one in found if one is not None]
    images += [asked] if asked is not None else []
    channels, units = info.get("channels", ["Br"]), info.get("units", ["G"])
    field = thumbnails.is_field(units, channels)
    limit = thumbnails.colour_limit(images)

    def shown(image: Any, box: Any) -> Json | None:
        if image is None:
            return None
        height, width = image.shape
        return {"src": thumbnails.data_uri(image, limit, field), "box": box, "width": width,
                "height": height}  # fmt: skip

    channel = thumbnails.shown_channel(channels)
    bar = {**thumbnails.colour_bar(limit, field), "channel": channels[channel],
           "unit": "G" if field else units[channel]}  # fmt: skip
    return {
        "hits": [shown(one.image, one.box) if one is not None else None for one in found],
        "query": shown(asked, None), "bar": bar if images else None, "why": why,
    }  # fmt: skip


def question(answer: Answer) -> list[tuple[str, str]]:
    """What was asked, as pairs of words."""
    about = answer.about
    pairs = {
        "record": ("near to", about.get("record")),
        "fits": ("near to", about.get("record")),
        "seed": ("near to", f"seed {about.get('seed')} of generator {about.get('run')}"),
        "latent": ("near to", f"{about.get('file')} in generator {about.get('run')}"),
        "like": ("near to", ", ".join(f"{name} {text.number(value)}"
                                      for name, value in about.get("wanted", {}).items())),
        "numbers": ("in the order of", about.get("order")),
    }  # fmt: skip
    word, value = pairs.get(about["kind"], ("asked by", about["kind"]))
    return [(word, str(value)), *(("where", one["condition"]) for one in answer.conditions)]


def card(hit: Hit, picture: Json | None, shown: list[str]) -> Json:
    """What the page says of one hit."""
    return {
        **hit, "picture": picture, "also": text.hidden(hit),
        "distance": text.number(hit["distance"]) if hit["distance"] is not None else None,
        "angle": text.number(hit["angle"], 2) if hit["angle"] is not None else None,
        "mu": text.number(hit["mu"], 2),
        "numbers": [(name, text.with_unit(name, hit["keywords"][name])) for name in shown],
        "sides": [(label, hit["flares"][side], text.flared(hit["flares"][side]))
                  for label, side in (("24 h before", "before"), ("24 h after", "after"))],
    }  # fmt: skip


def page(index: Index, answer: Answer, fold: Fold, drawn: Json) -> str:
    """The page. Every string of the data is escaped by the template engine.

    Parameters
    ----------
    drawn : dict
        Of `pictures`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sunpipe", "index"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["number"] = text.number
    shown = text.keywords(answer)
    return environment.get_template("gallery.html").render(
        dataset=index.info.dataset["name"], encoder=index.info.encoder["run"], made=now(),
        question=question(answer), picture=drawn["query"], bar=drawn["bar"], why=drawn["why"],
        cards=[card(hit, one, shown) for hit, one in zip(answer.hits, drawn["hits"], strict=True)],
        nothing=text.nothing(answer)[0], conditions=answer.conditions,
        summary=text.summary(answer, fold),
    )  # fmt: skip


def write_gallery(
    path: Path, index: Index, answer: Answer, fold: Fold, query: Query | None = None
) -> str:
    """Write the page; returns why it has no pictures, empty when it has them."""
    drawn = pictures(index, answer, query)
    write_text(path, page(index, answer, fold, drawn))
    return str(drawn["why"])
