"""All that the scorecard works on, and the retrievers that are compared on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sunpipe.evaluate.retrieval_archive import Archive, spread
from sunpipe.evaluate.retrieval_baselines import Keywords, unit_rows, vector_distances
from sunpipe.evaluate.retrieval_magnitudes import Magnitudes, invariant
from sunpipe.evaluate.retrieval_nearest import Askers, Nearest, scan
from sunpipe.evaluate.retrieval_sweep import PixelQueries, Way, pixel_rows, sweep
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.retrieval_settings import RetrievalSettings

if TYPE_CHECKING:
    from sunpipe.embed.encoder import FieldEncoder
    from sunpipe.shards.reader import ShardReader

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
PROBED = 64  # patches that tell what the symmetries leave of a quantity


@dataclass
class Bench:
    """The archive with everything that is known of its tiles.

    Attributes
    ----------
    metric : str
        ``cosine`` or ``euclidean``: of the index.
    view : NormalizeSettings
        The encoder's network range, in which pixels are compared.
    names : list of str
        Q quantities.
    values : float64 ndarray (N, Q)
    poll : callable
        May raise to end the work.
    keywords, magnitudes : Keywords or None
        Fitted on the archive: of all quantities, and of what the encoder's symmetries
        leave of them; None where there are no quantities, or no symmetries.
    folded : Magnitudes or None
        What the symmetries leave.
    """

    archive: Archive
    reader: ShardReader
    encoder: FieldEncoder
    metric: str
    view: NormalizeSettings
    names: list[str]
    values: Floats
    settings: RetrievalSettings
    seed: int
    poll: Callable[[], None]
    keywords: Keywords | None = field(init=False)
    magnitudes: Keywords | None = field(init=False)
    folded: Magnitudes | None = field(init=False)
    waiting: list[PixelQueries] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.keywords = Keywords.fit(self.values, self.names) if self.names else None
        self.magnitudes, self.folded = None, None
        if self.names and (symmetries := self.encoder.card.symmetries):
            probe = spread(len(self.archive), PROBED)
            rows = self.archive.rows[probe]
            self.folded = invariant(self.reader.images(rows), self.reader.pixel_cm[rows],
                                    self.reader.info.channels, self.names, symmetries)  # fmt: skip
            self.magnitudes = Keywords.fit(self.folded(self.values), self.folded.names)

    def fresh(self, asked: Askers, allowed: Bools | None = None) -> Nearest:
        """An empty table of nearest tiles for some queries."""
        return Nearest(self.archive, asked, self.settings.exclude_hours, allowed)

    def by_vector(self, asked: Askers, vectors: Floats32, allowed: Bools | None = None) -> Nearest:
        """Nearest by the embedding."""
        query, tiles = unit_rows(vectors, self.metric), self.archive.vectors

        def far(rows: slice) -> Floats32:
            self.poll()
            return vector_distances(query, unit_rows(tiles[rows], self.metric), self.metric)

        return scan(self.fresh(asked, allowed), far)

    def by_keywords(self, asked: Askers, known: Keywords, mine: Floats, tiles: Floats) -> Nearest:
        """Nearest by measured quantities of the queries (Q, P) and of the archive (N, P)."""
        query, scores = known.scores(mine), known.scores(tiles)

        def far(rows: slice) -> Floats32:
            self.poll()
            return known.distances(query, scores[rows])

        return scan(self.fresh(asked), far)

    def by_chance(self, asked: Askers) -> Nearest:
        """A random order of all tiles for each query."""
        deal = np.random.default_rng(self.seed)

        def far(rows: slice) -> Floats32:
            return deal.random((len(asked), rows.stop - rows.start), dtype=np.float32)

        return scan(self.fresh(asked), far)

    def ask_pixels(
        self, asked: Askers, rows: Floats32, ways: Sequence[Way] = ((),),
        allowed: Bools | None = None,
    ) -> Nearest:  # fmt: skip
        """Nearest by pixel rows (Q, pixels), of all ways in which a tile may be turned.

        Filled when `compare_pixels` runs, for all who ask at once.
        """
        found = self.fresh(asked, allowed)
        self.waiting.append(PixelQueries(found, rows, ways))
        return found

    def compare_pixels(self) -> None:
        """Read the archive once and answer all that was asked by pixels."""
        waiting, self.waiting = self.waiting, []
        sweep(self.archive, self.reader, self.view, waiting, self.poll)

    def images(self, positions: Ints) -> Floats32:
        """Fields (M, C, H, W) of tiles of the archive, physical units."""
        return self.reader.images(self.archive.rows[positions])

    def pixel_rows(self, positions: Ints) -> Floats32:
        """Tiles of the archive as pixel rows (M, pixels)."""
        return pixel_rows(lambda rows: self.images(positions[rows]), len(positions), self.view)

    def retrievers(
        self, asked: Askers, vectors: Floats32, values: Floats, plain: Floats32
    ) -> dict[str, Nearest]:
        """All retrievers for the same queries; pixels wait for `compare_pixels`."""
        found = {
            "embedding": self.by_vector(asked, vectors),
            "pixels": self.ask_pixels(asked, plain),
        }
        if self.keywords is not None:
            found["keywords"] = self.by_keywords(asked, self.keywords, values, self.values)
        if self.magnitudes is not None and self.folded is not None:
            found["magnitudes"] = self.by_keywords(
                asked, self.magnitudes, self.folded(values), self.folded(self.values)
            )
        return {**found, "chance": self.by_chance(asked)}
