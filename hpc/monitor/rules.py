"""Rules and a configuration for a user's Prometheus, and their check with promtool."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from string import Template

from hpc.monitor.dialects import unknown_names
from sunpipe.errors import DataError, UsageError
from sunpipe.files import write_text

CONFIG = "prometheus.yml"
RULES = ("recording.rules.yml", "alerts.rules.yml")
TESTS = "tests.yml"
INSTALL = "apt-get install prometheus"
PATIENCE_S = 120.0
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
    text = re.sub(r"(\[)(\d+)([smhd])(\])", new, text)
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
    if not re.fullmatch(r"[A-Za-z0-9.-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", exporter):
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


def expressions(text: str) -> Iterator[tuple[str, str]]:
    """Name and expression of each rule in a file of rules."""
    for block in re.split(r"(?m)^ +- (?=record:|alert:)", text)[1:]:
        name = re.match(r"(?:record|alert): (\S+)", block)
        found = re.search(r"(?m)^( *)expr: (?:>-\n((?:\1 +.*\n?)+)|(.*))", block)
        if name and found:
            yield name[1], " ".join((found[2] or found[3]).split())


def misspelt(text: str) -> list[str]:
    """One line for each name in a file of rules that nothing serves."""
    return [f"{rule}: nothing serves {name}" for rule, expression in expressions(text)
            for name in sorted(unknown_names(expression))]  # fmt: skip


def promtool(*argv: str | Path, folder: Path) -> str:
    """Run promtool in `folder`; what it said.

    Raises
    ------
    DataError
        It is not installed, or finds a fault.
    """
    program = shutil.which("promtool")
    if program is None:
        raise DataError(f"promtool is not installed: {INSTALL}")
    try:
        done = subprocess.run([program, *map(str, argv)], cwd=folder, capture_output=True,
                              text=True, timeout=PATIENCE_S, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DataError(f"promtool {argv[0]} took longer than {PATIENCE_S:g} s") from None
    said = (done.stdout + done.stderr).strip()
    if done.returncode != 0:
        raise DataError(f"promtool {' '.join(map(str, argv))} in {folder}:\n{said}")
    return said


def check_folder(folder: Path) -> list[str]:
    """Check configuration and rules of a folder; one line for each thing that is well.

    Raises
    ------
    DataError
        Something is wrong; the message says what.
    """
    lines = []
    if not (folder / CONFIG).is_file():
        raise DataError(f"{folder} holds no {CONFIG}; write one with sunpipe monitor rules --out")
    promtool("check", "config", CONFIG, folder=folder)
    lines.append(f"{CONFIG} is well formed, with its rules")
    for name in RULES:
        text = (folder / name).read_text(encoding="utf-8")
        if faults := misspelt(text):
            raise DataError(f"{folder / name}: {'; '.join(faults)}")
        lines.append(f"{name}: {len(list(expressions(text)))} rules, every name is served")
    if (folder / TESTS).is_file():
        promtool("test", "rules", TESTS, folder=folder)
        lines.append(f"{TESTS}: every alert fires when it should and not otherwise")
    return lines


def check_shipped() -> list[str]:
    """`check_folder` of the files that come with sunpipe, their tests included."""
    with tempfile.TemporaryDirectory(prefix="sunpipe-rules-") as made:
        folder = Path(made)
        write_rules(folder, {**rule_files("127.0.0.1:9808"), TESTS: shipped(TESTS)})
        return check_folder(folder)
