"""The learning curve of one run: its distances from real images over images shown.

    python benchmarks/learning_curve.py RUN_FOLDER docs/learning-run.png

The dashed lines are what `sunpipe evaluate generator` wrote last: one half of the
real images from the other.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from sunpipe.run import read_stats

SHOWN = {"fd_random": "Fréchet distance", "spectrum_db": "power spectrum (dB)",
         "w1_usflux": "unsigned flux (std)", "w1_pixels": "pixel values (std)"}  # fmt: skip


def main() -> None:
    """Draw the four metrics."""
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    rows = read_stats(run, "metric-generator")
    measured = sorted(run.glob("metrics/generator-*.json"))
    floor = json.loads(measured[-1].read_text())["scale"]["real_halves"]["metrics"]
    figure, panels = plt.subplots(1, 4, figsize=(12, 2.8), layout="constrained")
    for panel, (name, title) in zip(panels, SHOWN.items(), strict=True):
        panel.plot([row["kimg"] for row in rows], [row[name] for row in rows], color="#1f5fa8")
        panel.axhline(floor[name], color="0.4", linestyle="--", linewidth=1)
        panel.set(title=title, xlabel="images shown (kimg)", yscale="log")
        panel.title.set_fontsize(10)
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    main()
