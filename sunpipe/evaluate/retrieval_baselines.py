"""What the embedding has to beat: pixels, keywords, and chance.

Pixels: the Euclidean distance in the encoder's network range, as the patch lies.

Keywords: the Mahalanobis distance of measured quantities as normal scores, with the
Gaussian rank correlation of the archive as covariance: no outlier can bend it
(Boudt, Cornelissen and Croux 2012, doi:10.1007/s11222-011-9237-0). It serves all its
quantities at once, so another retriever may be nearer in any one of them.

Magnitudes: the same of what the encoder's symmetries leave of the quantities
(`sunpipe.evaluate.retrieval_magnitudes`): the baseline that knows no more than an
invariant embedding can.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from sunpipe.evaluate.retrieval_nearest import euclidean
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.shards.normalize import encode

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Bools = NDArray[np.bool_]
SIDE = 32  # pixels; larger images are averaged down to this, so that an archive can be compared
LEAST_KNOWN = 0.5  # share of the archive in which a quantity must be defined
LEAST_SHARED = 0.5  # share of the quantities that both sides must have
FLOOR = 0.01  # of an eigenvalue of the correlation matrix, whose mean is 1


def pixels(fields: torch.Tensor, view: NormalizeSettings) -> Floats32:
    """Images (B, C, H, H) in physical units as rows (B, C * side * side) of network range."""
    image = encode(fields.float(), view)
    if image.shape[-1] > SIDE:
        image = torch.nn.functional.avg_pool2d(image, image.shape[-1] // SIDE)
    return image.flatten(1).cpu().numpy()


@dataclass
class Keywords:
    """Distances by measured quantities.

    Attributes
    ----------
    names : list of str
        The P quantities that are used.
    known : list of ndarray
        Sorted values of the archive of each.
    correlation : ndarray (P, P)
        Of normal scores, eigenvalues not below `FLOOR`.
    """

    names: list[str]
    known: list[Floats]
    columns: list[int]
    correlation: Floats
    _roots: dict[bytes, Floats] = field(default_factory=dict)

    @classmethod
    def fit(cls, values: Floats, names: list[str]) -> Keywords | None:
        """Learn from the archive's values (N, all); None where no quantity is usable.

        Quantities that are undefined in more than half of the archive, or constant, are
        left out. A correlation is over the tiles in which both are defined.
        """
        good = np.isfinite(values)
        columns = [column for column in range(values.shape[1])
                   if good[:, column].mean() >= LEAST_KNOWN
                   and np.ptp(values[good[:, column], column]) > 0]  # fmt: skip
        if not columns:
            return None
        known = [np.sort(values[good[:, column], column]) for column in columns]
        found = cls([names[column] for column in columns], known, columns, np.eye(len(columns)))
        scores = found.scores(values)
        here = np.isfinite(scores)
        filled = np.where(here, scores, 0.0)
        weight = here.astype(np.float64)
        cross = filled.T @ filled
        power = (filled**2).T @ weight  # of a column, over the rows where the other is defined
        size = np.sqrt(power * power.T)
        matrix = np.divide(cross, size, out=np.zeros_like(cross), where=size > 0)
        levels, vectors = np.linalg.eigh(matrix)
        found.correlation = (vectors * np.maximum(levels, FLOOR)) @ vectors.T
        return found

    def scores(self, values: Floats) -> Floats:
        """Normal scores (N, P) of values (N, all) by their rank in the archive; NaN stays NaN."""
        found = np.full((len(values), len(self.columns)), np.nan)
        for place, (column, known) in enumerate(zip(self.columns, self.known, strict=True)):
            x = values[:, column]
            good = np.isfinite(x)
            below = np.searchsorted(known, x[good], "left")
            up_to = np.searchsorted(known, x[good], "right")
            share = ((below + up_to) / 2 + 0.5) / (len(known) + 1)
            found[good, place] = ndtri(np.clip(share, 0.5 / (len(known) + 1), None))
        return found

    def _root(self, both: Bools) -> Floats:
        """R with ``R R^T`` the inverse of the correlation of the quantities in `both`."""
        key = both.tobytes()
        if key not in self._roots:
            part = self.correlation[np.ix_(both, both)]
            self._roots[key] = np.linalg.cholesky(np.linalg.inv(part))
        return self._roots[key]

    def distances(self, queries: Floats, tiles: Floats) -> Floats32:
        """Distances (Q, B) of normal scores (Q, P) and (B, P).

        A pair is compared by the quantities that both sides have, scaled by
        ``sqrt(P / their number)``, which keeps the expected square of a random pair;
        it is infinitely far where they share fewer than half of P.
        """
        found = np.full((len(queries), len(tiles)), np.inf, np.float32)
        count = len(self.columns)
        for one, mine in _patterns(np.isfinite(queries)):
            for two, theirs in _patterns(np.isfinite(tiles)):
                both = one & two
                shared = int(both.sum())
                if not shared or shared < LEAST_SHARED * count:
                    continue
                root = self._root(both)
                a = (queries[mine][:, both] @ root).astype(np.float32)
                b = (tiles[theirs][:, both] @ root).astype(np.float32)
                found[np.ix_(mine, theirs)] = euclidean(a, b) * np.sqrt(count / shared)
        return found


def _patterns(known: Bools) -> list[tuple[Bools, NDArray[np.int64]]]:
    """Each way in which values are missing, and the rows that have it."""
    ways, codes = np.unique(known, axis=0, return_inverse=True)
    return [(way, np.flatnonzero(codes.ravel() == place)) for place, way in enumerate(ways)]


def unit_rows(vectors: Floats32, metric: str) -> Floats32:
    """Vectors as the metric compares them: of length 1 for ``cosine``; zero stays zero."""
    if metric != "cosine":
        return vectors
    length = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(length == 0, 1, length)).astype(np.float32)


def vector_distances(queries: Floats32, tiles: Floats32, metric: str) -> Floats32:
    """Distances (Q, B) of what `unit_rows` gives: 1 - cos, or the length of the difference."""
    if metric == "cosine":
        return np.maximum(1 - queries @ tiles.T, 0)
    return euclidean(queries, tiles)
