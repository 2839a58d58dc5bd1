"""Complex numbers in lanes: eight slices side by side in the registers of the processor.

Slices share their geometry, so every transform and every weight is the same for all of them. An array
(n, 2, LANES) of float32 holds n such numbers, real parts before imaginary parts, so that real
arithmetic on lanes is one vector instruction, which the compiler could not be relied on to find
by itself. Every lane is computed alike and knows nothing of the others.
"""

import operator
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from xctpipe.scan import FloatArray

LANES = 8
ALIGNMENT = 64
"""Bytes: a number of all lanes lies in one cache line."""
VECTOR = ir.VectorType(ir.FloatType(), LANES)
CONTRACT = ("contract",)
"""Products and sums may be one instruction; nothing else may be done to them."""


class LanesType(types.Type):
    """A complex number of all lanes."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = LanesType()


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    """A pair of vectors in the compiler's language."""

    def __init__(self, dmm: Any, fe_type: LanesType) -> None:
        super().__init__(dmm, fe_type, ir.LiteralStructType([VECTOR, VECTOR]))


def empty(*shape: int) -> FloatArray:
    """Array (..., 2, LANES) whose numbers do not straddle cache lines; not initialised."""
    size = int(np.prod(shape)) * 2 * LANES
    raw = np.empty(size + ALIGNMENT // 4, np.float32)
    start = -raw.ctypes.data % ALIGNMENT // 4
    return raw[start : start + size].reshape(*shape, 2, LANES)


def pair(builder: Any, re: Any, im: Any) -> Any:
    """The two vectors as one value."""
    value = builder.insert_value(ir.Constant(ir.LiteralStructType([VECTOR, VECTOR]), ir.Undefined), re, 0)
    return builder.insert_value(value, im, 1)


def parts(builder: Any, value: Any) -> tuple[Any, Any]:
    """Real and imaginary vector of a value."""
    return builder.extract_value(value, 0), builder.extract_value(value, 1)


def spread_out(builder: Any, scalar: Any) -> Any:
    """The same number in all lanes."""
    zero = ir.Constant(ir.IntType(32), 0)
    undefined = ir.Constant(VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, scalar, zero)
    return builder.shuffle_vector(
        one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    )


def pointers(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> list[Any]:
    """Where the two vectors of number `index` of a contiguous float32 array are."""
    data = context.make_array(array_type)(context, builder, array).data
    first = builder.mul(index, ir.Constant(index.type, 2 * LANES))
    second = builder.add(first, ir.Constant(index.type, LANES))
    return [builder.bitcast(builder.gep(data, [at]), VECTOR.as_pointer()) for at in (first, second)]


@intrinsic  # type: ignore[untyped-decorator]
def load(_context: Any, array: Any, index: Any) -> Any:
    """Number `index` of an array."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = [
            builder.load(pointer, align=4) for pointer in pointers(context, builder, sig.args[0], *args)
        ]
        return pair(builder, *values)

    return lanes(array, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Make a value number `index` of an array."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target = pointers(context, builder, sig.args[0], args[0], args[1])
        for part, pointer in zip(parts(builder, args[2]), target, strict=True):
            builder.store(part, pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def conj(_context: Any, value: Any) -> Any:
    """Complex conjugate."""

    def generate(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        re, im = parts(builder, args[0])
        return pair(builder, re, builder.fneg(im))

    return lanes(lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def times_i(_context: Any, value: Any) -> Any:
    """The value times the imaginary unit."""

    def generate(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        re, im = parts(builder, args[0])
        return pair(builder, builder.fneg(im), re)

    return lanes(lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def weighed(_context: Any, value: Any, weights: Any) -> Any:
    """Real part times real part and imaginary part times imaginary part; the weights complex64 or lanes."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if sig.args[1] == lanes:
            factors = parts(builder, args[1])
        else:
            number = context.make_complex(builder, types.complex64, value=args[1])
            factors = spread_out(builder, number.real), spread_out(builder, number.imag)
        both = zip(parts(builder, args[0]), factors, strict=True)
        return pair(builder, *(builder.fmul(a, b, flags=CONTRACT) for a, b in both))

    return lanes(lanes, weights), generate


@intrinsic  # type: ignore[untyped-decorator]
def straight(_context: Any, line: Any, at: Any) -> Any:
    """Real part plus a number times the imaginary part, as both parts."""

    def generate(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        start, slope = parts(builder, args[0])
        change = builder.fmul(slope, spread_out(builder, args[1]), flags=CONTRACT)
        value = builder.fadd(start, change, flags=CONTRACT)
        return pair(builder, value, value)

    return lanes(lanes, types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def scaled(_context: Any, value: Any, weights: Any, lane: Any) -> Any:
    """The value times what one lane of the weights has as its real part."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        weight = builder.extract_element(parts(builder, args[1])[0], args[2])
        return scale(context, builder, sig, (args[0], weight))

    return lanes(lanes, lanes, types.intp), generate


def transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of a square of vectors: in each round, pairs of rows exchange blocks of elements."""
    for width in (1, 2, 4):
        low = [i // width % 2 * LANES + i - i // width % 2 * width for i in range(LANES)]
        masks = [
            ir.Constant(ir.VectorType(ir.IntType(32), LANES), [i + at for i in low]) for at in (0, width)
        ]
        for i in range(LANES):
            if i // width % 2 == 0:
                both = rows[i], rows[i + width]
                rows[i], rows[i + width] = (builder.shuffle_vector(*both, mask) for mask in masks)
    return rows


@intrinsic  # type: ignore[untyped-decorator]
def pack(_context: Any, lines: Any, starts: Any, position: Any, out: Any) -> Any:
    """Make LANES columns of LANES lines, each from its own column on, the real numbers from `position` on.

    `lines` is a float32 array (LANES, col) with contiguous columns, `starts` int64, `position` even.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = context.make_array(sig.args[0])(context, builder, args[0])
        stride = builder.extract_value(source.strides, 0)
        first = context.make_array(sig.args[1])(context, builder, args[1]).data
        data = builder.ptrtoint(source.data, stride.type)
        rows = []
        for lane in range(LANES):
            start = builder.load(builder.gep(first, [ir.Constant(stride.type, lane)]))
            offset = builder.add(
                builder.mul(stride, ir.Constant(stride.type, lane)),
                builder.mul(builder.add(start, args[2]), ir.Constant(stride.type, 4)),
            )
            rows.append(
                builder.load(builder.inttoptr(builder.add(data, offset), VECTOR.as_pointer()), align=4)
            )
        index = builder.lshr(args[2], ir.Constant(stride.type, 1))
        target = []
        for i in range(LANES // 2):
            at = builder.add(index, ir.Constant(stride.type, i))
            target += pointers(context, builder, sig.args[3], args[3], at)
        for row, pointer in zip(transposed(builder, rows), target, strict=True):
            builder.store(row, pointer, align=4)
        return context.get_dummy_value()

    return types.void(lines, starts, types.intp, out), generate


@intrinsic  # type: ignore[untyped-decorator]
def unpack(_context: Any, numbers: Any, index: Any, out: Any, position: Any) -> Any:
    """Make LANES real numbers, of `index` and the numbers before it, those from `position` on of every line.

    `out` is a contiguous float32 array (LANES, col).
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows = []
        for i in range(LANES // 2):
            at = builder.sub(args[1], ir.Constant(args[1].type, i))
            rows += [
                builder.load(pointer, align=4)
                for pointer in pointers(context, builder, sig.args[0], args[0], at)
            ]
        target = context.make_array(sig.args[2])(context, builder, args[2])
        n_cols = builder.extract_value(target.shape, 1)
        for lane, row in enumerate(transposed(builder, rows)):
            at = builder.add(builder.mul(n_cols, ir.Constant(n_cols.type, lane)), args[3])
            builder.store(row, builder.bitcast(builder.gep(target.data, [at]), VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(numbers, types.intp, out, types.intp), generate


@infer_global(operator.add)
@infer_global(operator.sub)
class Sums(AbstractTemplate):  # type: ignore[misc]
    """Lanes and lanes add up to lanes."""

    def generic(self, args: Any, kws: Any) -> Any:
        """Type of a sum."""
        return signature(lanes, *args) if args == (lanes, lanes) else None


@infer_global(operator.mul)
class Products(AbstractTemplate):  # type: ignore[misc]
    """Lanes times a number, real or complex, the same for all lanes, or times lanes."""

    def generic(self, args: Any, kws: Any) -> Any:
        """Type of a product."""
        known = len(args) == 2 and args[0] == lanes and args[1] in {lanes, types.float32, types.complex64}
        return signature(lanes, *args) if known else None


@lower_builtin(operator.add, LanesType, LanesType)  # type: ignore[untyped-decorator]
def add(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
    """Sum."""
    both = zip(parts(builder, args[0]), parts(builder, args[1]), strict=True)
    return pair(builder, *(builder.fadd(a, b, flags=CONTRACT) for a, b in both))


@lower_builtin(operator.sub, LanesType, LanesType)  # type: ignore[untyped-decorator]
def subtract(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
    """Difference."""
    both = zip(parts(builder, args[0]), parts(builder, args[1]), strict=True)
    return pair(builder, *(builder.fsub(a, b, flags=CONTRACT) for a, b in both))


@lower_builtin(operator.mul, LanesType, types.float32)  # type: ignore[untyped-decorator]
def scale(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
    """Product with a real number."""
    factor = spread_out(builder, args[1])
    return pair(builder, *(builder.fmul(a, factor, flags=CONTRACT) for a in parts(builder, args[0])))


@lower_builtin(operator.mul, LanesType, types.complex64)  # type: ignore[untyped-decorator]
def rotate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Product with a complex number."""
    factor = context.make_complex(builder, sig.args[1], value=args[1])
    other = pair(builder, spread_out(builder, factor.real), spread_out(builder, factor.imag))
    return multiply(context, builder, sig, (args[0], other))


@lower_builtin(operator.mul, LanesType, LanesType)  # type: ignore[untyped-decorator]
def multiply(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
    """Product lane by lane."""
    a, b = parts(builder, args[0])
    c, d = parts(builder, args[1])
    products = [builder.fmul(x, y, flags=CONTRACT) for x, y in ((a, c), (b, d), (a, d), (b, c))]
    re = builder.fsub(products[0], products[1], flags=CONTRACT)
    return pair(builder, re, builder.fadd(products[2], products[3], flags=CONTRACT))
