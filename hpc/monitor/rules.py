"""Rules and a configuration for a user's Prometheus."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template

from sunpipe.errors import UsageError
from sunpipe.files import write_text

CONFIG = "prometheus.yml"
RULES = ("recording.rules.yml", "alerts.rules.yml")
TESTS = "tests.yml"
INSTALL = "apt-get install prometheus"
SHORTEST_S = 1.0  # between two samples
LONGEST_S = 30.0  # rates of the recording rules look back two minutes
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def shipped(name: str) -> str:
    """Text of one of the files that come with sunpipe."""
    return files("hpc.monitor").joinpath("prometheus", name).read_text(encoding="utf-8")


def _duration(seconds: float) -> str:
    return f"{max(round(seconds * 1000), 1000)}ms"  # Prometheus wants whole numbers


def scaled(text: str, scale: float) -> str:
    """Alert rules with all times multiplied: ``for:``, ranges, and ``N * 60`` seconds.

    Nothing gets shorter than a second. For drills and tests; 1 changes nothing.
    """
    if scale == 1:
        return text

    def new(found: re.Match[str]) -> str:
        seconds = int(found[2]) * UNITS[found[3]]
        return f"{found[1]}{_duration(seconds * scale)}{found[4]}"

    text = re.sub(r"(for: )(\d+)([smhd])(\b)", new, text)
    text = re.sub(r"(\[)(\d+)([smhd])(:?\])", new, text)
    return re.sub(r"(\d+) \* 60\b", lambda found: f"{int(found[1]) * 60 * scale:g}", text)


def longest_interval(scale: float) -> float:
    """Seconds between samples of which every range of the alerts holds two, 15 minutes at least."""
    return min(15 * 60 * scale / 2, LONGEST_S)


def rule_files(exporter: str, interval: float = 15.0, scale: float = 1.0) -> dict[str, str]:
    """Name and text of everything a Prometheus needs.

    Parameters
    ----------
    exporter : str
        ``host:port`` of `sunpipe monitor serve`.
    interval : float
        Seconds between scrapes, 1 to `LONGEST_S`.
    scale : float
        Multiplies the times of the alerts.

    Raises
    ------
    UsageError
        `exporter` is no such address, or samples would be too far apart for the rules.
    """
    address = re.fullmatch(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", exporter)
    if not address or not 0 < int(address[1]) < 65536:
        raise UsageError(f"{exporter!r} is not HOST:PORT")
    if not SHORTEST_S <= interval <= LONGEST_S:
        raise UsageError(f"samples every {interval:g} s: {SHORTEST_S:g} to {LONGEST_S:g} s work")
    if interval > (most := longest_interval(scale)):
        raise UsageError(
            f"--scale {scale:g} needs a sample every {most:g} s at least (--interval {most:g})"
            if most >= SHORTEST_S else f"--scale {scale:g} is too small: alerts see no two samples"
        )  # fmt: skip
    config = Template(shipped(CONFIG)).substitute(exporter=exporter, interval=_duration(interval))
    alerts = scaled(shipped(RULES[1]), scale)
    return {CONFIG: config, RULES[0]: shipped(RULES[0]), RULES[1]: alerts}


def write_rules(folder: Path, texts: dict[str, str], force: bool = False) -> list[Path]:
    """Write the files; those that somebody changed are not replaced unless `force`.

    Raises
    ------
    UsageError
        A file is there and differs.
    """
    for name, text in texts.items():
        path = folder / name
        if not force and path.exists() and path.read_text(encoding="utf-8") != text:
            raise UsageError(f"{path} is there and differs; choose another --out, or --force")
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]
