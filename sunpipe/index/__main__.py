"""``python -m sunpipe.index``: the same commands as ``sunpipe index``."""

from sunpipe.cli import guarded
from sunpipe.index.cli import app

guarded(lambda: app(prog_name="python -m sunpipe.index", standalone_mode=False))
