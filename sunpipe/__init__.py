"""sunpipe: ask the archive of the Solar Dynamics Observatory questions."""

__version__ = "0.1.0"
