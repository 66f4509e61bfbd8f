"""Bits of a RICE_1 stream: big-endian 64-bit windows and counts of leading zeros.

The three machine operations that numpy has no words for are given to LLVM
directly; everything else about the stream is in `sunpipe.rice_kernels`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic

intrinsic: Any = numba_intrinsic  # what it returns is called without the typing context


@intrinsic
def load64(typingctx: Any, array: Any, offset: Any) -> Any:
    """Eight bytes of a uint8 array from `offset` on, the first the most significant.

    The caller makes sure that ``offset + 8 <= len(array)``.
    """
    if not (isinstance(array, types.Array) and array.dtype == types.uint8):
        return None

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bytes_ = cgutils.create_struct_proxy(array)(context, builder, args[0])
        word = ir.IntType(64)
        place = builder.gep(bytes_.data, [args[1]])
        loaded = builder.load(builder.bitcast(place, word.as_pointer()), align=1)
        swap = builder.module.declare_intrinsic("llvm.bswap", [word])
        return builder.call(swap, [loaded])

    return types.uint64(array, types.int64), code


@intrinsic
def leading_zeros(typingctx: Any, word: Any) -> Any:
    """Zeros above the highest set bit of a uint64; 64 for 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        size = ir.IntType(64)
        count = builder.module.declare_intrinsic(
            "llvm.ctlz", [size], ir.FunctionType(size, [size, ir.IntType(1)])
        )
        return builder.call(count, [args[0], ir.Constant(ir.IntType(1), 0)])

    return types.uint64(types.uint64), code
