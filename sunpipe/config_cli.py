"""``sunpipe config``: print a resolved configuration."""

from __future__ import annotations

from sunpipe.config import load_config, to_dict
from sunpipe.stage import ConfigOption, JsonOption, SetOption, emit


def show(config: ConfigOption = None, set_: SetOption = None, json_: JsonOption = False) -> None:
    """Read a configuration with everything it extends, check it, print it."""
    emit(to_dict(load_config(config, set_ or ())), json_)
