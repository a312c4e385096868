"""Expressions of the loop IR: typed operations over register tiles.

An expression's value is a *register tile*: ``tile == ()`` is a scalar, ``(16,)`` a vector,
``(8, 3, 16)`` eight by three vectors held in registers. Operations work element by element and
broadcast like NumPy. Index arithmetic is a canonical polynomial (`Index`), so a schedule can ask
for its coefficient in a loop variable. Every value is typed and every conversion explicit; a fused
multiply-add exists only where it is written.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from graphc.ir.dim import Dim, SizeExpr, product
from graphc.ir.operations import OPERATIONS
from graphc.ir.scalar_math import convert
from graphc.ir.types import DType, bool_, int64

Tile = tuple[int, ...]
_interned: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()


class Expr:
    """Base of expressions; structurally equal expressions are the same object."""

    __slots__ = ("__weakref__",)
    dtype: DType
    tile: Tile

    def __add__(self, other: Scalar) -> Expr:
        return apply("add", self, other)

    def __radd__(self, other: Scalar) -> Expr:
        return apply("add", other, self)

    def __sub__(self, other: Scalar) -> Expr:
        return apply("sub", self, other)

    def __rsub__(self, other: Scalar) -> Expr:
        return apply("sub", other, self)

    def __mul__(self, other: Scalar) -> Expr:
        return apply("mul", self, other)

    def __rmul__(self, other: Scalar) -> Expr:
        return apply("mul", other, self)

    def __truediv__(self, other: Scalar) -> Expr:
        return apply("div", self, other)

    def __rtruediv__(self, other: Scalar) -> Expr:
        return apply("div", other, self)

    def __floordiv__(self, other: Scalar) -> Expr:
        return apply("floordiv", self, other)

    def __mod__(self, other: Scalar) -> Expr:
        return apply("mod", self, other)

    def __lt__(self, other: Scalar) -> Expr:
        return apply("lt", self, other)

    def __le__(self, other: Scalar) -> Expr:
        return apply("le", self, other)

    def __gt__(self, other: Scalar) -> Expr:
        return apply("gt", self, other)

    def __ge__(self, other: Scalar) -> Expr:
        return apply("ge", self, other)

    def __and__(self, other: Scalar) -> Expr:
        return apply("and", self, other)

    def __or__(self, other: Scalar) -> Expr:
        return apply("or", self, other)

    def __xor__(self, other: Scalar) -> Expr:
        return apply("xor", self, other)

    def __lshift__(self, other: Scalar) -> Expr:
        return apply("shl", self, other)

    def __rshift__(self, other: Scalar) -> Expr:
        return apply("shr", self, other)

    def __neg__(self) -> Expr:
        return apply("neg", self)

    def __invert__(self) -> Expr:
        return apply("not", self)

    def eq(self, other: Scalar) -> Expr:
        """Return ``self == other`` as a bool."""
        return apply("eq", self, other)

    def ne(self, other: Scalar) -> Expr:
        """Return ``self != other`` as a bool."""
        return apply("ne", self, other)


Scalar = Expr | int | float | bool | SizeExpr


@dataclass(frozen=True, slots=True, eq=False)
class Const(Expr):
    """A scalar constant."""

    value: int | float | bool
    dtype: DType
    tile: Tile = ()


@dataclass(frozen=True, slots=True, eq=False)
class Index(Expr):
    """Integer arithmetic (i64) over sizes and loop variables, as one canonical polynomial."""

    dim: Dim
    dtype: DType = int64
    tile: Tile = ()


@dataclass(frozen=True, slots=True, eq=False)
class Iota(Expr):
    """The i64 tile 0, 1, 2, ... in row-major order."""

    tile: Tile
    dtype: DType = int64


@dataclass(frozen=True, slots=True, eq=False)
class Use(Expr):
    """The register that a `Let` or `Declare` named."""

    name: str
    dtype: DType
    tile: Tile = ()


@dataclass(frozen=True, slots=True, eq=False)
class Apply(Expr):
    """A machine-level or (before `expand`) mathematical operation; see `OPERATIONS`."""

    op: str
    args: tuple[Expr, ...]
    dtype: DType
    tile: Tile = ()


@dataclass(frozen=True, slots=True, eq=False)
class Load(Expr):
    """A read of ``buffer`` at an element offset.

    With ``strides`` the tile reads ``offset + sum(lane[d] * strides[d])``; without, each element
    of ``offset``'s own tile is an address (a gather). Where ``mask`` is false nothing is read and
    the value is ``fill``.
    """

    buffer: Buffer
    offset: Expr
    dtype: DType
    tile: Tile = ()
    strides: tuple[Dim, ...] = ()
    mask: Expr | None = None
    fill: int | float | bool = 0


@dataclass(frozen=True, slots=True, eq=False)
class Reduce(Expr):
    """A reduction before scheduling: ``combine`` over every index of ``axes`` of ``body``."""

    combine: str
    axes: tuple[Axis, ...]
    body: Expr
    dtype: DType
    tile: Tile = ()


@dataclass(frozen=True, slots=True, eq=False)
class Fold(Expr):
    """A fixed tree over the whole of a tile: the upper half combined with the lower, repeatedly.

    Axes are folded first to last; each by halves, so every engine adds in the same order.
    """

    combine: str
    arg: Expr
    dtype: DType
    tile: Tile = ()


@dataclass(frozen=True, slots=True, eq=False)
class Splat(Expr):
    """A scalar copied to every element of a tile: the start value of an accumulator."""

    arg: Expr
    dtype: DType
    tile: Tile


@dataclass(frozen=True, slots=True, eq=False)
class Repeat(Expr):
    """A vector whose lane ``k`` is lane ``(k + first) // count`` of a shorter one."""

    arg: Expr
    count: int
    first: int
    dtype: DType
    tile: Tile


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory a kernel reads or writes: a parameter, or scratch made by `Alloc`."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]
    space: str = "global"

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype.short}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Axis:
    """A loop variable ``0 <= name < extent``."""

    name: str
    extent: Dim


# -- constructors ----------------------------------------------------------------------------


def _intern(cls: type[Expr], *fields: Any) -> Any:
    key = (cls, *fields)
    found = _interned.get(key)
    if found is None:
        found = _interned[key] = cls(*fields)
    return found


def const(value: Any, dtype: DType) -> Expr:
    """Return a scalar constant; an i64 one is an `Index`."""
    if dtype is int64:
        return index(int(value))
    item = np.asarray(value).astype(dtype.numpy).item()
    # repr tells -0.0 from 0.0 and makes nan equal to itself, which == would not.
    key = (Const, repr(item), dtype)
    found = _interned.get(key)
    if found is None:
        found = _interned[key] = Const(item, dtype)
    return found


def index(dim: Dim) -> Index:
    """Return integer arithmetic over sizes and loop variables as an expression."""
    return _intern(Index, dim)  # type: ignore[no-any-return]


def iota(lanes: int) -> Iota:
    """Return the vector 0 .. lanes - 1 (i64)."""
    return _intern(Iota, (lanes,))  # type: ignore[no-any-return]


def use(name: str, like: Expr) -> Use:
    """Return a reference to a register that holds a value like ``like``."""
    return _intern(Use, name, like.dtype, like.tile)  # type: ignore[no-any-return]


def as_expr(value: Scalar, dtype: DType) -> Expr:
    """Return a Python number or a Dim as an expression of type ``dtype``."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, SizeExpr):
        return cast(index(value), dtype)
    return const(value, dtype)


def broadcast_tiles(tiles: Sequence[Tile]) -> Tile:
    """Return the common tile shape by NumPy's rule."""
    return tiles[0] if len(set(tiles)) == 1 else np.broadcast_shapes(*tiles)


def apply(op: str, *args: Scalar, dtype: DType | None = None) -> Expr:
    """Apply an operation; folds integer index arithmetic and trivial identities.

    Parameters
    ----------
    op : str
        A name in `OPERATIONS`.
    *args : Expr or number
        Numbers take the type of the first expression beside them.
    dtype : DType, optional
        Result type of ``cast`` and ``bitcast``.
    """
    rule = OPERATIONS[op]
    peers = [a.dtype for a in (args[1:] if op == "select" else args) if isinstance(a, Expr)]
    peer = peers[0] if peers else int64
    exprs = tuple(
        as_expr(a, bool_ if op == "select" and position == 0 else peer)
        for position, a in enumerate(args)
    )
    mixed = {e.dtype for e in (exprs[1:] if op == "select" else exprs)}
    if len(mixed) > 1:
        raise TypeError(f"{op} got operands of types {', '.join(sorted(map(str, mixed)))}")
    folded = _fold_index(op, exprs)
    if folded is not None:
        return folded
    result = bool_ if rule.result == "bool" else dtype if rule.result == "cast" else peer
    tile = broadcast_tiles([e.tile for e in exprs]) if len(exprs) > 1 else exprs[0].tile
    return _intern(Apply, op, exprs, result, tile)  # type: ignore[no-any-return]


_INDEX_FOLDS: dict[str, Callable[[Any, Any], Dim]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul,
    "floordiv": operator.floordiv, "mod": operator.mod,
}  # fmt: skip


_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "eq": operator.eq, "ne": operator.ne,
}  # fmt: skip


def _fold_index(op: str, exprs: tuple[Expr, ...]) -> Expr | None:
    """Keep index arithmetic in polynomial form; drop ``x + 0`` and ``x * 1`` on integers."""
    if op in _INDEX_FOLDS and all(isinstance(e, Index) for e in exprs):
        a, b = (e.dim for e in exprs)  # type: ignore[attr-defined]
        if op in ("floordiv", "mod") and not (isinstance(b, SizeExpr) or b > 0):
            return None
        return index(_INDEX_FOLDS[op](a, b))
    if op == "neg" and isinstance(exprs[0], Index):
        return index(-exprs[0].dim)
    if op == "select" and isinstance(exprs[0], Const):
        return exprs[1] if exprs[0].value else exprs[2]
    if op in _COMPARE:
        return _fold_comparison(op, exprs)
    if op in ("and", "or") and exprs[0].dtype is bool_:
        return _fold_logic(op, exprs)
    return None


def _fold_comparison(op: str, exprs: tuple[Expr, ...]) -> Expr | None:
    a, b = exprs
    if isinstance(a, Index) and isinstance(b, Index):
        difference = a.dim - b.dim
        if isinstance(difference, int):
            return const(_COMPARE[op](difference, 0), bool_)
    return None


def _fold_logic(op: str, exprs: tuple[Expr, ...]) -> Expr | None:
    for this, other in (exprs, exprs[::-1]):
        if isinstance(this, Const):
            return other if bool(this.value) == (op == "and") else this
    return None


def cast(value: Expr, dtype: DType) -> Expr:
    """Convert a value; itself when it has the type already."""
    if value.dtype is dtype:
        return value
    if isinstance(value, Const) or (isinstance(value, Index) and isinstance(value.dim, int)):
        number = value.value if isinstance(value, Const) else value.dim
        return const(convert(np.asarray(number, value.dtype.numpy), dtype), dtype)
    return apply("cast", value, dtype=dtype)


def bitcast(value: Expr, dtype: DType) -> Expr:
    """Reinterpret the bits of a value as another type of the same size."""
    return apply("bitcast", value, dtype=dtype)


def select(condition: Expr, a: Scalar, b: Scalar) -> Expr:
    """Return ``a`` where ``condition`` holds, else ``b``."""
    return apply("select", condition, a, b)


def load(
    buffer: Buffer,
    offset: Expr,
    tile: Tile = (),
    strides: tuple[Dim, ...] = (),
    mask: Expr | None = None,
    fill: int | float | bool = 0,
) -> Expr:
    """Read a buffer; see `Load`."""
    shape = tile if strides else offset.tile
    return _intern(Load, buffer, offset, buffer.dtype, shape, strides, mask, fill)  # type: ignore


def reduce(combine: str, axes: tuple[Axis, ...], body: Expr) -> Expr:
    """Reduce ``body`` over loop variables; `body` itself where there are none."""
    return _intern(Reduce, combine, axes, body, body.dtype) if axes else body


def splat(value: Expr, tile: Tile) -> Expr:
    """Copy a scalar to every element of a tile."""
    found: Expr = _intern(Splat, value, value.dtype, tile) if tile else value
    return found


def repeat(value: Expr, lanes: int, count: int, first: int = 0) -> Expr:
    """Copy each lane of a vector ``count`` times, the first one ``first`` times less."""
    return _intern(Repeat, value, count, first, value.dtype, (lanes,))  # type: ignore


def fold(combine: str, value: Expr) -> Expr:
    """Reduce a whole tile to a scalar by a fixed tree."""
    return _intern(Fold, combine, value, value.dtype) if value.tile else value


def row_major(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """Return the element strides of a C-contiguous array."""
    return tuple(product(shape[axis + 1 :]) for axis in range(len(shape)))


def flatten(buffer: Buffer, indices: Sequence[Expr]) -> Expr:
    """Return the element offset of a multi-index into a C-contiguous buffer."""
    if all(isinstance(position, Index) for position in indices):
        place: Dim = 0
        for position, size in zip(indices, buffer.shape, strict=True):
            place = place * size + position.dim  # type: ignore[attr-defined]
        return index(place)
    offset: Expr = index(0)
    for position, stride in zip(indices, row_major(buffer.shape), strict=True):
        offset = offset + position * index(stride)
    return offset


# -- traversal -------------------------------------------------------------------------------


def children(expr: Expr) -> tuple[Expr, ...]:
    """Return the direct operands of an expression."""
    match expr:
        case Apply():
            return expr.args
        case Load():
            return (expr.offset,) if expr.mask is None else (expr.offset, expr.mask)
        case Reduce():
            return (expr.body,)
        case Fold() | Splat() | Repeat():
            return (expr.arg,)
    return ()


def walk(expr: Expr, seen: set[int] | None = None) -> Iterator[Expr]:
    """Yield every distinct sub-expression, operands first."""
    seen = set() if seen is None else seen
    if id(expr) in seen:
        return
    seen.add(id(expr))
    for child in children(expr):
        yield from walk(child, seen)
    yield expr


def rebuild(expr: Expr, visit: Callable[[Expr], Expr | None], memo: dict[Expr, Expr]) -> Expr:
    """Rewrite an expression bottom-up.

    ``visit(expr)`` sees each node before its operands are rewritten and may return a replacement;
    None rebuilds the node over rewritten operands.
    """
    found = memo.get(expr)
    if found is None:
        found = memo[expr] = visit(expr) or with_children(expr, visit, memo)
    return found


def with_children(expr: Expr, visit: Callable[[Expr], Expr | None], memo: dict[Expr, Expr]) -> Expr:
    """Rebuild one node over operands rewritten by ``visit``; itself where they stay as they are."""
    if all([rebuild(e, visit, memo) is e for e in children(expr)]):
        return expr
    match expr:
        case Apply():
            args = [rebuild(a, visit, memo) for a in expr.args]
            return apply(expr.op, *args, dtype=expr.dtype)
        case Load():
            mask = None if expr.mask is None else rebuild(expr.mask, visit, memo)
            offset = rebuild(expr.offset, visit, memo)
            return load(expr.buffer, offset, expr.tile, expr.strides, mask, expr.fill)
        case Reduce():
            return reduce(expr.combine, expr.axes, rebuild(expr.body, visit, memo))
        case Fold():
            return fold(expr.combine, rebuild(expr.arg, visit, memo))
        case Splat():
            return splat(rebuild(expr.arg, visit, memo), expr.tile)
        case Repeat():
            return repeat(rebuild(expr.arg, visit, memo), expr.tile[0], expr.count, expr.first)
    return expr
