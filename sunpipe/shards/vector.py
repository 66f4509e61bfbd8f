"""Vectors of bytes and words: what numba lacks to read images at the speed of memory.

Addresses are plain integers; the callers check every bound first. LLVM makes
of these whatever the processor has (SSE2, AVX2, AVX-512, NEON).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

intrinsic: Any = _intrinsic  # its functions take one argument less than they are written with

_BYTE = ir.IntType(8)
_WORD = ir.IntType(64)
_VECTOR = ir.VectorType(_BYTE, 16)
_PAIR = ir.VectorType(_WORD, 2)


def _load(builder: Any, address: Any, kind: Any) -> Any:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 1
    return value


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 1


@intrinsic
def copy16(typingctx: Any, target: Any, source: Any) -> Any:
    """Copy 16 bytes from address `source` to address `target`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _store(builder, _load(builder, args[1], _VECTOR), args[0])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def fill16(typingctx: Any, target: Any, word: Any) -> Any:
    """Write the eight bytes of `word` twice at address `target`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pair = ir.Constant(_PAIR, ir.Undefined)
        for lane in range(2):
            pair = builder.insert_element(pair, args[1], ir.Constant(ir.IntType(32), lane))
        _store(builder, pair, args[0])
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), generate


@intrinsic
def load8(typingctx: Any, source: Any) -> Any:
    """Eight bytes at address `source`, as a number in the processor's byte order."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(builder, args[0], _WORD)

    return types.uint64(types.int64), generate


def _splat(word: int) -> ir.Constant:
    return ir.Constant(_PAIR, [ir.Constant(_WORD, word)] * 2)


def _transpose_bits(builder: Any, rows: list[Any]) -> list[Any]:
    """Eight vectors to eight: bit k of byte m of row i becomes bit i of byte m of row k."""
    rows = [builder.bitcast(row, _PAIR) for row in rows]
    for shift, mask in ((4, 0x0F0F0F0F0F0F0F0F), (2, 0x3333333333333333), (1, 0x5555555555555555)):
        for low in (place for place in range(8) if not place & shift):
            one, other = rows[low], rows[low + shift]
            moved = builder.and_(builder.xor(builder.lshr(one, _splat(shift)), other), _splat(mask))
            rows[low] = builder.xor(one, builder.shl(moved, _splat(shift)))
            rows[low + shift] = builder.xor(other, moved)
    return [builder.bitcast(row, _VECTOR) for row in rows]


def _riffle(builder: Any, rows: list[Any]) -> list[Any]:
    """Interleave the bytes of the first half of the rows with those of the second half."""
    half = len(rows) // 2
    merged = []
    for one, other in zip(rows[:half], rows[half:], strict=True):
        for start in (0, 8):
            order = [index + side for index in range(start, start + 8) for side in (0, 16)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), 16), order)
            merged.append(builder.shuffle_vector(one, other, mask))
    return merged


@intrinsic
def merge_planes(typingctx: Any, target: Any, source: Any, stride: Any, size: Any) -> Any:
    """Put 128 elements together from their bit planes.

    Parameters
    ----------
    target : int
        Address of the 128 elements.
    source : int
        Address of 16 bytes of the plane of bit 0; the next plane is `stride` bytes on.
    stride : int
    size : literal int
        Bytes of an element: 1, 2, 4 or 8.
    """
    if not isinstance(size, types.IntegerLiteral):
        return None
    width = size.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, source, stride = args[:3]
        rows: list[Any] = [None] * (8 * width)
        for byte in range(width):
            planes = []
            for bit in range(8):
                step = builder.mul(stride, ir.Constant(_WORD, 8 * byte + bit))
                planes.append(_load(builder, builder.add(source, step), _VECTOR))
            for place, row in enumerate(_transpose_bits(builder, planes)):
                rows[place * width + byte] = row
        for _ in range((8 * width).bit_length() - 1):
            rows = _riffle(builder, rows)
        for place, row in enumerate(rows):
            _store(builder, row, builder.add(target, ir.Constant(_WORD, 16 * place)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, size), generate


_LANES = ir.VectorType(_WORD, 8)


@intrinsic
def sum_words(typingctx: Any, source: Any, steps: Any, target: Any) -> Any:
    """Sums of 64-bit words in eight lanes, and of their upper halves, plain and weighted.

    Parameters
    ----------
    source : int
        Address of ``8 * steps`` words; word i belongs to lane i modulo 8.
    steps : int
    target : int
        Address of 32 64-bit numbers, eight lanes of each modulo 2**64: the sums
        of the words, those of the words times ``steps, steps - 1 ... 1``, and
        both of the words' upper 32 bits.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero, half = (ir.Constant(_LANES, [ir.Constant(_WORD, each)] * 8) for each in (0, 32))
        kept = [cgutils.alloca_once_value(builder, zero) for _ in range(4)]
        with cgutils.for_range(builder, args[1]) as loop:
            place = builder.add(args[0], builder.mul(loop.index, ir.Constant(_WORD, 64)))
            words = _load(builder, place, _LANES)
            for first, part in ((0, words), (2, builder.lshr(words, half))):
                total = builder.add(builder.load(kept[first]), part)
                builder.store(total, kept[first])
                weighted = builder.add(builder.load(kept[first + 1]), total)
                builder.store(weighted, kept[first + 1])
        for place, each in enumerate(kept):
            there = builder.add(args[2], ir.Constant(_WORD, 64 * place))
            _store(builder, builder.load(each), there)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate
