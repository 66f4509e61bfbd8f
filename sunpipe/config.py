"""TOML configurations with ``extends`` and ``--set``, all faults reported at once (C2)."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from datetime import time as clock_time
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sunpipe.errors import ConfigError
from sunpipe.settings import Config

T = TypeVar("T")
SHAPES = {  # what a person is told instead of a regular expression
    "name": "lower-case letters, digits, dots, dashes and underscores",
    "dataset": "lower-case letters, digits, dots, dashes and underscores",
    "series": "a series such as hmi.sharp_cea_720s",
    "segments": "names of segments such as Br",
    "start": "a time such as 2011-02-15 or 2011.02.15_02:00:00_TAI",
    "end": "a time such as 2011-02-15 or 2011.02.15_02:00:00_TAI",
    "cadence": "a number and s, m, h or d, such as 6h",
    "url": "the root of a web interface, such as http://jsoc.stanford.edu/",
    "email": "an e-mail address",
    "where": "a condition such as TOTUSJH > 2000",
}


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def read_toml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a TOML file and the files it ``extends`` (paths relative to it), merged."""
    path = Path(path).absolute()
    if path in seen:
        raise ConfigError("configuration extends itself: " + " -> ".join(map(str, (*seen, path))))
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no such configuration: {path}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    parents = data.pop("extends", [])
    if isinstance(parents, str):
        parents = [parents]
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise ConfigError(f"{path}: extends must be a file name or a list of them")
    base: dict[str, Any] = {}
    for parent in parents:
        base = _merge(base, read_toml(path.parent / parent, (*seen, path)))
    return _merge(base, data)


def parse_override(text: str) -> tuple[list[str], Any]:
    """Split ``section.key=value``; the value is TOML, or a bare string."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {text!r}: write section.key=value")
    try:
        return parts, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return parts, value


def apply_overrides(data: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Apply ``--set`` options to raw configuration data."""
    for text in overrides:
        parts, value = parse_override(text)
        nested: Any = value
        for part in reversed(parts):
            nested = {part: nested}
        data = _merge(data, nested)
    return data


def _section(hint: Any) -> type | None:
    """The section that a type hint holds: itself, of a tuple, or annotated."""
    if dataclasses.is_dataclass(hint):
        return hint if isinstance(hint, type) else None
    return next((found for part in get_args(hint) if (found := _section(part))), None)


def _known_keys(location: tuple[Any, ...], kind: type) -> list[str]:
    here: type | None = kind
    for part in location[:-1]:
        if isinstance(part, int):  # which one of a list
            continue
        here = _section(get_type_hints(here).get(part))
        if here is None:
            return []
    assert here is not None
    return [field.name for field in dataclasses.fields(here)]


def _fault(fault: Any, kind: type) -> str:
    location = tuple(fault["loc"])
    dotted = ".".join(map(str, location))
    if fault["type"] == "unexpected_keyword_argument":
        known = _known_keys(location, kind)
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else "known: " + ", ".join(known)
        return f"{dotted}: unknown key ({hint})"
    if fault["type"] == "missing_argument" or fault["type"] == "missing":
        return f"{dotted}: missing"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "string_pattern_mismatch":
        names = [part for part in location if isinstance(part, str)]
        message = f"must be {SHAPES.get(names[-1], 'text of another form')}"
    if fault["type"] in ("list_type", "tuple_type"):
        message = "must be a list in square brackets"
    if "input" in fault and not isinstance(fault["input"], dict):
        message += f", got {fault['input']!r}"
    return f"{dotted}: {message}"


def _text(value: Any) -> str:
    """TOML's dates and times as the text they were written as."""
    if isinstance(value, date | clock_time):
        return value.isoformat()
    raise TypeError(f"{value!r} is no value of a setting")


def validate_as(kind: type[T], data: Mapping[str, Any], origin: str) -> T:
    """Raw data to a frozen dataclass; every fault is named with its dotted path.

    Parameters
    ----------
    kind : type
        `Config`, or another pydantic dataclass that refuses unknown keys.

    Raises
    ------
    ConfigError
        One line per unknown key, wrong type or value out of range.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(data, default=_text), strict=True)
    except (TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise ConfigError(f"{origin}: {error}") from None
        faults = [_fault(fault, kind) for fault in error.errors()]
        raise ConfigError(f"{origin}: " + "; ".join(faults)) from None


def validate(data: Mapping[str, Any], origin: str = "configuration") -> Config:
    """Raw data to a `Config`; see `validate_as`."""
    return validate_as(Config, data, origin)


def load_config(path: Path | None, overrides: Iterable[str] = ()) -> Config:
    """Read, override and validate a configuration.

    Parameters
    ----------
    path : Path or None
        TOML file; None means defaults with ``name = "default"``.
    overrides : iterable of str
        ``section.key=value`` each.
    """
    data = read_toml(path) if path is not None else {"name": "default"}
    return validate(apply_overrides(data, overrides), str(path or "configuration"))


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration or one of its sections as JSON-able nested dictionaries."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the keys whose values differ."""
    names: list[str] = []
    for key in sorted({*old, *new}):
        left, right = old.get(key), new.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            names += changed_keys(left, right, f"{prefix}{key}.")
        elif left != right:
            names.append(prefix + key)
    return names
