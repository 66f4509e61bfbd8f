"""AIA's loss of sensitivity since launch, from a table of its response.

The factor of an observation at time t is, with the epoch e of the table that
holds t and its first epoch 0,

    A_eff(e) / A_eff(0) * (1 + p1 dt + p2 dt^2 + p3 dt^3),   dt = t - T_START(e) in days,

and the observed intensity is divided by it (Barnes et al. 2020, JOSS 5, 2801;
SolarSoft's ``aia_bp_corrections``).
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from preprocess.calibration.times import utc
from sunpipe.fitsfile import FitsError

TABLES = Path(__file__).resolve().parent.parent / "tables"
EUV_TABLE = TABLES / "aia_V10_20201023_180000_response_table.txt"
UV_TABLE = TABLES / "aia_V8_20171210_050627_response_table.txt"  # version 10 has the EUV only
UV = (1600, 1700, 4500)
COLUMNS = ("DATE", "T_START", "T_STOP", "VER_NUM", "WAVE_STR", "EFF_AREA",
           "EFFA_P1", "EFFA_P2", "EFFA_P3")  # fmt: skip


@dataclass(frozen=True)
class Epoch:
    """One line of the table; `area` in cm^2, coefficients per power of a day."""

    made: datetime
    start: datetime
    stop: datetime
    version: str
    area: float
    coefficients: tuple[float, float, float]


@dataclass(frozen=True)
class Table:
    """A response table: epochs by WAVE_STR, and which file it is."""

    name: str
    sha256: str
    epochs: dict[str, tuple[Epoch, ...]]


@dataclass(frozen=True)
class Degradation:
    """The factor that an intensity is divided by, and where it comes from."""

    factor: float
    version: str
    table: str
    sha256: str


def _time(text: str, where: str) -> datetime:
    found = utc(text)
    if found is None:
        raise FitsError("no_table", f"{where}: {text!r} is not a time")
    return found


def _epoch(cells: dict[str, str], where: str) -> Epoch:
    try:
        area, *powers = (float(cells[key]) for key in COLUMNS[5:])
    except ValueError as error:
        raise FitsError("no_table", f"{where}: {error}") from None
    if not area > 0:
        raise FitsError("no_table", f"{where}: EFF_AREA = {area:g} is not positive")
    made, start, stop = (_time(cells[key], where) for key in COLUMNS[:3])
    return Epoch(made, start, stop, cells["VER_NUM"], area, (powers[0], powers[1], powers[2]))


@functools.lru_cache(maxsize=8)
def read_table(path: Path) -> Table:
    """Read ``aia_V*_response_table.txt``: a line of names, then one line per epoch.

    Raises
    ------
    FitsError
        ``no_table``: no such file, a column is missing, or a line does not fit.
    """
    try:
        raw = Path(path).read_bytes()
        lines = [line.split() for line in raw.decode("ascii").splitlines() if line.strip()]
    except OSError as error:
        raise FitsError("no_table", f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FitsError("no_table", f"{path} is not a text table") from None
    names = lines[0] if lines else []
    if missing := [key for key in COLUMNS if key not in names]:
        raise FitsError("no_table", f"{path} is no AIA response table: it lacks {missing[0]}")
    epochs: dict[str, list[Epoch]] = {}
    for place, cells in enumerate(lines[1:], 2):
        where = f"{path}, line {place}"
        if len(cells) != len(names):
            raise FitsError("no_table", f"{where}: {len(cells)} cells under {len(names)} names")
        row = dict(zip(names, cells, strict=True))
        epochs.setdefault(row["WAVE_STR"], []).append(_epoch(row, where))
    return Table(
        Path(path).name,
        hashlib.sha256(raw).hexdigest(),
        {wave: tuple(found) for wave, found in epochs.items()},
    )


def default_table(wavelength: int) -> Path:
    """The table that comes with sunpipe for a channel."""
    return UV_TABLE if wavelength in UV else EUV_TABLE


def degradation(wavelength: int, time: datetime, path: Path | None = None) -> Degradation:
    """Sensitivity of a channel relative to its first epoch.

    Parameters
    ----------
    wavelength : int
        Channel, angstrom.
    time : datetime
        Of the observation, UTC.
    path : Path, optional
        Another table; by default the shipped one of the channel.

    Raises
    ------
    FitsError
        ``no_table``: the table cannot be read or has no epoch for the observation.
    """
    table = read_table(path or default_table(wavelength))
    wave = str(wavelength) if wavelength in UV else f"{wavelength}_THIN"
    epochs = table.epochs.get(wave, ())
    holding = [epoch for epoch in epochs if epoch.start <= time < epoch.stop]
    if not holding:
        raise FitsError("no_table", f"{table.name} has no epoch of {wave} for {time.isoformat()}")
    # Where two lines hold the same time, the one made last is right.
    epoch = max(holding, key=lambda one: (one.made, one.start))
    first = min(epochs, key=lambda one: one.start)
    days = (time - epoch.start).total_seconds() / 86400
    polynomial = 1 + sum(p * days ** (n + 1) for n, p in enumerate(epoch.coefficients))
    factor = epoch.area / first.area * polynomial
    if not factor > 0:
        raise FitsError("no_table", f"{table.name} gives {wave} a sensitivity of {factor:g} at"
                        f" {time.isoformat()}")  # fmt: skip
    version = f"{epoch.version} of {epoch.made.date().isoformat()}"
    return Degradation(factor, version, table.name, table.sha256)
