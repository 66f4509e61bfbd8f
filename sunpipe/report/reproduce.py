"""Where the numbers come from: revisions, digests, the resolved configuration, the commands."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from sunpipe.config import to_dict
from sunpipe.provenance import git_revision, versions
from sunpipe.report.runfolder import RunFolder
from sunpipe.report.section import Section
from sunpipe.report.sources import Sources
from sunpipe.shards.schema import dataset_id
from sunpipe.stage import printable

STAGES = ("fetch", "shard", "train", "sample", "directions fit", "ssl", "embed", "index build",
          "search", "report")  # fmt: skip


def digests(sources: Sources) -> list[tuple[str, str, str]]:
    """(artefact, identity, code revision that made it) of what is current."""
    rows: list[tuple[str, str, str]] = []
    reader, run, generator = sources.dataset.value, sources.run.value, sources.generator.value
    if reader is not None:
        rows.append(("dataset " + reader.info.name, dataset_id(reader.info), ""))
    if run is not None and generator is not None:
        rows.append((f"generator {run.folder.name} at {generator.kimg:g} kimg", generator.digest,
                     str(run.provenance.get("git") or "")))  # fmt: skip
    if (directions := sources.directions.value) is not None:
        rows.append(("directions", directions.about["files"]["directions.safetensors"],
                     str(directions.about["provenance"].get("git") or "")))  # fmt: skip
    if (encoder := sources.encoder.value) is not None and sources.ssl_run.value is not None:
        rows.append((f"encoder {sources.ssl_run.value.folder.name}", encoder,
                     str(sources.ssl_run.value.provenance.get("git") or "")))  # fmt: skip
    if (index := sources.index.value) is not None:
        rows.append(("index", index.info.files["vectors.faiss"],
                     str(index.info.provenance.get("git") or "")))  # fmt: skip
    return rows


def made_by(run: RunFolder) -> list[tuple[str, str]]:
    """When, where and with what a run was begun, as label and text."""
    made = run.provenance
    command = made.get("command")
    words = [str(word) for word in command] if isinstance(command, list) and command else []
    slurm, packages = made.get("slurm"), made.get("versions")
    rows = [("Begun", made.get("time")), ("Code", made.get("git")), ("Host", made.get("host"))]
    if words:
        rows.append(("Command", shlex.join([Path(words[0]).name.replace("__main__.py", "sunpipe"),
                                            *words[1:]])))  # fmt: skip
    if isinstance(packages, dict):
        rows.append(("With", ", ".join(f"{name} {version}" for name, version in packages.items())))
    if isinstance(slurm, dict) and slurm:
        rows.append(("Slurm", ", ".join(f"{key} {value}" for key, value in slurm.items())))
    return [(label, str(text)) for label, text in rows if text]


def reproduce(sources: Sources) -> Section:
    """Provenance and commands; of a run that was asked for, its own configuration."""
    run = sources.gan or sources.ssl
    config = run.config if run is not None else printable(to_dict(sources.cfg))
    data: dict[str, Any] = {
        "made_by": made_by(run) if run is not None else [],
        "commands": [sources.command(stage) for stage in STAGES],
        "digests": digests(sources),
        "git": git_revision() or "not a git checkout",
        "versions": versions(),
        "config": json.dumps(config, indent=2),
    }
    return Section("reproduce", "Provenance, and how to reproduce this", data=data)
