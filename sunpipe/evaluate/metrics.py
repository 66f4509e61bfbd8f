"""The table of metrics: name, unit, meaning (no torch here). Lower is better in all of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One distance of generated from real images.

    Attributes
    ----------
    name : str
        As in ``metric-generator.jsonl``; one that ends in ``_`` stands for a
        family, such as ``spectrum_db_k4``.
    unit : str
        ``""`` for a pure number; ``std`` is that of the real values.
    meaning : str
        One line.
    signed : bool
        Whether it tells a direction; best is 0 either way.
    """

    name: str
    unit: str
    meaning: str
    signed: bool = False


METRICS = (
    Metric("fd_random", "", "Fréchet distance of random convolutional features"),
    Metric("kid_random", "", "unbiased kernel distance of the same", signed=True),
    Metric("fd_encoder", "", "Fréchet distance of the trained encoder's features"),
    Metric("kid_encoder", "", "unbiased kernel distance of the same", signed=True),
    Metric("spectrum_db", "dB", "error of the mean power spectrum, root mean square of octaves"),
    Metric("spectrum_db_k", "dB", "power too much or too little in the octave from k", True),
    Metric("w1_pixels", "std", "shift of the pixel values, mean over channels"),
    Metric("w1_usflux", "std", "shift of the unsigned flux of a patch"),
    Metric("w1_imbalance", "std", "shift of the net over the unsigned flux of a patch"),
    Metric("w1_mean_", "std", "shift of a patch's mean intensity"),
    Metric("w1_median_", "std", "shift of a patch's median intensity"),
    Metric("w1_p99_", "std", "shift of a patch's 99th percentile of intensity"),
)


def metric(name: str) -> Metric:
    """The row of `METRICS` that describes `name`.

    Raises
    ------
    ValueError
        There is none.
    """
    exact = [row for row in METRICS if row.name == name]
    family = [row for row in METRICS
              if row.name.endswith(("_", "_k")) and name.startswith(row.name)]  # fmt: skip
    for row in exact + family:
        return row
    raise ValueError(f"no metric {name!r}; known: {', '.join(row.name for row in METRICS)}")
