"""Graphs that several tests read: every record's samples, models, and random ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from graphc.ir import ops  # noqa: F401  (registers the records)
from graphc.ir.dim import Dim, symbol
from graphc.ir.graph import Graph, Value, build, constant, placeholder
from graphc.ir.op import OpDef, Sample
from graphc.ir.operand import REGISTRY
from graphc.ir.sizes import Constraint
from graphc.ir.target import Target
from graphc.ir.types import DType, TensorType, float32, int32, tensor_type
from graphc.passes.differentiate import gradients

# A nominal machine: what is scheduled for it does not depend on the one that runs the tests.
TARGET = Target(
    "cpu", "x86_64-unknown-linux-gnu", "x86-64-v3", "", 32, 16, 32 << 10, 1 << 20, 32 << 20
)


def graph(
    function: Callable[..., Value | Sequence[Value]],
    *shapes: tuple[Dim, ...],
    dtype: DType = float32,
) -> Graph:
    """Return the graph of a function of arrays, all of one type."""
    inputs = tuple(placeholder(f"x{i}", TensorType(dtype, s)) for i, s in enumerate(shapes))
    found = function(*inputs)
    return Graph("g", inputs, (found,) if isinstance(found, Value) else tuple(found))


def op(name: str, *operands: object, **attrs: object) -> Value:
    return REGISTRY[name](*operands, **attrs)


def node(name: str, *operands: Value, **attrs: object) -> tuple[Value, ...]:
    """Apply a record with its attributes as they are, past its public function."""
    return build(REGISTRY[name], operands, attrs, None)


def inputs_of(record: OpDef, sample: Sample, dtype: DType) -> tuple[Value, ...]:
    return tuple(
        placeholder(f"x{i}", TensorType(spec.dtype or dtype, spec.shape))
        for i, spec in enumerate(sample.specs)
    )


def record_graphs(name: str) -> Iterator[Graph]:
    """Yield the graph of every sample of a record in every dtype."""
    record = REGISTRY[name]
    for sample in record.samples:
        for dtype in record.dtypes:
            values = inputs_of(record, sample, dtype)
            yield Graph(name, values, build(record, values, sample.attrs, None))


RECORDS = tuple(name for name, record in sorted(REGISTRY.items()) if record.samples)


def _dense(x: Value, weight: Value, bias: Value) -> Value:
    return op("matmul", x, weight, transpose_b=True) + bias


def _step(name: str, x: Value, label: Value, parameters: list[Value], logits: Value) -> Graph:
    loss = op("softmax_cross_entropy", logits, label)
    ones = node("full", shape=loss.shape, value=1.0, dtype=loss.dtype)[0]
    found = gradients([loss], [ones], parameters)
    rate = placeholder("rate", tensor_type("float32", ()))
    updates = []
    for parameter, gradient in zip(parameters, found, strict=True):
        assert gradient is not None
        updates.append((parameter, parameter - rate * gradient))
    return Graph(name, (x, label, rate, *parameters), (loss,), tuple(updates))


def mlp_step() -> Graph:
    """Return forward, loss, backward and SGD update of an MLP with a symbolic batch."""
    batch = symbol("B")
    x = placeholder("x", TensorType(float32, (batch, 784)))
    label = placeholder("label", TensorType(int32, (batch,)))
    shapes = {"0.weight": (32, 784), "0.bias": (32,), "1.weight": (10, 32), "1.bias": (10,)}
    parameters = [placeholder(n, tensor_type("float32", s)) for n, s in shapes.items()]
    hidden = op("relu", _dense(x, *parameters[:2]))
    return _step("mlp_step", x, label, parameters, _dense(hidden, *parameters[2:]))


def lenet_step() -> Graph:
    """Return the training step of a small LeNet with a symbolic batch."""
    batch = symbol("B")
    x = placeholder("x", TensorType(float32, (batch, 1, 28, 28)))
    label = placeholder("label", TensorType(int32, (batch,)))
    shapes = {
        "conv0.weight": (4, 1, 5, 5), "conv0.bias": (4, 1, 1),
        "conv1.weight": (6, 4, 5, 5), "conv1.bias": (6, 1, 1),
        "dense.weight": (10, 6 * 7 * 7), "dense.bias": (10,),
    }  # fmt: skip
    parameters = [placeholder(n, tensor_type("float32", s)) for n, s in shapes.items()]
    value = x
    for weight, bias in (parameters[0:2], parameters[2:4]):
        value = op("relu", op("conv", value, weight, pad=2) + bias)
        value = op("max_pool", value, 2, 2)
    flat = op("reshape", value, shape=(batch, 6 * 7 * 7))
    return _step("lenet_step", x, label, parameters, _dense(flat, *parameters[4:]))


def odd_graph() -> Graph:
    """Return a graph of what text gets wrong: names, constants, sizes, strings, many outputs."""
    rows, columns = symbol("B"), symbol("H")
    names = [
        "x", "0", "0.weight", 'a"b', '"; import os; os._exit(1)', "new\nline", "tab\t", "", " ",
        "naïve", "%1", "a" * 10_000, "\\", "\ud800", "return", "#",
    ]  # fmt: skip
    kind = TensorType(float32, (rows, (columns + 3) // 2 * 2))
    values = tuple(placeholder(name, kind) for name in names)
    total = values[0]
    for value in values[1:]:
        total = total + value
    for number in (float("inf"), float("-inf"), float("nan"), -0.0, 1e-45, 1e30, 0.1):
        total = total * constant(number, "float32")
    whole = node("cast", total, dtype=int32)[0] + constant(-(2**31), "int32")
    indices = node("sum", whole, axis=(0, 1), dtype=None, keepdims=False)
    facts = (Constraint(symbol("W"), rows * columns, None), Constraint(rows, 64, None))
    return Graph('odd "name"\n', values, (total, *indices), ((values[0], total),), facts)


def random_graph(seed: int, nodes: int = 30) -> Graph:
    """Return a random graph of pointwise ops, reductions, products and movements."""
    rng = random.Random(seed)
    shape = (symbol("B"), 6)
    pool = [placeholder(f"x{i}", TensorType(float32, shape)) for i in range(3)]
    inputs = tuple(pool)
    square = placeholder("w", tensor_type("float32", (6, 6)))
    for _ in range(nodes):
        a, b = rng.choice(pool[-6:]), rng.choice(pool)
        kind = rng.randrange(7)
        if kind <= 2:
            pool.append(op(rng.choice(("add", "multiply", "subtract", "maximum")), a, b))
        elif kind == 3:
            pool.append(op(rng.choice(("exp", "tanh", "relu", "negative")), a))
        elif kind == 4:
            axis = rng.choice((0, 1))
            pool.append(a - node("max", a, axis=(axis,), keepdims=True)[0])
        elif kind == 5:
            pool.append(op("matmul", a, square, transpose_b=rng.random() < 0.5))
        else:
            turned = op("transpose", op("transpose", a, axes=(1, 0)) * 2.0, axes=(1, 0))
            pool.append(turned + b)
    outputs = tuple(dict.fromkeys([pool[-1], *rng.sample(pool[3:], 2)]))
    updates = ((inputs[0], pool[-2] * 0.5),) if rng.random() < 0.7 else ()
    return Graph(f"random{seed}", (*inputs, square), outputs, updates)
