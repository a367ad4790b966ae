"""Compiled loops over the emission matrix: four of its rows against pairs of vectors, in vector registers.

numba leaves vector registers to LLVM's loop vectoriser, which keeps one number a sum; a code with several scales a row needs
a sum for each residue of the state. So the innermost loop is written in LLVM's own language, with vectors of 16 float32 that
LLVM cuts to what the machine has. The functions that use it stand in this file too: numba's cache on disk watches one file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from ctrldecode.kernels._jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    I32 = NDArray[np.int32]
    I64 = NDArray[np.int64]

__all__ = ["LANES", "candidates", "vocabulary", "vocabulary_in_pairs"]

# Rows of E that share what is read of the vectors. The vectors of one row of the batch fill a first-level cache at H = 4096, so
# they come from the second again and again: with two rows, float16 took 1.7 times as long.
ROWS = 4

# Sums of a row are kept apart by the state modulo LANES, so that a scale for each residue can be applied once, at the end.
LANES = 32

_WIDTH = 16  # float32 in a vector: one AVX-512 register, two of AVX

# Vectors of sums kept in registers for each row and vector, in all 16 of AVX-512's 32 registers, or all 16 of AVX.
_HELD = 2 if binding.get_host_cpu_features().get("avx512f") else 1

# A core waits for memory at the start of every page unless it is asked for ahead of time, and into the second level, as the first
# has no room. Milliseconds with two rows at a time, H = 4096 and two threads, without, 4, 16, 32 KiB ahead, and 8 KiB into the
# first level: uint8 17.0, 13.3, 9.8, 9.7, 12.7; float16 21.6, 18.8, 17.3, 17.2, 18.6; float32 35.9, 31.0, 31.3, 28.5, 35.4.
_AHEAD = 1 << 15
_LINE = 64

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, _WIDTH)
_INT = ir.IntType(64)
_WORD = ir.IntType(32)
_READ_INTO_L2 = (_WORD(0), _WORD(2), _WORD(1))  # of LLVM's prefetch: read, locality 2 of 3, data
_STORED = {types.uint8: ir.IntType(8), types.uint16: ir.HalfType(), types.float32: _FLOAT}
_BYTES = {_STORED[types.uint8]: 1, _STORED[types.uint16]: 2, _FLOAT: 4}


def _typed(_context: Any, values: Any, rows: Any, vectors: Any, chosen: Any, sums: Any) -> Any:
    """Dot products of ROWS rows of E with two vectors each, for one or two rows of the batch.

    sums[b, r, 0, l] = Σ level(values[rows[r], h]) · vectors[chosen[b, 0], h] over h ≡ l mod LANES; sums[b, r, 1, l] the same with
    chosen[b, 1 + r].

    Args:
        values: (V, H) uint8, float32, or uint16 that are the bits of float16.
        rows: ROWS indices of values.
        vectors: (N, H) float32.
        chosen: 1 + ROWS indices of vectors for each row of the batch.
        sums: (1 or 2, ROWS, 2, LANES) float32, overwritten.
    """
    signature = types.void(values, rows, vectors, chosen, sums)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        stored, table, found = (context.make_array(kinds[i])(context, builder, arguments[i]) for i in (0, 2, 4))
        states = cgutils.unpack_tuple(builder, stored.shape)[1]
        row = cgutils.unpack_tuple(builder, arguments[1])
        chosen = cgutils.unpack_tuple(builder, arguments[3])
        element = _STORED[kinds[0].dtype]
        base = builder.bitcast(stored.data, element.as_pointer())
        _Tile(
            builder,
            element,
            [builder.gep(base, [builder.mul(i, states)]) for i in row],
            [builder.gep(table.data, [builder.mul(i, states)]) for i in chosen],
            found.data,
        ).write(states)
        return context.get_dummy_value()

    return signature, generate


_tile: Any = intrinsic(_typed)


class _Tile:
    """Writes the loop of `_tile` with a builder of LLVM's language."""

    def __init__(self, builder: Any, element: Any, rows: list[Any], vectors: list[Any], sums: Any) -> None:
        self.builder, self.element, self.rows, self.vectors, self.sums = builder, element, rows, vectors, sums
        self.batch = len(vectors) // (1 + ROWS)
        self.places = range(2 * ROWS * self.batch)  # of sums, its first three axes as one

    def write(self, states: Any) -> None:
        """All states: sweeps over whole groups of lanes, then what is left."""
        held = max(1, _HELD // self.batch)  # sums of two rows of the batch share the registers
        lanes = LANES if self.element == _STORED[types.uint8] else held * _WIDTH  # one scale a row: one sweep is enough
        whole = self.builder.and_(states, _INT(-lanes))
        for lane in range(0, lanes, held * _WIDTH):
            self.sweep(lane, held, lanes, whole)
        for lane in range(lanes, LANES, _WIDTH):
            for place in self.places:
                self.keep(place, lane, ir.Constant(_VECTOR, None))
        with cgutils.for_range_slice(self.builder, whole, states, _INT(1), _INT) as (h, _):
            lane = self.builder.sub(h, whole)
            for place, product in self.products(h, 1):
                at = self.builder.gep(self.sums, [self.builder.add(_INT(place * LANES), lane)])
                self.builder.store(self.builder.fadd(self.builder.load(at), product), at)

    def sweep(self, lane: int, held: int, lanes: int, whole: Any) -> None:
        """`held` vectors of lanes from one on, over all whole groups."""
        builder = self.builder
        totals = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(held)] for _ in self.places]
        for total in (part for parts in totals for part in parts):
            builder.store(ir.Constant(_VECTOR, None), total)
        with cgutils.for_range_slice(builder, _INT(0), whole, _INT(lanes), _INT) as (group, _):
            if lane == 0:
                self.prefetch(group, lanes * _BYTES[self.element])
            for part in range(held):
                for place, product in self.products(builder.add(group, _INT(lane + part * _WIDTH)), _WIDTH):
                    total = totals[place][part]
                    builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
        for place in self.places:
            for part in range(held):
                self.keep(place, lane + part * _WIDTH, builder.load(totals[place][part]))

    def keep(self, place: int, lane: int, total: Any) -> None:
        at = self.builder.gep(self.sums, [_INT(place * LANES + lane)])
        self.builder.store(total, self.builder.bitcast(at, _VECTOR.as_pointer()), align=4)

    def prefetch(self, group: Any, size: int) -> None:
        """Ask for what lies _AHEAD behind a group of so many bytes of both rows. Past the end of E that does nothing."""
        builder, byte = self.builder, ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, *[_WORD] * 3])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        for row in self.rows:
            start = builder.bitcast(builder.gep(row, [group]), byte)
            for line in range(0, size, _LINE):
                at = builder.gep(start, [_INT(_AHEAD + line)])
                builder.call(function, [at, *_READ_INTO_L2])

    def products(self, at: Any, width: int) -> list[tuple[int, Any]]:
        """What states at, at + 1, ... add to the sums, by their places."""
        levels = [self.level(self.load(row, self.element, at, width), width) for row in self.rows]
        vectors = [self.load(vector, _FLOAT, at, width) for vector in self.vectors]
        found: list[tuple[int, Any]] = []
        for place in self.places:
            b, r, own = place // 2 // ROWS, place // 2 % ROWS, place % 2
            vector = vectors[(1 + ROWS) * b + (1 + r) * own]
            found.append((place, self.builder.fmul(levels[r], vector, flags=("contract",))))
        return found

    def load(self, base: Any, element: Any, at: Any, width: int) -> Any:
        place = self.builder.gep(base, [at])
        if width == 1:
            return self.builder.load(place)
        return self.builder.load(self.builder.bitcast(place, ir.VectorType(element, width).as_pointer()), align=1)

    def level(self, value: Any, width: int) -> Any:
        """What a stored value stands for, before it is scaled."""
        kind = _FLOAT if width == 1 else ir.VectorType(_FLOAT, width)
        if self.element == _FLOAT:
            return value
        if self.element == ir.HalfType():
            return self.builder.fpext(value, kind)
        # The square of an integer, exact, and not on the units that the sums need: 2 % of uint8's time.
        exact = self.builder.zext(value, _WORD if width == 1 else ir.VectorType(_WORD, width))
        return self.builder.sitofp(self.builder.mul(exact, exact), kind)


def _typed_dot(_context: Any, sums: Any, place: Any, scale: Any, token: Any) -> Any:
    """Σ_l sums[place, l] · scale[token, l mod G], the first three axes of sums being one; G is 1, or a multiple of 16."""
    signature = types.float32(sums, place, scale, token)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found, scales = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2))
        groups = cgutils.unpack_tuple(builder, scales.shape)[1]
        first = builder.gep(found.data, [builder.mul(arguments[1], _INT(LANES))])
        row = builder.gep(scales.data, [builder.mul(arguments[3], groups)])
        lanes = range(0, LANES, _WIDTH)
        kind = ir.FunctionType(_FLOAT, [_FLOAT, _VECTOR])
        reduce = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{_WIDTH}f32")

        def load(base: Any, at: Any) -> Any:
            return builder.load(builder.bitcast(builder.gep(base, [at]), _VECTOR.as_pointer()), align=4)

        def total(parts: list[Any]) -> Any:
            return builder.call(reduce, [_FLOAT(0.0), builder.fadd(*parts)], fastmath=("reassoc",))

        result = cgutils.alloca_once(builder, _FLOAT)
        parts = [load(first, _INT(lane)) for lane in lanes]
        with builder.if_else(builder.icmp_signed("==", groups, _INT(1))) as (single, several):
            with single:
                builder.store(builder.fmul(total(parts), builder.load(row)), result)
            with several:
                mask = builder.sub(groups, _INT(1))
                factors = [load(row, builder.and_(_INT(lane), mask)) for lane in lanes]
                builder.store(total([builder.fmul(*pair) for pair in zip(parts, factors, strict=True)]), result)
        return builder.load(result)

    return signature, generate


_dot: Any = intrinsic(_typed_dot)


@register_jitable
def _chosen(slots: I64, classes: I32, b: int, tokens: Any) -> Any:
    """The vectors that one row of the batch wants for four tokens."""
    first, second, third, fourth = tokens
    return (b, slots[b, classes[first]], slots[b, classes[second]], slots[b, classes[third]], slots[b, classes[fourth]])


@register_jitable
def _keep(sums: F32, b: int, scale: F32, tokens: Any, num: F32, den: F32, row: int, places: Any) -> None:
    """Write num and den of four tokens in one row of the batch, at their places, from sums[b]."""
    for r in range(ROWS):
        place = 2 * (ROWS * b + r)
        den[row, places[r]] = _dot(sums, place, scale, tokens[r])
        num[row, places[r]] = _dot(sums, place + 1, scale, tokens[r])


@register_jitable
def _four(first: int, end: int) -> Any:
    """Four indices from first on, the last before `end` again where there are fewer."""
    last = end - 1
    return (first, min(first + 1, last), min(first + 2, last), min(first + 3, last))


@jit
def vocabulary(
    values: Any, scale: F32, vectors: F32, slots: I64, classes: I32, low: int, high: int, num: F32, den: F32
) -> None:
    """Tokens low to high − 1 of the vocabulary pass, for all rows.

    Args:
        values: (V, H), as `_tile` takes it.
        scale: (V, G) float32, G being 1, 16 or 32.
        vectors: (N, H) float32, the first B of them the predictions of the rows.
        slots: (B, C) int64, the vector of every row for the tokens of every class.
        classes: (V,) int32.
        low: the first token.
        high: behind the last token.
        num: (B, V) float32, written.
        den: (B, V) float32, written.
    """
    sums = np.empty((1, ROWS, 2, LANES), np.float32)
    for v in range(low, high, ROWS):
        tokens = _four(v, high)
        for b in range(len(slots)):
            _tile(values, tokens, vectors, _chosen(slots, classes, b, tokens), sums)
            _keep(sums, 0, scale, tokens, num, den, b, tokens)


@jit
def vocabulary_in_pairs(
    values: Any, scale: F32, vectors: F32, slots: I64, classes: I32, low: int, high: int, num: F32, den: F32
) -> None:
    """As `vocabulary`, two rows of the batch at once, which saves loads."""
    one, two = np.empty((1, ROWS, 2, LANES), np.float32), np.empty((2, ROWS, 2, LANES), np.float32)
    for v in range(low, high, ROWS):
        tokens = _four(v, high)
        for a in range(0, len(slots) - 1, 2):
            b = a + 1
            chosen = _chosen(slots, classes, a, tokens) + _chosen(slots, classes, b, tokens)
            _tile(values, tokens, vectors, chosen, two)
            _keep(two, 0, scale, tokens, num, den, a, tokens)
            _keep(two, 1, scale, tokens, num, den, b, tokens)
        if len(slots) % 2:
            b = len(slots) - 1
            _tile(values, tokens, vectors, _chosen(slots, classes, b, tokens), one)
            _keep(one, 0, scale, tokens, num, den, b, tokens)


@jit
def candidates(
    values: Any,
    scale: F32,
    vectors: F32,
    slots: I64,
    classes: I32,
    tokens: I64,
    low: int,
    high: int,
    num: F32,
    den: F32,
) -> None:
    """As `vocabulary`, for tokens (B, K) int64 of each row, those at low to high − 1; num and den are (B, K)."""
    sums = np.empty((1, ROWS, 2, LANES), np.float32)
    for b in range(len(slots)):
        for k in range(low, high, ROWS):
            places = _four(k, high)
            first, second, third, fourth = places
            asked = (tokens[b, first], tokens[b, second], tokens[b, third], tokens[b, fourth])
            _tile(values, asked, vectors, _chosen(slots, classes, b, asked), sums)
            _keep(sums, 0, scale, asked, num, den, b, places)
