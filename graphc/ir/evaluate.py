"""Evaluates loop-IR expressions with NumPy: the oracle of records' ``lower`` and of schedules.

An expression of tile ``T`` evaluates to an array of shape ``B + T``. ``B`` is the *batch*: the
common shape of the arrays that stand for loop variables, so one call evaluates an expression at
every index of a nest. Every step has the exact type of its expression; what a machine leaves open
(an address out of range, an integer divided by zero) is an error here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from graphc.errors import IndexRangeError, VerifyError
from graphc.ir import expr as E
from graphc.ir.dim import (
    Atom,
    Dim,
    FloorDiv,
    Maximum,
    Minimum,
    Modulo,
    PairAtom,
    Var,
    symbol,
    symbols,
    terms,
)
from graphc.ir.expr import (
    Apply,
    Buffer,
    Const,
    Expr,
    Fold,
    Index,
    Iota,
    Load,
    Reduce,
    Repeat,
    Splat,
    Use,
)
from graphc.ir.lowering import Lowering, Operand
from graphc.ir.op import Kind, OpDef
from graphc.ir.operations import IDENTITY
from graphc.ir.scalar_math import REFERENCES
from graphc.ir.sizes import SizeSolver, solving
from graphc.ir.types import TensorType, as_dtype

Array = np.ndarray[Any, Any]


def evaluate_expr(
    expr: Expr,
    names: Mapping[str, Any] | None = None,
    buffers: Mapping[str, Array] | None = None,
) -> Array:
    """Compute an expression.

    Parameters
    ----------
    expr : Expr
    names : mapping of str to int or numpy.ndarray
        Sizes, loop variables (arrays of them broadcast and make up the batch) and registers (a
        register of tile ``T`` has shape ``B + T`` or ``T``).
    buffers : mapping of str to numpy.ndarray
        C-contiguous contents of buffers by name, flat or shaped.

    Returns
    -------
    numpy.ndarray
        Shape ``B + expr.tile``, or broadcastable to it; dtype ``expr.dtype``.

    Raises
    ------
    IndexRangeError
        A load that no mask guards is outside its buffer.
    VerifyError
        A step has another type than its expression, or divides an integer by zero.
    """
    names = {} if names is None else names
    flat = {name: np.ascontiguousarray(b).reshape(-1) for name, b in (buffers or {}).items()}
    batch = max((_batch_ndim(e, names) for e in E.walk(expr)), default=0)
    with np.errstate(all="ignore"):
        return Evaluation(names, flat, batch).value(expr)


def _batch_ndim(expr: Expr, names: Mapping[str, Any]) -> int:
    if isinstance(expr, Use):
        return int(np.ndim(names[expr.name])) - len(expr.tile)
    dims: tuple[Dim, ...] = ()
    if isinstance(expr, Index):
        dims = (expr.dim,)
    elif isinstance(expr, Load):
        dims = expr.strides
    elif isinstance(expr, Reduce):
        dims = tuple(axis.extent for axis in expr.axes)
    used = frozenset[str]().union(*map(symbols, dims)) & names.keys()
    return max((int(np.ndim(names[name])) for name in used), default=0)


@dataclass(slots=True)
class Evaluation:
    """One environment: names, buffers, the number of batch axes, and what is known already."""

    names: Mapping[str, Any]
    buffers: Mapping[str, Array]
    batch: int
    known: dict[Expr, Array] = field(default_factory=dict)

    def value(self, expr: Expr) -> Array:
        found = self.known.get(expr)
        if found is None:
            found = np.asarray(self.compute(expr))
            if found.dtype != expr.dtype.numpy:
                raise VerifyError(f"{type(expr).__name__} is {expr.dtype}, computed {found.dtype}")
            self.known[expr] = found
        return found

    def compute(self, expr: Expr) -> Any:
        match expr:
            case Const():
                return self.spread(np.asarray(expr.value, expr.dtype.numpy))
            case Index():
                return self.size(expr.dim)
            case Iota():
                return self.spread(np.broadcast_to(np.arange(expr.tile[-1]), expr.tile))
            case Use():
                return self.register(expr)
            case Apply():
                return self.apply(expr)
            case Load():
                return self.load(expr)
            case Splat():
                return self.splat(expr)
            case Repeat():
                lanes = (np.arange(expr.tile[0]) + expr.first) // expr.count
                return self.value(expr.arg)[..., lanes]
            case Fold():
                return fold_tile(expr.combine, self.value(expr.arg), len(expr.arg.tile))
            case Reduce():
                return self.reduce(expr)
        raise VerifyError(f"cannot evaluate a {type(expr).__name__}")

    def spread(self, tile: Array) -> Array:
        """Return a tile with as many batch axes in front as this evaluation has."""
        return tile.reshape((1,) * self.batch + tile.shape)

    def register(self, expr: Use) -> Array:
        array = np.asarray(self.names[expr.name], expr.dtype.numpy)
        extra = self.batch + len(expr.tile) - array.ndim
        return array.reshape((1,) * extra + array.shape)

    def aligned(self, expr: Expr, tile_ndim: int) -> Array:
        """Return a value whose tile has ``tile_ndim`` axes, size-1 ones put in front."""
        array = self.value(expr)
        missing = tile_ndim - len(expr.tile)
        split = array.ndim - len(expr.tile)
        return array.reshape(array.shape[:split] + (1,) * missing + array.shape[split:])

    def apply(self, expr: Apply) -> Any:
        args = [self.aligned(a, len(expr.tile)) for a in expr.args]
        if expr.op in ("cast", "bitcast"):
            return REFERENCES[expr.op](args[0], expr.dtype)
        if expr.op in ("floordiv", "mod", "rem") and expr.dtype.integer:
            _check_divisor(expr, *args)
        return REFERENCES[expr.op](*args)

    def size(self, dim: Dim) -> Array:
        """Return a polynomial over sizes and loop variables; shape of the batch."""
        total: Array = np.zeros((1,) * self.batch, np.int64)
        for coefficient, monomial in terms(dim):
            product: Any = np.int64(coefficient)
            for atom, power in monomial:
                product = product * self.atom(atom) ** power
            total = total + product
        return total

    def atom(self, atom: Atom) -> Array:
        if isinstance(atom, Var):
            if atom.name not in self.names:
                raise VerifyError(f"size or loop variable {atom.name!r} has no value")
            array = np.asarray(self.names[atom.name], np.int64)
            return array.reshape((1,) * (self.batch - array.ndim) + array.shape)
        assert isinstance(atom, PairAtom)
        return np.asarray(_ATOMS[type(atom)](self.size(atom.a), self.size(atom.b)))

    def load(self, expr: Load) -> Array:
        memory = self.buffers[expr.buffer.name]
        address = self.places(expr.offset, expr.tile, expr.strides)
        mask = None if expr.mask is None else self.aligned(expr.mask, len(expr.tile))
        address, mask = checked_address(expr.buffer.name, address, mask, memory.size)
        if mask is None:
            return np.asarray(memory[address])
        if not memory.size:
            return np.full(address.shape, expr.fill, memory.dtype)
        return np.where(mask, memory[address], memory.dtype.type(expr.fill))

    def splat(self, expr: Splat) -> Array:
        scalar = self.aligned(expr.arg, len(expr.tile))
        return np.broadcast_to(scalar, scalar.shape[: self.batch] + expr.tile)

    def places(self, offset: Expr, tile: E.Tile, strides: Sequence[Dim]) -> Array:
        """Return the addresses of a tile's elements; see `Load`."""
        address = self.aligned(offset, len(tile))
        for axis, stride in enumerate(strides):
            lanes = np.arange(tile[axis]).reshape((-1,) + (1,) * (len(tile) - 1 - axis))
            step = self.size(stride)
            address = address + lanes * step.reshape(step.shape + (1,) * len(tile))
        return address

    def reduce(self, expr: Reduce) -> Any:
        extents = [self.size(axis.extent) for axis in expr.axes]
        sizes = tuple(int(e.max()) if e.size else 0 for e in extents)
        fill = expr.dtype.numpy.type(IDENTITY[expr.combine](expr.dtype))
        if 0 in sizes:
            return np.full((1,) * self.batch + expr.tile, fill)
        inner = self.nested(expr, sizes)
        body = inner.value(expr.body)
        tile = (1,) * len(expr.tile)
        for position, extent in enumerate(extents):
            if extent.size > 1:
                lane = inner.size(symbol(expr.axes[position].name))
                bound = extent.reshape(extent.shape + (1,) * len(sizes))
                body = np.where((lane < bound).reshape((lane < bound).shape + tile), body, fill)
        shape = list(body.shape)
        shape[self.batch : self.batch + len(sizes)] = sizes
        axes = tuple(range(self.batch, self.batch + len(sizes)))
        return _COMBINE[expr.combine].reduce(
            np.broadcast_to(body, shape), axis=axes, dtype=body.dtype
        )

    def nested(self, expr: Reduce, sizes: tuple[int, ...]) -> Evaluation:
        """Return an evaluation with one more batch axis for each axis of a reduction."""
        names = {}
        tiles = {e.name: len(e.tile) for e in E.walk(expr.body) if isinstance(e, Use)}
        for name, item in self.names.items():
            array = np.asarray(item)
            split = array.ndim - tiles.get(name, 0)
            grown = array.shape[:split] + (1,) * len(sizes) + array.shape[split:]
            names[name] = array.reshape(grown) if split else array
        for position, axis in enumerate(expr.axes):
            trailing = len(sizes) - 1 - position
            names[axis.name] = np.arange(sizes[position]).reshape((-1,) + (1,) * trailing)
        return Evaluation(names, self.buffers, self.batch + len(sizes))


_ATOMS: dict[type[Atom], Callable[[Array, Array], Array]] = {
    FloorDiv: np.floor_divide,
    Modulo: np.remainder,
    Minimum: np.minimum,
    Maximum: np.maximum,
}

_COMBINE: dict[str, np.ufunc] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
}


def _check_divisor(expr: Apply, a: Array, b: Array) -> None:
    if (b == 0).any():
        raise VerifyError(f"{expr.op} divides an {expr.dtype} by zero; the record must guard it")
    if expr.dtype.kind == "i" and ((b == -1) & (a == np.iinfo(expr.dtype.name).min)).any():
        raise VerifyError(f"{expr.op} overflows: the smallest {expr.dtype} divided by -1")


def checked_address(
    name: str, address: Array, mask: Array | None, size: int
) -> tuple[Array, Array | None]:
    """Return addresses that may be read, 0 where masked, and the mask broadcast to them.

    Raises
    ------
    IndexRangeError
        When an address that is not masked lies outside ``0 .. size - 1``.
    """
    if mask is not None:
        address, mask = np.broadcast_arrays(address, mask)
        address = np.where(mask, address, 0)
    outside = (address < 0) | (address >= size)
    if mask is not None:
        outside = outside & mask
    if outside.any():
        raise IndexRangeError(
            f"buffer {name!r} of {size} elements is accessed at {int(address[outside][0])}"
        )
    return address, mask


def fold_tile(combine: str, value: Array, tile_ndim: int) -> Array:
    """Fold the last ``tile_ndim`` axes by the fixed tree of `Fold`.

    Each axis in turn, first to last: its upper half is combined into its lower half until one
    element is left. Of an odd number of elements the middle one stays in the lower half.
    """
    axis = value.ndim - tile_ndim
    for _ in range(tile_ndim):
        value = np.moveaxis(value, axis, 0)
        while len(value) > 1:
            half = (len(value) + 1) // 2
            lower, upper = value[:half], value[half:]
            joined = REFERENCES[combine](lower[: len(upper)], upper)
            value = np.concatenate([joined, lower[len(upper) :]])
        value = value[0]
    return value




# -- a record's lowering -----------------------------------------------------------------------


def lower_and_evaluate(
    op: OpDef, arrays: Sequence[Any], attrs: Mapping[str, Any], *, symbolic: bool = False
) -> tuple[Array, ...]:
    """Run a record's ``lower`` at every output index.

    Parameters
    ----------
    op : OpDef
        A record with ``lower``.
    arrays : sequence of numpy.ndarray
        Operands; promoted as the record says.
    attrs : mapping
        Normalised attributes.
    symbolic : bool
        Lower over size variables in place of the operands' sizes, as compiled programs do. Sizes
        of 1 stay, since they broadcast.

    Returns
    -------
    tuple of numpy.ndarray
        One for each output.
    """
    operands, buffers, outputs, sizes = _typed_operands(op, arrays, attrs, symbolic)
    readers = [Operand(kind, _reader(f"p{n}", kind)) for n, kind in enumerate(operands)]
    whole = tuple(int(Evaluation(sizes, {}, 0).size(d)) for d in outputs[0].shape)
    found = tuple(np.empty(whole, kind.dtype.numpy) for kind in outputs)
    counts = {axis: whole[axis] for axis in op.unrolled} | dict(op.tiled)
    for chosen in map(partial(zip, counts), np.ndindex(*counts.values())):
        places = dict(chosen)
        steps = {a: op.tiled.get(a, whole[a] if a in places else 1) for a in range(len(whole))}
        chosen_part = tuple(slice(places.get(a, 0), None, max(n, 1)) for a, n in steps.items())
        shape = found[0][chosen_part].shape
        mesh = np.meshgrid(*map(np.arange, shape), indexing="ij", sparse=True)
        names = sizes | {f"i{axis}": lanes for axis, lanes in enumerate(mesh)}
        exprs = _lowered(op, readers, outputs, places, attrs)
        for array, expr, kind in zip(found, exprs, outputs, strict=True):
            array[chosen_part] = _at_every_index(expr, kind, shape, names, buffers)
    return found


def _lowered(
    op: OpDef, readers: Sequence[Operand], outputs: tuple[TensorType, ...],
    chosen: Mapping[int, int], attrs: Mapping[str, Any],
) -> tuple[Expr, ...]:  # fmt: skip
    """Return a record's scalars at the ``chosen`` places of tiles."""
    axes = count()
    steps = {axis: 0 for axis in op.unrolled} | dict(op.tiled)
    index = tuple(
        E.index(chosen.get(a, 0) + steps.get(a, 1) * symbol(f"i{a}"))
        for a in range(outputs[0].ndim)
    )
    k = Lowering(index, outputs, lambda: f"r{next(axes)}")
    pointwise = op.kind is Kind.POINTWISE
    lowered = op.lower(k, *(r.broadcast(index) if pointwise else r for r in readers), **attrs)
    return lowered if isinstance(lowered, tuple) else (lowered,)


def _at_every_index(
    expr: Expr,
    kind: TensorType,
    shape: tuple[int, ...],
    names: Mapping[str, Any],
    buffers: Mapping[str, Array],
) -> Array:
    if expr.dtype is not kind.dtype:
        raise VerifyError(f"lower returned {expr.dtype} for an output of type {kind}")
    if 0 in shape:
        return np.zeros(shape, kind.dtype.numpy)
    return np.broadcast_to(evaluate_expr(expr, names, buffers), shape).copy()


def _reader(name: str, kind: TensorType) -> Callable[..., Expr]:
    buffer = Buffer(name, kind.dtype, kind.shape)

    def read(index: tuple[Expr, ...], mask: Expr | None, fill: int | float | bool) -> Expr:
        return E.load(buffer, E.flatten(buffer, index), mask=mask, fill=fill)

    return read


def _typed_operands(
    op: OpDef, arrays: Sequence[Any], attrs: Mapping[str, Any], symbolic: bool
) -> tuple[list[TensorType], dict[str, Array], tuple[TensorType, ...], dict[str, int]]:
    """Return operand types, their contents by name, output types and the size variables."""
    found = [np.asarray(a) for a in arrays]
    solver = SizeSolver()

    def dim(size: int) -> Dim:
        return solver.fresh("s", size) if symbolic and size != 1 else size

    types = [TensorType(as_dtype(a.dtype), tuple(map(dim, a.shape))) for a in found]
    dtypes = op.operand_dtypes(types) or tuple(t.dtype for t in types)
    types = [t.with_dtype(d) for t, d in zip(types, dtypes, strict=True)]
    with solving(solver):
        inferred = op.infer(*types, **attrs)
        outputs = (inferred,) if isinstance(inferred, TensorType) else inferred
        types = [t.with_shape([solver.resolve(d) for d in t.shape]) for t in types]
        outputs = tuple(t.with_shape([solver.resolve(d) for d in t.shape]) for t in outputs)
    buffers = {f"p{n}": a.astype(t.dtype.numpy) for n, (a, t) in enumerate(zip(found, types))}
    return types, buffers, outputs, dict(solver.hints)
