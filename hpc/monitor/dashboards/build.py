"""The files of the dashboards: built from code, byte for byte the same each time."""

from __future__ import annotations

import json
from pathlib import Path

from sunpipe.errors import SunpipeError
from sunpipe.files import write_text

COMMITTED = Path(__file__).parents[1] / "grafana"
NAMES = ("cluster", "training", "hardware")


def texts() -> dict[str, str]:
    """Build all three; file name below the folder to its content.

    Raises
    ------
    SunpipeError
        If Grafana's builders are not installed; the built files need them not.
    """
    try:
        from hpc.monitor.dashboards import cluster, hardware, training
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("grafana_foundation_sdk"):
            raise
        raise SunpipeError(
            "building dashboards needs grafana-foundation-sdk (pip install 'sunpipe[dev]'); "
            f"the built ones are in {COMMITTED}"
        ) from None
    built = {"cluster": cluster.build(), "training": training.build(), "hardware": hardware.build()}
    return {f"dashboards/{name}.json": json.dumps(built[name], indent=2, ensure_ascii=False) + "\n"
            for name in NAMES}  # fmt: skip


def provisioning() -> dict[str, str]:
    """Grafana's own set-up files, which name the data source and the folder."""
    folder = COMMITTED / "provisioning"
    return {str(path.relative_to(COMMITTED)): path.read_text(encoding="utf-8")
            for path in sorted(folder.rglob("*.yml"))}  # fmt: skip


def write(out: Path) -> list[Path]:
    """Write dashboards and provisioning files into `out`; returns their paths."""
    paths = []
    for name, text in {**texts(), **provisioning()}.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        paths.append(path)
    return paths


def differing(out: Path) -> list[str]:
    """Names of files in `out` that are missing or not what `write` would put there."""
    found = []
    for name, text in {**texts(), **provisioning()}.items():
        path = out / name
        if not path.is_file() or path.read_bytes() != text.encode():
            found.append(name)
    return found
