"""Importing torchvision beside a torch that its compiled library was not built for.

timm imports torchvision, and torchvision describes two operators of its compiled
library (non-maximum suppression) while it is imported. Where that library cannot
be loaded, say a CPU build of torch beside a wheel for CUDA, the import ends with
``operator torchvision::nms does not exist``. Declared without a body, the
operators let the import pass; calling one says that it is not there. No
backbone and no loss here uses them.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

import torch

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_DECLARED: list[torch.library.Library] = []  # a declaration lives as long as its library


def declare_operators() -> bool:
    """Declare torchvision's operators if its own library cannot be loaded; call before importing.

    Returns
    -------
    bool
        Whether they had to be declared, now or before.
    """
    if not _DECLARED and not _own_library():
        library = torch.library.Library("torchvision", "DEF")
        for operator in OPERATORS:
            library.define(operator)
        _DECLARED.append(library)
    return bool(_DECLARED)


def _own_library() -> bool:
    """Load torchvision's compiled library as torchvision does; whether it took."""
    found = find_spec("torchvision")  # does not import it
    if found is None or not found.submodule_search_locations:
        return True  # nothing to declare for: the import that follows says what is missing
    for folder in found.submodule_search_locations:
        spec = PathFinder.find_spec("_C", [str(Path(folder))])
        if spec is not None and spec.origin is not None:
            try:
                torch.ops.load_library(spec.origin)
            except OSError:
                return False
            return True
    return False
