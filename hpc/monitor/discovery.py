"""Prometheus' HTTP service discovery: the nodes that sunpipe's jobs run on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hpc.monitor.slurm import job_label, own_stage
from hpc.slurm_query import Job, Node
from hpc.slurm_words import expand_nodes

PORTS = {"node": 9100, "dcgm": 9400}  # node exporter's and DCGM exporter's own


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address  # IPv6


def targets(
    jobs: Iterable[Job], nodes: Sequence[Node], exporters: Iterable[str] = tuple(PORTS)
) -> list[dict[str, Any]]:
    """Target groups in the form of Prometheus' ``http_sd_configs``.

    Each node stands once for each exporter, however many jobs it has: two groups
    with one address would be scraped twice. Series get the labels `node` and
    `exporter`; ``sunpipe_slurm_job_nodes_info`` tells which jobs a node belongs to.
    The jobs are also in labels ``__meta_*``, which relabelling may use.

    Returns
    -------
    list of dict
        ``{"targets": ["n1:9100"], "labels": {...}}``, in the order of names.
    """
    address = {node.name: node.address for node in nodes}
    has_gpus = {node.name: node.gpus > 0 for node in nodes}
    known: dict[str, list[Job]] = {}
    for job in jobs:
        if job.state in ("running", "completing", "suspended"):
            for name in expand_nodes(job.node_list):
                known.setdefault(name, []).append(job)
    found = []
    for exporter in exporters:
        for name in sorted(known):
            if exporter == "dcgm" and not has_gpus.get(name, True):
                continue
            found.append({
                "targets": [f"{_host(address.get(name) or name)}:{PORTS[exporter]}"],
                "labels": {
                    "node": name,
                    "exporter": exporter,
                    "__meta_sunpipe_slurm_jobs": ",".join(map(job_label, known[name])),
                    "__meta_sunpipe_stages": ",".join(sorted(set(map(own_stage, known[name])))),
                },
            })  # fmt: skip
    return found
