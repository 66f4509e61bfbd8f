"""Samples of metrics, held against the table of names, and their text for Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from hpc.monitor.names import NAMES

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LABEL_LENGTH = 128  # characters; a folder may have any name
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Sample(NamedTuple):
    """One value of one metric of `hpc.monitor.names.NAMES`.

    Attributes
    ----------
    labels : tuple of str
        In the order of the table.
    """

    name: str
    labels: tuple[str, ...]
    value: float


def sample(name: str, value: float, /, **labels: Any) -> Sample:
    """A sample; `labels` must be exactly those of the table."""
    wanted = NAMES[name].labels
    assert set(labels) == set(wanted), f"{name} has labels {wanted}, not {tuple(labels)}"
    return Sample(name, tuple(label_text(labels[key]) for key in wanted), float(value))


def label_text(value: Any) -> str:
    """A label's value: printable and of bounded length; the client library escapes it."""
    text = _UNPRINTABLE.sub("?", str(value))
    return text if len(text) <= LABEL_LENGTH else text[: LABEL_LENGTH - 3] + "..."


def families(samples: Iterable[Sample]) -> Iterator[Metric]:
    """Metric families for the client library; of equal series the first one holds."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    grouped: dict[str, dict[tuple[str, ...], float]] = {}
    for one in samples:
        grouped.setdefault(one.name, {}).setdefault(one.labels, one.value)
    for name, known in NAMES.items():
        if name not in grouped:
            continue
        kind = CounterMetricFamily if known.kind == "counter" else GaugeMetricFamily
        family = kind(name, known.help, labels=known.labels)
        for labels, value in grouped[name].items():
            family.add_metric(labels, value)
        yield family


def text(samples: Iterable[Sample], accept: str = "") -> tuple[bytes, str]:
    """What a scrape gets, and its content type.

    Parameters
    ----------
    accept : str
        Header of the request: Prometheus asks for OpenMetrics, people get plain text.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    made = list(families(samples))

    class Once:
        def collect(self) -> Iterable[Metric]:
            return made

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type
