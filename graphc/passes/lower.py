"""Lower a fusion group to the plain loop nest: one store for each output, nothing scheduled.

Buffers, sizes and loop variables get canonical names (``p0``, ``n0``, ``i0``, ``r0``), and sizes
above `STATIC_LIMIT` become kernel sizes, so that groups of the same structure lower to the same
kernel whatever their sizes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from graphc.errors import CompileError, located
from graphc.ir import expr as E
from graphc.ir.dim import Dim, SizeExpr, ceil_div, substitute, symbol, symbols
from graphc.ir.expr import Buffer, Expr
from graphc.ir.graph import Graph, Node, Value, substitute_sizes
from graphc.ir.loop import For, Kernel, Stmt, Store
from graphc.ir.lowering import Lowering, Operand
from graphc.ir.op import Kind
from graphc.ir.types import TensorType

STATIC_LIMIT = 8
"""Static sizes up to this are constants in a kernel; larger ones are arguments."""
_KERNEL_SIZE = re.compile(r"n\d+")


@dataclass(frozen=True, slots=True)
class OwnNest:
    """The loops of an op on one target, in place of those that its record has for all.

    Attributes
    ----------
    write : callable
        ``write(k, outputs, *operands, **attrs)``, as `graphc.ir.op.OpDef.nest`. Where the loops
        are in blocks and threads, the one over blocks is the whole body.
    constants : tuple of (int, int)
        Operand and axis of each size that is a constant in the kernel, however large it is.
    """

    write: Callable[..., tuple[Stmt, ...]]
    constants: tuple[tuple[int, int], ...] = ()

    def sizes(self, node: Node) -> frozenset[Dim]:
        """Return the sizes that are constants in the kernel of a node."""
        return frozenset(node.inputs[operand].shape[axis] for operand, axis in self.constants)


Nests = Mapping[str, OwnNest]
"""A target's own loops, by the op's name."""
NO_NESTS: Nests = MappingProxyType({})


def constants(body: Graph, nests: Nests) -> frozenset[Dim]:
    """Return the sizes that a target's own loops want as constants in the kernel of a group."""
    node = body.outputs[0].node
    return nests[node.op.name].sizes(node) if node.op.name in nests else frozenset()


def is_constant(dim: Dim, known: frozenset[Dim]) -> bool:
    """Return whether a size of the graph is a constant in a kernel, rather than an argument."""
    return isinstance(dim, int) and (dim <= STATIC_LIMIT or dim in known)


@dataclass(slots=True)
class Sizes:
    """Assigns kernel size variables to the sizes of a graph, in order of first use."""

    constants: frozenset[Dim] = frozenset()
    names: dict[Dim, str] = field(default_factory=dict)

    def abstract(self, dim: Dim) -> Dim:
        """Return the kernel's expression for a size of the graph."""
        if is_constant(dim, self.constants):
            return dim
        if isinstance(dim, SizeExpr) and symbols(dim) <= set(self.names.values()):
            return dim
        return symbol(self.names.setdefault(dim, f"n{len(self.names)}"))

    def type(self, kind: TensorType) -> TensorType:
        """Return a type over kernel size variables."""
        return kind.with_shape(tuple(self.abstract(d) for d in kind.shape))


@dataclass(frozen=True, slots=True)
class Lowered:
    """A plain kernel and what its size arguments are in the graph's own sizes."""

    kernel: Kernel
    sizes: tuple[Dim, ...]


def lower(body: Graph, name: str, nests: Nests = NO_NESTS) -> Lowered:
    """Lower a group's body.

    Parameters
    ----------
    body : Graph
        Primitive ops only.
    name : str
        Name of the kernel.
    nests : mapping of str to OwnNest
        The target's own loops.

    Returns
    -------
    Lowered

    Raises
    ------
    CompileError
        When an op has no lowering; names the op and the user's line.
    """
    body, own_names = _set_apart(body)
    sizes = Sizes(constants(body, nests))
    inputs = tuple(
        _buffer(f"p{i}", sizes.type(v.type)) for i, v in enumerate(body.inputs)
    )
    outputs = tuple(
        _buffer(f"o{i}", sizes.type(v.type)) for i, v in enumerate(body.outputs)
    )
    first = body.outputs[0].node
    if first.op.nests:
        buffers = dict(zip(body.inputs, inputs, strict=True))
        statements = _explicit(first, sizes, [buffers[v] for v in first.inputs], outputs, nests)
    else:
        scalars = _Scalars(sizes, dict(zip(body.inputs, inputs, strict=True)))
        sums = _sums_of_columns(body)
        found: list[Stmt] = []
        for buffer, value in zip(outputs, body.outputs, strict=True):
            if value in sums:
                found += _through_memory(buffer, value, scalars)
            else:
                found += _store_nests(buffer, value, scalars)
        statements = tuple(found)
    kernel = Kernel(
        name,
        inputs + outputs,
        len(outputs),
        tuple(sizes.names.values()),
        statements,
        where=first.where,
        ordered=first.op.nests,
    )
    return Lowered(kernel, tuple(substitute(d, own_names) for d in sizes.names))


def _set_apart(body: Graph) -> tuple[Graph, dict[str, Dim]]:
    """Rename size variables that are called like a kernel's own; return also the way back."""
    found = {name for value in _values(body) for dim in value.shape for name in symbols(dim)}
    found |= {name for node in body.nodes for dim in _dims(node.attrs) for name in symbols(dim)}
    clashes = {name: f"graph_{name}" for name in sorted(found) if _KERNEL_SIZE.fullmatch(name)}
    renamed = substitute_sizes(body, {name: symbol(new) for name, new in clashes.items()})
    return renamed, {new: symbol(name) for name, new in clashes.items()}


def _values(body: Graph) -> Iterator[Value]:
    yield from body.inputs
    for node in body.nodes:
        yield from node.outputs


def _dims(item: Any) -> Iterator[Dim]:
    """Yield the sizes among attributes."""
    if isinstance(item, SizeExpr):
        yield item
    elif isinstance(item, Mapping):
        yield from _dims(tuple(item.values()))
    elif isinstance(item, tuple):
        for part in item:
            yield from _dims(part)
    elif isinstance(item, TensorType):
        yield from _dims(item.shape)


def _buffer(name: str, kind: TensorType) -> Buffer:
    return Buffer(name, kind.dtype, kind.shape)


def _explicit(
    node: Node, sizes: Sizes, inputs: Sequence[Buffer], outputs: Sequence[Buffer], nests: Nests
) -> tuple[Stmt, ...]:
    k = Lowering((), tuple(map(sizes.type, node.types)), _Names(), sizes.abstract)
    write = nests[node.op.name].write if node.op.name in nests else node.op.nest
    statements: tuple[Stmt, ...] = write(k, tuple(outputs), *inputs, **node.attrs)
    return statements


def _store_nests(buffer: Buffer, value: Value, scalars: _Scalars) -> Iterator[Stmt]:
    """Yield loops around a store of the value; one for each index of a tile that is unrolled."""
    op = value.node.op
    sizes = {axis: buffer.shape[axis] for axis in op.unrolled} | dict(op.tiled)
    counts = [size for size in sizes.values() if isinstance(size, int)]
    for chosen in itertools.product(*map(range, counts)):
        yield _store_nest(buffer, value, scalars, dict(zip(sizes, chosen)))


def _sums_of_columns(body: Graph) -> set[Value]:
    """Return the outputs that are sums over rows, in a body that reduces rows as well."""
    reduces = [node for node in body.nodes if node.op.kind is Kind.REDUCE]
    apart = [n for n in reduces if n.types[0].shape[-1:] == n.inputs[0].shape[-1:] != ()]
    found = {value for node in apart for value in node.outputs}
    return found & set(body.outputs) if len(apart) < len(reduces) else set()


def _through_memory(buffer: Buffer, value: Value, scalars: _Scalars) -> Iterator[Stmt]:
    """Yield loops that store what is summed, and those that sum it.

    Its memory is no parameter: the schedule gives it some, or none.
    """
    (source,) = value.node.inputs
    kind = scalars.sizes.type(source.type)
    between = _buffer(f"rows_of_{buffer.name}", kind)
    yield from _store_nests(between, source, scalars)
    own = _Scalars(scalars.sizes, {source: between}, scalars.names)
    yield from _store_nests(buffer, value, own)


def _store_nest(
    buffer: Buffer, value: Value, scalars: _Scalars, chosen: dict[int, int]
) -> Stmt:
    """Return loops around one store, at the ``chosen`` places of tiles; axes of size 1 need none.
    """
    tiled = value.node.op.tiled
    extents: dict[int, Dim] = {}
    index: list[Expr] = []
    mask: Expr | None = None
    for axis, size in enumerate(buffer.shape):
        step = tiled.get(axis, 1)
        within = chosen.get(axis, 0)
        if size != 1 and (axis in tiled or axis not in chosen):
            extents[axis] = ceil_div(size, step)
        index.append(E.index(within + (step * symbol(f"i{axis}") if axis in extents else 0)))
        if step > 1 and step * ceil_div(size, step) != size:
            inside = index[-1] < E.index(size)
            mask = inside if mask is None else mask & inside
    place = E.flatten(buffer, index)
    statement: Stmt = Store(buffer, place, scalars.at(value, tuple(index)), mask=mask)
    for axis, extent in reversed(extents.items()):
        statement = For(f"i{axis}", E.index(0), E.index(extent), (statement,))
    return statement


class _Names:
    """Counts out fresh names."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"r{self.count - 1}"


class _Scalars:
    """The scalar of any value of a group at any index, each built once."""

    def __init__(
        self, sizes: Sizes, buffers: dict[Value, Buffer], names: _Names | None = None
    ) -> None:
        self.sizes, self.buffers = sizes, buffers
        self.memo: dict[tuple[Node, tuple[Expr, ...]], tuple[Expr, ...]] = {}
        self.names = names or _Names()
        self.left: dict[Node, dict[Any, Any]] = {}

    def at(self, value: Value, index: tuple[Expr, ...]) -> Expr:
        """Return the scalar of ``value`` at ``index``."""
        shape = value.shape
        own = tuple(E.index(0) if d == 1 else i for d, i in zip(shape, index, strict=True))
        if value in self.buffers:
            buffer = self.buffers[value]
            return E.load(buffer, E.flatten(buffer, own))
        key = (value.node, own)
        if key not in self.memo:
            with located(value.node.where):
                self.memo[key] = self._lower(value.node, own)
        return self.memo[key][value.index]

    def _read(
        self, value: Value, index: tuple[Expr, ...], mask: Expr | None, fill: Any
    ) -> Expr:
        if mask is None:
            return self.at(value, index)
        if value in self.buffers:
            buffer = self.buffers[value]
            return E.load(buffer, E.flatten(buffer, index), mask=mask, fill=fill)
        return E.select(mask, self.at(value, index), fill)

    def _lower(self, node: Node, index: tuple[Expr, ...]) -> tuple[Expr, ...]:
        if not node.op.lowers:
            raise CompileError(
                f"{node.op.name} cannot be compiled: its record has no lowering",
                where=node.where,
                op=node.op.name,
                operands=[v.type for v in node.inputs],
            )
        types = tuple(map(self.sizes.type, node.types))
        left = self.left.setdefault(node, {})
        k = Lowering(index, types, self.names, self.sizes.abstract, left)
        operands: list[Any] = [self._operand(v) for v in node.inputs]
        if node.op.kind is Kind.POINTWISE:
            operands = [operand.broadcast(index) for operand in operands]
        result = node.op.lower(k, *operands, **node.attrs)
        return result if isinstance(result, tuple) else (result,)

    def _operand(self, value: Value) -> Operand:
        def read(index: tuple[Expr, ...], mask: Expr | None, fill: Any) -> Expr:
            return self._read(value, index, mask, fill)

        return Operand(self.sizes.type(value.type), read)
