"""``normalize``: how physical units become network values."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import PlainValidator
from pydantic.dataclasses import dataclass

from sunpipe.setting_types import STRICT


def _per_channel(value: object) -> float | tuple[float, ...]:
    """One number, or a list with one per channel."""
    listed = value if isinstance(value, list | tuple) else [value]
    numbers = [one for one in listed if isinstance(one, int | float) and not isinstance(one, bool)]
    if not listed or len(numbers) < len(listed) or not all(map(math.isfinite, numbers)):
        raise ValueError("write one number, or a list with one number per channel")
    return tuple(map(float, numbers)) if isinstance(value, list | tuple) else float(numbers[0])


def _above_zero(value: object) -> float | tuple[float, ...]:
    found = _per_channel(value)
    if not all(one > 0 for one in (found if isinstance(found, tuple) else (found,))):
        raise ValueError("every number must be greater than 0")
    return found


def _inside(value: object) -> float | tuple[float, ...]:
    found = _per_channel(value)
    if not all(-1 <= one < 1 for one in (found if isinstance(found, tuple) else (found,))):
        raise ValueError("every number must be at least -1 and less than 1")
    return found


PositivePerChannel = Annotated[float | tuple[float, ...], PlainValidator(_above_zero)]
InsidePerChannel = Annotated[float | tuple[float, ...], PlainValidator(_inside)]


@dataclass(frozen=True, config=STRICT)
class NormalizeSettings:
    """``normalize``: an invertible map from gauss or DN/s to about [-1, 1].

    ``asinh`` and ``signed_log`` bend at `scale`; ``linear`` does not bend.
    `limit` is the magnitude that maps to 1; larger values map beyond 1 and come
    back unchanged. `zero` is what 0 maps to: 0 for a field of both signs, -1 for
    an intensity. Each is one number or a list with one per channel.
    """

    kind: Literal["asinh", "signed_log", "linear"] = "asinh"
    scale: PositivePerChannel = 100.0
    limit: PositivePerChannel = 3000.0
    zero: InsidePerChannel = 0.0

    def __post_init__(self) -> None:
        lists = (self.scale, self.limit, self.zero)
        if len({len(one) for one in lists if isinstance(one, tuple)}) > 1:
            raise ValueError("scale, limit and zero list different numbers of channels")

    @property
    def channels(self) -> int | None:
        """Channels that the lists are for; None when every number is for all."""
        lists = (self.scale, self.limit, self.zero)
        return next((len(one) for one in lists if isinstance(one, tuple)), None)
