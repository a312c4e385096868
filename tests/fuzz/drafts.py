"""A graph in the making: values with arrays that show what they hold, and a seeded choice of them.

Sizes are symbolic. Every value has an array at the sizes seen while drafting, so that a step can
ask whether operands fit, and can refuse results that blow up.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

import graphc.ir.ops  # noqa: F401
from graphc.frontend.trace import finish
from graphc.ir.dim import evaluate
from graphc.ir.graph import Graph, Value, input_name, placeholder, topological
from graphc.ir.interp import evaluate_node
from graphc.ir.operand import REGISTRY
from graphc.ir.ops import padding, rearrange
from graphc.ir.sizes import SizeSolver
from graphc.ir.types import DType, TensorType, as_dtype

DTYPES = ("float32",) * 6 + ("float64",) * 2 + ("int32", "int64", "uint8", "bool")
LARGEST = 60.0
"""Floating results are refused above this."""
MOST_ELEMENTS = 20_000

# Ops that both sides compute with the same rounding, given equal operands.
_EXACT = """
    add subtract multiply divide negative abs relu sign floor ceil round trunc maximum minimum
    clip where cast copy stop_gradient square sqrt equal not_equal less less_equal greater
    greater_equal logical_and logical_or logical_not isfinite leaky_relu broadcast_to reshape
    transpose slice getitem slice_axis concat stack pad flip tile repeat roll expand_dims
    squeeze swapaxes moveaxis take pick one_hot gather_nd tril triu max min split max_pool
    argmax argmin any all random_uniform random_randint random_bernoulli bitwise_and bitwise_or
    bitwise_xor invert floor_divide mod constant full dropout
"""
EXACT = frozenset(_EXACT.split())
FUNCTIONS = {
    name: getattr(module, name)
    for module in (rearrange, padding)
    for name in REGISTRY
    if callable(getattr(module, name, None))
}
"""Compositions, which have a function beside their record."""


class Reject(Exception):
    """A step that does not fit what is there; the draft goes on with another."""


class Draft:
    """Values and their arrays.

    Parameters
    ----------
    seed : int
    floating : bool
        Only floating inputs, for gradients.
    """

    def __init__(self, seed: int, floating: bool = False) -> None:
        self.rng = random.Random(seed)
        self.floating = floating
        self.solver = SizeSolver()
        self.inputs: list[Value] = []
        self.pool: list[Value] = []
        self.arrays: dict[Value, np.ndarray] = {}
        self.exact: set[Value] = set()
        sizes = self.rng.sample([2, 3, 4, 5, 6, 7, 9, 17, 33], 4)
        self.palette = (*sizes, sizes[0], sizes[1], 1)

    # -- values ------------------------------------------------------------------------------

    def input(self, dtype: str, shape: tuple[int, ...], static: bool | None = None) -> Value:
        """Add an input whose axes are symbolic, unless ``static``."""
        static = self.rng.random() < 0.25 if static is None else static
        dims = shape if static else tuple(self.solver.fresh("n", size) for size in shape)
        value = placeholder(f"x{len(self.inputs)}", TensorType(as_dtype(dtype), dims))
        self.inputs.append(value)
        self._keep(value, draw(dtype, shape, self.rng))
        return value

    def fresh(self) -> Value:
        """Add an input of a random type."""
        ndim = self.rng.choice([0, 1, 1, 2, 2, 2, 3, 3, 3, 4])
        shape = tuple(self.rng.choice(self.palette) for _ in range(ndim))
        kinds = ("float32", "float64") if self.floating else DTYPES
        return self.input(self.rng.choice(kinds), shape)

    def scalar_input(self, dtype: str = "int64") -> Value:
        """Add a 0-d input: a seed or a counter."""
        return self.input(dtype, (), static=True)

    def pick(self, *tests: Callable[[Value], bool]) -> Value:
        """Return a random value that passes; computed and late ones are likelier."""
        found = [v for v in self.pool if all(test(v) for test in tests)]
        if not found:
            raise Reject
        computed = [v for v in found if v.op_name != "input"]
        if computed and self.rng.random() < 0.8:
            return self.rng.choice(computed[-self.rng.choice([2, 3, 8]) :])
        return self.rng.choice(found)

    def shape(self, value: Value) -> tuple[int, ...]:
        """Return the sizes of a value while drafting."""
        return tuple(self.arrays[value].shape)

    def emit(self, name: str, *operands: Any, **attrs: Any) -> Any:
        """Apply an op and keep its results, or reject them."""
        return self.keep(FUNCTIONS.get(name, REGISTRY[name])(*operands, **attrs))

    def keep(self, result: Any) -> Any:
        """Compute a result and put it into the pool, or reject it."""
        values = result if isinstance(result, tuple) else (result,)
        for value in values:
            array = self._compute(value)
            if array.size > MOST_ELEMENTS or array.size == 0:
                raise Reject
            if array.dtype.kind == "f" and not np.all(np.abs(array) < LARGEST):
                raise Reject
        for value in values:
            self._keep(value, self.arrays[value])
        return result

    def _keep(self, value: Value, array: np.ndarray) -> None:
        self.arrays[value] = array
        if value.op_name == "input" or self._is_exact(value):
            self.exact.add(value)
        if value not in self.pool:
            self.pool.append(value)

    def _is_exact(self, value: Value) -> bool:
        nodes = [n for n in topological([value]) if n.op.name != "input"]
        return all(n.op.name in EXACT or not _touches_floats(n) for n in nodes)

    def _compute(self, value: Value) -> np.ndarray:
        with np.errstate(all="ignore"):
            for node in topological([value], tuple(self.arrays)):
                found = evaluate_node(node, self.arrays, self.solver.hints)
                self.arrays.update(zip(node.outputs, found, strict=True))
        return self.arrays[value]

    # -- the graph ---------------------------------------------------------------------------

    def graph(self, outputs: int, updates: int) -> Graph:
        """Return the graph of some values, with some inputs replaced."""
        computed = [v for v in self.pool if v.op_name != "input"]
        if not computed:
            raise Reject
        unread = set(computed) - {u for v in computed for u in v.node.inputs}
        late = [v for v in computed if v in unread]
        self.rng.shuffle(late)
        extra = self.rng.sample(computed, min(len(computed), 2))
        results = list(dict.fromkeys([*late[:outputs], *extra]))[: outputs + 1]
        graph = finish(Graph("fuzz", tuple(self.inputs), tuple(results)), self.solver)
        return _with_updates(graph, updates, self.rng)


def _with_updates(graph: Graph, count: int, rng: random.Random) -> Graph:
    """Let some inputs be replaced by values of their type."""
    values = [v for node in graph.nodes for v in node.outputs]
    pairs: list[tuple[Value, Value]] = []
    for target in rng.sample(graph.inputs, len(graph.inputs)):
        fitting = [v for v in (*values, *graph.inputs) if v.type == target.type and v != target]
        if fitting and len(pairs) < count:
            pairs.append((target, rng.choice(fitting)))
    return Graph(graph.name, graph.inputs, graph.outputs, tuple(pairs), graph.constraints)


def _touches_floats(node: Any) -> bool:
    return any(v.dtype.floating for v in (*node.inputs, *node.outputs))


def is_float(value: Value) -> bool:
    """Return whether a value is floating."""
    return value.dtype.floating


def is_number(value: Value) -> bool:
    """Return whether a value is not bool."""
    return value.dtype.name != "bool"


def has_axes(count: int, most: int = 8) -> Callable[[Value], bool]:
    """Return a test for at least ``count`` axes."""
    return lambda value: count <= value.ndim <= most


def draw(dtype: str | DType, shape: tuple[int, ...], rng: random.Random) -> np.ndarray:
    """Return random elements: floats in -2 .. 2 on a coarse grid, small integers."""
    generator = np.random.default_rng(rng.randrange(2**32))
    kind = as_dtype(dtype)
    if kind.name == "bool":
        return np.asarray(generator.random(shape) < 0.5)
    if kind.floating:
        return np.asarray(generator.integers(-64, 65, shape) / 32.0).astype(kind.numpy)
    low = 0 if kind.kind == "u" else -4
    return np.asarray(generator.integers(low, 9, shape)).astype(kind.numpy)


def arguments(graph: Graph, sizes: dict[str, int], rng: random.Random) -> list[np.ndarray]:
    """Return arrays for the inputs of a graph at some sizes; Reject where there are none."""
    shapes = [tuple(evaluate(d, sizes) for d in v.shape) for v in graph.inputs]
    if any(size < 0 for shape in shapes for size in shape):
        raise Reject
    return [draw(v.dtype, shape, rng) for v, shape in zip(graph.inputs, shapes, strict=True)]


def text(graph: Graph) -> str:
    """Return a graph as lines, one for each node."""
    names = {v: f"%{input_name(v)}" for v in graph.inputs}
    lines = [f"  {names[v]} : {v.type}" for v in graph.inputs]
    for number, node in enumerate(graph.nodes):
        for value in node.outputs:
            names[value] = f"%{number}" + (f".{value.index}" if len(node.types) > 1 else "")
        attrs = {k: (text(a) if isinstance(a, Graph) else a) for k, a in node.attrs.items()}
        operands = ", ".join(names[v] for v in node.inputs)
        kinds = ", ".join(map(str, node.types))
        lines.append(f"  {names[node.outputs[0]]} = {node.op.name} {operands} {attrs} : {kinds}")
    lines.append(f"  return {', '.join(names.get(v, '?') for v in graph.outputs)}")
    lines += [f"  update {names[old]} with {names[new]}" for old, new in graph.updates]
    return "\n".join(lines)
