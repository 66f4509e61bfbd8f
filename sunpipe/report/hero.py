"""The wide picture: real data, generated patches, a direction walked, a match found."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.plots import INK, new_figure, show_field
from sunpipe.report import numbers
from sunpipe.report.compare import Comparison, spread_rows
from sunpipe.report.pictures import colour_limit
from sunpipe.report.retrieval import shown_queries
from sunpipe.report.sources import Sources
from sunpipe.report.walked import scores, strip
from sunpipe.stage import log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT, DPI = 1600, 560, 100  # pixels
TOP, SIDE, GAP = 92, 138, 6  # first row, tile, space between tiles
MARGIN, SPACE = 24, 40  # outside, between panels
COLUMNS, ROWS = 2, 3  # tiles of a block
MATCH, MATCH_PANEL = 172, 238  # tile and width of the last panel
SOFT = "#667080"
STEPS, REACH = 5, 2.0  # images of the walk, standard deviations to either side


class Canvas:
    """A figure addressed in pixels from the top left."""

    def __init__(self) -> None:
        self.figure: Figure = new_figure(WIDTH / DPI, HEIGHT / DPI)
        self.figure.set_layout_engine("none")

    def field(self, field: NDArray[Any], x: float, y: float, side: float, limit: float) -> None:
        """Draw one patch with its corner at (x, y)."""
        where = (x / WIDTH, 1 - (y + side) / HEIGHT, side / WIDTH, side / HEIGHT)
        axes = self.figure.add_axes(where)
        show_field(axes, field, limit)
        for spine in axes.spines.values():
            spine.set_edgecolor("#c5cad1")

    def text(self, x: float, y: float, text: str, size: float = 16, **more: Any) -> None:
        """Write `text` with its top at y; `size` in pixels."""
        more = {"color": INK, "va": "top", "ha": "left", "parse_math": False, **more}
        self.figure.text(x / WIDTH, 1 - y / HEIGHT, text, fontsize=size * 72 / DPI, **more)

    def title(self, x: float, number: int, title: str, under: str) -> None:
        """Heading of one panel."""
        self.text(x, 20, f"{number}  {title}", 27, fontweight="bold")
        self.text(x, 56, under, 18, color=SOFT)


def tiles(canvas: Canvas, fields: NDArray[Any], x: float, limit: float) -> None:
    """A block of patches, row by row."""
    for number, field in enumerate(fields):
        row, column = divmod(number, COLUMNS)
        canvas.field(field, x + column * (SIDE + GAP), TOP + row * (SIDE + GAP), SIDE, limit)


def waiting(canvas: Canvas, x: float, command: str) -> None:
    """What stands in a panel that has no data yet."""
    canvas.text(x, TOP + 10, "not made yet:\n" + command, 18, color=SOFT, linespacing=1.6)


def shown_steps(steps: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of at most `STEPS` steps, within `REACH` of the middle where there are enough."""
    near = np.flatnonzero(np.abs(steps) <= REACH)
    places = near if len(near) >= min(STEPS, len(steps)) else np.arange(len(steps))
    return places[np.linspace(0, len(places) - 1, min(STEPS, len(places))).round().astype(int)]


def walk_panel(canvas: Canvas, sources: Sources, x: float, width: float) -> None:
    """Two bases walked along the best direction, each image with its measured value."""
    found = sources.directions.value
    canvas.title(x, 3, "a direction walked", "fixed noise, one direction in w, each patch measured")
    if found is None:
        waiting(canvas, x, "sunpipe directions fit")
        return
    name = scores(found, found.leakage())[0]["name"]
    strips = [each for base in (0, 1) if (each := strip(found, name, base)) is not None]
    if not strips:
        return
    places = shown_steps(strips[0]["steps"])
    side = (width - GAP * (len(places) - 1)) / len(places)
    limits = [colour_limit([each["raw"][places]]) for each in strips]
    shown = np.concatenate([each["values"][places] for each in strips])
    factor, label = numbers.axis_scale(shown, strips[0]["unit"])
    for row, each in enumerate(strips):
        y = TOP + row * (side + 88)
        for column, place in enumerate(places):
            left = x + column * (side + GAP)
            canvas.field(each["raw"][place], left, y, side, limits[row])
            value = numbers.fixed(each["values"][place] / factor, 2)
            canvas.text(left + side / 2, y + side + 6, value, 20, ha="center", fontweight="bold")
            step = f"{each['steps'][place]:+g} σ".replace("-", numbers.MINUS).replace("+0 ", "0 ")
            canvas.text(left + side / 2, y + side + 32, step, 17, ha="center", color=SOFT)
    bottom = TOP + len(strips) * (side + 88) - 22
    scale = ", ".join(f"±{limit:g} G" for limit in limits)
    canvas.text(x, bottom, f"{name} in {label}", 19)
    canvas.text(x + width, bottom, f"colours by row: {scale}", 18, ha="right", color=SOFT)


def match_panel(canvas: Canvas, sources: Sources, x: float, side: float) -> None:
    """The median query by distance, and the observation nearest to it."""
    from sunpipe.embed.searches import read_hits, read_queries

    canvas.title(x, 4, "a match found", "nearest real observation")
    search, reader = sources.search.value, sources.dataset.value
    folder = sources.layout.searches(sources.cfg.name)
    hits = read_hits(folder).to_pylist() if search is not None else []
    queries = shown_queries(hits, 3)
    if reader is None or not queries:
        waiting(canvas, x, "sunpipe search")
        return
    query = queries[len(queries) // 2]
    hit = next(row for row in hits if row["query"] == query and row["rank"] == 1)
    asked = read_queries(folder)[0][query, 0]
    answer = reader.images([hit["row"]])[0, 0]
    limit = colour_limit([asked, answer])
    canvas.field(asked, x, TOP, side, limit)
    canvas.field(answer, x, TOP + side + 34, side, limit)
    canvas.text(x, TOP + side + 5, "generated query  ↓  match", 18, color=SOFT)
    series, _, keys = hit["record"].partition("][")
    lines = (series + "]", "[" + keys) if keys else (series,)
    for number, line in enumerate(lines):
        canvas.text(x, TOP + 2 * side + 44 + 22 * number, line[:28], 15.5, family="monospace")
    canvas.text(x, TOP + 2 * side + 44 + 22 * len(lines), "paste it into JSOC", 17, color=SOFT)


def real_panel(canvas: Canvas, sources: Sources, compared: Comparison | None, x: float) -> None:
    """Real patches, evenly spaced over the dataset."""
    canvas.title(x, 1, "real data", "SDO/HMI vector field, Br")
    reader = sources.dataset.value
    if compared is not None:
        limit, real = compared.limit, compared.real_shown(COLUMNS * ROWS)[:, 0]
    elif reader is not None:
        real = reader.images(spread_rows(reader, None, COLUMNS * ROWS))[:, 0]
        limit = colour_limit([real])
    else:
        waiting(canvas, x, "sunpipe shard")
        return
    tiles(canvas, real, x, limit)
    under = f"Br, blue {numbers.MINUS}{limit:g} G to red +{limit:g} G"
    canvas.text(x, TOP + ROWS * (SIDE + GAP) + 6, under, 18, color=SOFT)


def generated_panel(canvas: Canvas, compared: Comparison | None, x: float) -> None:
    """The first generated patches, on the colours of the real ones."""
    canvas.title(x, 2, "generated", "StyleGAN2, in gauss")
    if compared is None:
        waiting(canvas, x, "sunpipe sample")
        return
    tiles(canvas, compared.generated[: COLUMNS * ROWS, 0], x, compared.limit)
    under = "first samples, not selected"
    canvas.text(x, TOP + ROWS * (SIDE + GAP) + 6, under, 18, color=SOFT)


def draw(sources: Sources, compared: Comparison | None) -> Figure:
    """The whole picture, `WIDTH` x `HEIGHT` pixels; panels without data name their command."""
    canvas = Canvas()
    block = COLUMNS * (SIDE + GAP) - GAP
    second = MARGIN + block + SPACE
    third = second + block + SPACE
    fourth = WIDTH - MARGIN - MATCH_PANEL
    panels: tuple[Callable[[], None], ...] = (
        lambda: real_panel(canvas, sources, compared, MARGIN),
        lambda: generated_panel(canvas, compared, second),
        lambda: walk_panel(canvas, sources, third, fourth - third - SPACE),
        lambda: match_panel(canvas, sources, fourth, MATCH),
    )
    for panel in panels:
        try:
            panel()
        except DataError as error:
            log(f"report: a panel of the picture stays empty: {error}")
    return canvas.figure
