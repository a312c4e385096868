"""What groups that lower to the same loops have in common, whatever their sizes.

A likeness is a group's body with the number of its first use in place of each size that `lower`
makes an argument of the kernel. Sizes among attributes stay as they are, beside their numbers:
what an op does with an attribute is its own affair.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from graphc.ir.dim import Dim, SizeExpr
from graphc.ir.graph import Graph
from graphc.ir.types import DType, TensorType
from graphc.passes.lower import is_constant

Arguments = tuple[tuple[int | None, Dim], ...]
"""Size arguments of a kernel: number in a likeness, or None for one that only attributes have."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """A body without its sizes, and the sizes in the order of their numbers.

    Bodies with equal keys lower to the same kernel; what is its argument in one body is in the
    other the size of the same number.
    """

    key: Hashable
    sizes: tuple[Dim, ...]

    def arguments(self, sizes: tuple[Dim, ...]) -> Arguments:
        """Return sizes of this body as numbers."""
        numbers = {size: number for number, size in enumerate(self.sizes)}
        return tuple((numbers[d], 0) if d in numbers else (None, d) for d in sizes)

    def sizes_of(self, arguments: Arguments) -> tuple[Dim, ...]:
        """Return what are the size arguments of a kernel in this body."""
        return tuple(size if n is None else self.sizes[n] for n, size in arguments)


def likeness(body: Graph, constants: frozenset[Dim] = frozenset()) -> Likeness | None:
    """Return what a group's body has in common with others; None where that is not known.

    Parameters
    ----------
    body : Graph
    constants : frozenset of Dim
        Sizes that are constants in its kernel, see `graphc.passes.lower.constants`.
    """
    numbers: dict[Dim, int] = {}
    places = {value: number for number, value in enumerate(body.inputs)}
    types = [_type(v.type, numbers, constants) for v in (*body.inputs, *body.outputs)]
    nodes: list[Hashable] = []
    for node in body.nodes:
        inputs = tuple(places[v] for v in node.inputs)
        results = tuple(_type(kind, numbers, constants) for kind in node.types)
        nodes.append((node.op.name, inputs, results))
        for value in node.outputs:
            places[value] = len(places)
    try:
        attributes = [_attribute(node.attrs, numbers) for node in body.nodes]
    except TypeError:
        return None
    outputs = tuple(places[v] for v in body.outputs)
    return Likeness((*types, *nodes, *attributes, outputs), tuple(numbers))


def _type(kind: TensorType, numbers: dict[Dim, int], constants: frozenset[Dim]) -> Hashable:
    """Return an element type and what stands for each size: itself, or its number in a tuple."""
    return kind.dtype, tuple(
        d if is_constant(d, constants) else (numbers.setdefault(d, len(numbers)),)
        for d in kind.shape
    )


def _attribute(item: Any, numbers: dict[Dim, int]) -> Hashable:
    """Return what stands for an attribute.

    Raises
    ------
    TypeError
        If it is of a type whose equality says too little.
    """
    if isinstance(item, (bool, float)):
        return type(item), repr(item)  # 1.0 is not 1, nor -0.0 the same as 0.0
    if isinstance(item, (int, SizeExpr)):
        return item, numbers.get(item)
    if isinstance(item, TensorType):
        return item.dtype, _attribute(item.shape, numbers)
    if isinstance(item, Mapping):
        return tuple((name, _attribute(part, numbers)) for name, part in sorted(item.items()))
    if isinstance(item, tuple):
        return tuple(_attribute(part, numbers) for part in item)
    if item is None or isinstance(item, (str, DType)):
        return item
    raise TypeError(f"an attribute is a {type(item).__name__}")
