"""An answer as lines: a table for a terminal, plain columns for a pipe, CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from typing import Any

from sunpipe.index.answer import Answer, Hit
from sunpipe.index.fold import Fold

SHOWN = ("USFLUX", "TOTUSJH", "MEANGAM", "R_VALUE")  # keywords beside those that were asked for
UNITS = {
    "USFLUX": "Mx",
    "TOTUSJH": "G\u00b2/m",
    "MEANGAM": "deg",
    "TOTUSJZ": "A",
    "TOTPOT": "erg/cm",
}
MOST = 5  # keywords in a table
ELSEWHERE = ("record", "t_rec", "harpnum", "noaa_ars", "angle", "mu", "year")  # shown anyway
UNKNOWN = "-"
LAST = ("record", "#", "distance", "NOAA", "flare after", "flare before", "angle")  # to leave out
CSV_FIRST = ("rank", "distance", "record", "harpnum", "t_rec")  # of a hit, as they stand there
CSV_NEXT = ("split", "simulated", "mu", "angle")
GAP = 2  # blanks between columns


def number(value: Any, digits: int = 3) -> str:
    """A value for reading: ``2.71e22``, ``3330``, ``0.0213``; ``-`` where there is none."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    if 0 < int(exponent) < 6:
        return f"{value:.0f}"
    return f"{mantissa}e{int(exponent)}"


def with_unit(name: str, value: Any) -> str:
    """A keyword for reading, with its unit where it is one of the usual ones."""
    unit = UNITS.get(name, "")
    return f"{number(value)} {unit}" if unit and value is not None else number(value)


def keywords(answer: Answer) -> list[str]:
    """Keywords worth a column: those of the question, then the usual ones that some hit has."""
    have = {name for hit in answer.hits for name, value in hit["keywords"].items()
            if value is not None}  # fmt: skip
    asked = [name for name in answer.named if name in have and name not in ELSEWHERE]
    return list(dict.fromkeys([*asked, *(name for name in SHOWN if name in have)]))[:MOST]


def flared(side: dict[str, Any] | None) -> str:
    """Flares of one day: ``M1.3 (of 4)``, ``none`` or ``-`` for unknown."""
    if side is None:
        return UNKNOWN
    return f"{side['largest']} (of {side['count']})" if side["count"] > 1 else str(side["largest"])


def hidden(hit: Hit, short: bool = False) -> str:
    """What the fold of a hit hides: other records, or tiles where it is one record."""
    for kind in ("records", "tiles"):
        if count := hit["folded"][kind]:
            word = kind if count > 1 else kind[:-1]
            of = "HARP" if kind == "records" else "record"
            return f"+{count} {word}" if short else f"{count} more {word} of the same {of}"
    return ""


def rows(answer: Answer) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of a table."""
    shown = keywords(answer)
    far = any(hit["distance"] is not None for hit in answer.hits)
    head = ["#", *(["distance"] if far else []), "record", "tile", "NOAA", "angle", *shown,
            "flare before", "flare after", "also"]  # fmt: skip
    body = [
        [str(hit["rank"]), *([number(hit["distance"])] if far else []), hit["record"],
         f"{hit['tile'][0]},{hit['tile'][1]}", " ".join(map(str, hit["noaa"])) or UNKNOWN,
         number(hit["angle"], 2), *(number(hit["keywords"][name]) for name in shown),
         flared(hit["flares"]["before"]), flared(hit["flares"]["after"]), hidden(hit, short=True)]
        for hit in answer.hits
    ]  # fmt: skip
    return head, body


def plain(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Aligned columns, nothing cut."""
    lines = [list(head), *map(list, body)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def summary(answer: Answer, fold: Fold) -> str:
    """How many might have answered, and what counts as one answer."""
    count = answer.candidates
    per = {"harp": "one answer for each HARP", "record": "one answer for each record",
           "none": "every tile by itself"}[fold]  # fmt: skip
    records = f"{count['records']:,} of {count['records_in_index']:,} records"
    tiles = f"{count['tiles']:,} of {count['tiles_in_index']:,} tiles"
    return f"{records} ({tiles}) may answer; {per}"


def nothing(answer: Answer) -> list[str]:
    """Why there is no hit: what each condition would leave by itself."""
    lines = ["no observation in the index satisfies this:"]
    if not answer.conditions:
        lines = ["no observation in the index can answer"]
    width = max((len(one["condition"]) for one in answer.conditions), default=0)
    for one in answer.conditions:
        lines.append(f"  {one['condition'].ljust(width)}  alone leaves {one['records']:,} records"
                     f" ({one['tiles']:,} tiles)")  # fmt: skip
    if len(answer.conditions) > 1 and all(one["tiles"] for one in answer.conditions):
        lines.append("  each leaves some, no observation satisfies all")
    return lines


def _side(prefix: str, side: dict[str, Any] | None) -> dict[str, Any]:
    known = side or {"largest": None, "flux": None, "count": None, "flares": []}
    largest = max(known["flares"], key=lambda flare: flare["class"] == known["largest"],
                  default=None)  # fmt: skip
    return {f"flare_{prefix}24h": known["largest"], f"flare_flux_{prefix}24h": known["flux"],
            f"flares_{prefix}24h": known["count"],
            f"flare_peak_{prefix}24h": largest["peak"] if largest else None}  # fmt: skip


def _line(hit: Hit) -> dict[str, Any]:
    return {
        **{key: hit[key] for key in CSV_FIRST},
        "noaa": " ".join(map(str, hit["noaa"])) or None,
        **{key: hit[key] for key in CSV_NEXT},
        "tile_y": hit["tile"][0], "tile_x": hit["tile"][1], "row": hit["row"],
        "flux_mx": hit["flux_mx"], **_side("", hit["flares"]["after"]),
        **_side("before_", hit["flares"]["before"]),
        "also_records": hit["folded"]["records"], "also_tiles": hit["folded"]["tiles"],
        **hit["keywords"],
    }  # fmt: skip


def csv_text(answer: Answer) -> str:
    """All hits with all keywords, one line each; an empty cell where nothing is known.

    The first line names the columns, also when there is no hit.
    """
    head = [*CSV_FIRST, "noaa", *CSV_NEXT, "tile_y", "tile_x", "row", "flux_mx",
            *_side("", None), *_side("before_", None), "also_records", "also_tiles",
            *answer.keywords]  # fmt: skip
    text = io.StringIO()
    table = csv.DictWriter(text, head, lineterminator="\n")
    table.writeheader()
    table.writerows(_line(hit) for hit in answer.hits)
    return text.getvalue()


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def fitting(
    head: list[str], body: list[list[str]], width: int
) -> tuple[list[str], list[list[str]], list[str]]:
    """A table that fits a terminal: columns are left out whole, the record never.

    Returns
    -------
    head, body, list of str
        The last: what was left out.
    """
    sizes = dict(zip(head, _widths([head, *body]), strict=True))
    keep, gone = list(head), []
    spare = [name for name in head if name not in LAST]
    for name in ("tile", "also", *reversed(spare), *reversed(LAST[1:])):
        if sum(sizes[one] + GAP for one in keep) - GAP <= width:
            break
        if name in keep:
            keep.remove(name)
            gone.append(name)
    places = [head.index(name) for name in keep]
    return keep, [[line[place] for place in places] for line in body], gone


def show(answer: Answer, fold: Fold) -> None:
    """Print an answer: a table on a terminal, plain columns elsewhere."""
    if not answer.hits:
        print("\n".join(nothing(answer)))
        return
    head, body = rows(answer)
    if not sys.stdout.isatty():
        print(plain(head, body))
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        width = Console().width
        head, body, gone = fitting(head, body, width)
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0))
        left = {"record", "NOAA", "flare before", "flare after", "also"}
        for name in head:
            table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
        for line in body:
            table.add_row(*(Text(cell) for cell in line))
        # A record string that is cut cannot be pasted: the terminal wraps it instead.
        whole = sum(_widths([head, *body])) + GAP * len(head)
        Console(width=max(width, whole)).print(table)
        if gone:
            print(f"no room for {', '.join(gone)}: --csv and --json have everything")
    print(summary(answer, fold))
