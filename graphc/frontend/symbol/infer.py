"""Shapes of a Symbol's variables and outputs, from those of some variables.

The nodes are visited in order until nothing new is learnt. A call whose operands are all known is
typed by running it on traced values. The shapes of a layer's parameters follow from its data, and
operands that must be equal in shape lend it to each other. A size that is not known is a symbolic
one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from graphc.errors import ArgumentError, GraphcError, Location, ShapeError
from graphc.frontend.ndarray import NDTracer
from graphc.frontend.ops.operator import OPERATORS
from graphc.frontend.symbol.dtypes import Key, infer_dtypes, keeps_shape
from graphc.frontend.symbol.layer_shapes import Shape, parameter_shapes
from graphc.frontend.symbol.node import (
    OPERATOR,
    RECORD,
    VARIABLE,
    Entry,
    Node,
    run,
    topological,
)
from graphc.frontend.tracer import Trace, tracing
from graphc.ir.dim import Dim, SizeExpr, symbol
from graphc.ir.graph import placeholder
from graphc.ir.types import DType, TensorType, as_dtype, shape_text

_EQUAL_SHAPES = ("elemwise_add", "elemwise_sub", "elemwise_mul", "elemwise_div", "add_n")


def is_complete(shape: Shape | None) -> bool:
    """Return whether every size is known."""
    return shape is not None and not any(isinstance(d, SizeExpr) for d in shape)


def merged(a: Shape | None, b: Shape | None) -> Shape | None:
    """Return what two partly known shapes say together.

    Raises
    ------
    ShapeError
        When they contradict each other.
    """
    if a is None or b is None:
        return b if a is None else a
    if len(a) != len(b):
        raise ShapeError(f"shapes {shape_text(a)} and {shape_text(b)} differ")
    return tuple(_merged_size(x, y, a, b) for x, y in zip(a, b, strict=True))


def _merged_size(x: Dim, y: Dim, a: Shape, b: Shape) -> Dim:
    if isinstance(x, SizeExpr) or isinstance(y, SizeExpr):
        return y if isinstance(x, SizeExpr) and not isinstance(y, SizeExpr) else x
    if x != y:
        raise ShapeError(f"shapes {shape_text(a)} and {shape_text(b)} differ")
    return x


class Inference:
    """What is known of the types behind some heads.

    Parameters
    ----------
    heads : sequence of (Node, int)
    shapes : mapping of str to tuple of int
        Of variables by name; 0 and -1 are sizes that are not known.
    dtypes : mapping of str to DType
    exact : bool
        0 is a size.

    Raises
    ------
    ShapeError
        When shapes contradict each other; names the node and its operand.
    """

    def __init__(
        self, heads: Sequence[Entry], shapes: Mapping[str, Sequence[int]],
        dtypes: Mapping[str, DType], exact: bool = False,
    ) -> None:  # fmt: skip
        self._fresh = (symbol(f"unknown{n}") for n in itertools.count())
        self._order = list(topological(heads))
        self._shapes: dict[Key, Shape | None] = {}
        self._dtypes = infer_dtypes(heads, dtypes)
        self._typed: set[int] = set()
        for node in self._order:
            if node.kind == VARIABLE:
                self._shapes[id(node), 0] = self._declared(node, shapes.get(node.name), exact)
        while self._round():
            pass

    def shape(self, entry: Entry) -> Shape | None:
        """Return the shape of an output; symbolic where a size is not known."""
        return self._shapes.get((id(entry[0]), entry[1]))

    def dtype(self, entry: Entry) -> DType:
        """Return the element type of an output."""
        return self._dtypes[id(entry[0]), entry[1]]

    def _declared(self, node: Node, given: Sequence[int] | None, exact: bool) -> Shape | None:
        own = self._partial(node.params.get("shape"), False)
        asked = self._partial(given, exact)
        try:
            return merged(asked, own)
        except ShapeError:
            raise ShapeError(
                f"variable {node.name!r} was made with shape {shape_text(own or ())}, it gets "
                f"{shape_text(asked or ())}",
                where=node.where,
            ) from None

    def _partial(self, sizes: Sequence[int] | None, exact: bool) -> Shape | None:
        if sizes is None:
            return None
        known = 0 if exact else 1
        return tuple(int(d) if d >= known else next(self._fresh) for d in sizes)

    def _round(self) -> bool:
        """Visit every node once; return whether anything was learnt."""
        before = dict(self._shapes)
        for node in self._order:
            if node.kind != VARIABLE:
                self._parameters(node)
                self._outputs(node)
        for node in reversed(self._order):
            self._equal_operands(node)
        return before != self._shapes

    def _learn(self, entry: Entry, shape: Shape | None) -> None:
        key = id(entry[0]), entry[1]
        self._shapes[key] = merged(self._shapes.get(key), shape)

    # -- a layer's parameters, from its data -----------------------------------------------------

    def _parameters(self, node: Node) -> None:
        if node.kind != OPERATOR or not node.inputs:
            return
        data = self.shape(node.inputs[0])
        if data is None or node.places[0] != OPERATORS[node.op].inputs[0]:
            return
        try:
            needed = parameter_shapes(node.op, data, node.params)
        except ArgumentError as error:
            if all(is_complete(self.shape(entry)) for entry in node.inputs):
                return
            raise self._named(error, node) from None
        except GraphcError as error:
            raise self._named(error, node) from None
        for entry, place in zip(node.inputs[1:], node.places[1:], strict=True):
            try:
                self._learn(entry, needed.get(str(place)))
            except ShapeError:
                raise self._misfit(node, entry, str(place), data, needed[str(place)]) from None

    def _misfit(
        self, node: Node, entry: Entry, place: str, data: Shape, needed: Shape
    ) -> ShapeError:
        name = entry[0].output_name(entry[1])
        return ShapeError(
            f"{node.name}: its {place} {name!r} has shape {shape_text(self.shape(entry) or ())}, "
            f"but data of shape {shape_text(data)} needs {shape_text(needed)}",
            remedy=f"Give {name!r} that shape, or change the arguments of {node.op}.",
            where=_place(node),
        )

    # -- outputs, by running the call on traced values -------------------------------------------

    def _outputs(self, node: Node) -> None:
        shapes = [self.shape(entry) for entry in node.inputs]
        complete = all(map(is_complete, shapes))
        if id(node) in self._typed or any(shape is None for shape in shapes):
            return
        try:
            results = self._run(node, shapes)
        except GraphcError as error:
            if complete:
                raise self._explained(error, node) from None
            return
        if complete:
            self._typed.add(id(node))
        for index, result in enumerate(results):
            kind: TensorType = result.type
            self._learn((node, index), kind.shape)
            self._dtypes[id(node), index] = kind.dtype

    def _run(self, node: Node, shapes: Sequence[Any]) -> tuple[Any, ...]:
        with tracing(Trace()):
            operands = [
                NDTracer.wrap(placeholder(label, TensorType(self.dtype(entry), shape)))
                for label, entry, shape in zip(
                    node.input_labels, node.inputs, shapes, strict=True
                )
            ]
            return run(node, operands)

    def _named(self, error: GraphcError, node: Node) -> GraphcError:
        error.message = f"{node.name}: {error.message}"
        return self._explained(error, node)

    def _explained(self, error: GraphcError, node: Node) -> GraphcError:
        """Return the error with the node's operands by their names."""
        shown = []
        for label, entry in zip(node.input_labels, node.inputs, strict=True):
            shape = self.shape(entry)
            kind = "not known" if shape is None else TensorType(self.dtype(entry), shape)
            shown.append(f"{label} {entry[0].output_name(entry[1])}: {kind}")
        error.op, error.operands = node.op, tuple(shown)
        return error.attach(where=_place(node))

    # -- operands that must be equal ---------------------------------------------------------------

    def _equal_operands(self, node: Node) -> None:
        """Lend a shape to operands that have none and must have that of the others."""
        equal = node.op in _EQUAL_SHAPES if node.kind == OPERATOR else node.kind == RECORD
        if not keeps_shape(node) or not (equal or len(node.inputs) == 1):
            return
        shapes = [self.shape(entry) for entry in node.inputs]
        known = next((s for s in shapes if s is not None), self._shapes.get((id(node), 0)))
        for entry, shape in zip(node.inputs, shapes, strict=True):
            if shape is None:
                self._learn(entry, known)


def _place(node: Node) -> Location | None:
    return node.where and Location(node.where.file, node.where.line, node.name)


def known_dtypes(given: Mapping[str, Any]) -> dict[str, DType]:
    """Return types that a user gave by name as DTypes."""
    return {name: as_dtype(dtype) for name, dtype in given.items() if dtype is not None}


def plain_shape(shape: Shape | None) -> tuple[int, ...] | None:
    """Return a shape as users see it: 0 for a size that is not known."""
    if shape is None:
        return None
    return tuple(0 if isinstance(d, SizeExpr) else d for d in shape)
