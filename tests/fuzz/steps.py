"""Random steps of a draft: each applies one op, or a few, to values that are there."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from drafts import Draft, Reject, has_axes, is_float, is_number

from graphc.errors import GraphcError
from graphc.ir.graph import Graph, Value
from graphc.ir.ops.creation import build_full
from graphc.ir.sizes import solving

SMOOTH = (
    "negative",
    "tanh",
    "sigmoid",
    "square",
    "sin",
    "cos",
    "erf",
    "gelu",
    "silu",
    "softplus",
    "arctan",
    "arcsinh",
    "softsign",
    "log_sigmoid",
    "copy",
    "selu",
)
KINKED = ("abs", "relu", "leaky_relu", "elu", "hard_sigmoid", "clip")
JUMPING = ("sign", "floor", "ceil", "round", "trunc", "logical_not", "isfinite")
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


def unary(d: Draft) -> None:
    """Apply a function element by element."""
    x = d.pick()
    if not is_float(x):
        _unary_integer(d, x)
        return
    names = (*SMOOTH, *KINKED, *(JUMPING if x in d.exact and not d.floating else ()))
    name = d.rng.choice(names)
    attrs = {"clip": {"low": -0.75, "high": 1.5}}.get(name, {})
    d.emit(name, x, **attrs)


def _unary_integer(d: Draft, x: Value) -> None:
    if not is_number(x):
        d.emit(d.rng.choice(["logical_not", "invert"]), x)
        return
    name = d.rng.choice(["abs", "relu", "sign", "invert", "negative", "clip", "square"])
    d.emit(name, x, **({"low": 0, "high": 3} if name == "clip" else {}))


def guarded(d: Draft) -> None:
    """Apply a function of limited domain to what was moved into it."""
    x = d.pick(is_float)
    positive = d.emit("abs", x) + 0.5
    name = d.rng.choice(["log", "sqrt", "rsqrt", "reciprocal", "exp", "log1p", "power", "cbrt"])
    if name == "exp":
        d.emit("exp", d.emit("clip", x, low=-3.0, high=2.0))
    elif name == "power":
        d.keep(d.emit("clip", positive, low=0.5, high=4.0) ** d.rng.choice([2, 0.5, 3, 1, -1.5]))
    else:
        d.emit(name, positive)


def operand_for(d: Draft, x: Value) -> Value:
    """Return a value that broadcasts with ``x``: one that is there, or a new input."""
    target = d.shape(x)

    def fits(v: Value) -> bool:
        shape = d.shape(v)
        pairs = zip(reversed(shape), reversed(target))
        return all(a == b or a == 1 or b == 1 for a, b in pairs)

    if d.rng.random() < 0.7:
        return d.pick(fits)
    keep = d.rng.randint(0, len(target))
    shape = tuple(1 if d.rng.random() < 0.3 else s for s in target[len(target) - keep :])
    return d.input(x.dtype.name, shape)


def binary(d: Draft) -> None:
    """Apply an arithmetic op to two values that broadcast, or to a value and a scalar."""
    x = d.pick()
    y: Any = operand_for(d, x)
    if d.rng.random() < 0.25 and is_number(x):
        y = d.rng.choice([2, 3, 0, 1] if not is_float(x) else [0.5, 2, 1, 0, -1.25])
    names = ["add", "multiply", "maximum", "minimum"]
    if is_number(x) and (not isinstance(y, Value) or is_number(y)):
        names.append("subtract")
    if d.rng.random() < 0.5 and isinstance(y, Value):
        x, y = y, x
    d.emit(d.rng.choice(names), x, y)


def division(d: Draft) -> None:
    """Divide by something that is not near zero."""
    x = d.pick(is_number)
    y = operand_for(d, x)
    if is_float(x) or is_float(y):
        d.emit("divide", x, d.emit("square", y) + 0.5 if is_number(y) else y * 1.0 + 1.0)
        return
    positive = d.emit("maximum", y, 1)
    d.emit(d.rng.choice(["floor_divide", "mod", "divide"]), x, positive)


def comparison(d: Draft) -> None:
    """Compare exact values, then maybe choose by the answer."""
    if d.floating:
        raise Reject
    x = d.pick(lambda v: v in d.exact)
    y = operand_for(d, x)
    if y not in d.exact:
        raise Reject
    mask = d.emit(d.rng.choice(COMPARISONS), x, y)
    if d.rng.random() < 0.7:
        a = operand_for(d, mask)
        d.emit("where", mask, a, operand_for(d, a))


def logical(d: Draft) -> None:
    """Combine masks or integers bit by bit."""
    x = d.pick(lambda v: not is_float(v))
    y = operand_for(d, x)
    if is_float(y):
        raise Reject
    names = ["bitwise_and", "bitwise_or", "bitwise_xor", "logical_and", "logical_or"]
    d.emit(d.rng.choice(names), x, y)


def conversion(d: Draft) -> None:
    """Cast, with floats brought into the range of the integers they become."""
    x = d.pick()
    to = d.rng.choice(
        ["float32", "float64"]
        if d.floating
        else ["float32", "float64", "int32", "int64", "uint8", "bool"]
    )
    if is_float(x) and to not in ("float32", "float64"):
        if x not in d.exact:
            raise Reject
        x = d.emit("clip", x, low=0.0, high=100.0)
    d.emit("cast", x, dtype=to)


def reduction(d: Draft) -> None:
    """Reduce over random axes."""
    x = d.pick(has_axes(1))
    axes = tuple(d.rng.sample(range(x.ndim), d.rng.randint(1, x.ndim)))
    axis: Any = d.rng.choice([axes, axes, axes[0], axes[0] - x.ndim, None])
    keepdims = d.rng.random() < 0.5
    names = ["sum", "max", "min"]
    if is_float(x):
        names += ["mean", "sum", "logsumexp", "var"] + ([] if d.floating else ["norm", "std"])
    elif not is_number(x):
        names = ["any", "all", "sum", "max"]
    if not d.floating and x in d.exact and d.rng.random() < 0.25:
        axis = None if axis is None else axes[0]
        names = ["argmax", "argmin"]
    elif d.arrays[x].size <= 12 and is_number(x):
        names.append("prod")
    d.emit(d.rng.choice(names), x, axis=axis, keepdims=keepdims)


def centred(d: Draft) -> None:
    """Combine a value with a reduction of it that keeps the axes."""
    x = d.pick(is_float, has_axes(1))
    axes = tuple(d.rng.sample(range(x.ndim), d.rng.randint(1, x.ndim)))
    y = d.emit(d.rng.choice(["sum", "mean", "max", "min", "logsumexp"]), x, axis=axes,
               keepdims=True)  # fmt: skip
    d.emit(d.rng.choice(["subtract", "multiply", "add", "maximum"]), x, y)


def normalization(d: Draft) -> None:
    """Normalise along an axis: softmax and the like."""
    x = d.pick(is_float, has_axes(1))
    axis = d.rng.randrange(-x.ndim, x.ndim)
    name = d.rng.choice(["softmax", "log_softmax", "softmax", "layer_norm", "batch_norm"])
    if name == "batch_norm":
        axis = axis % x.ndim
        if x.ndim < 2:
            raise Reject
    if not name.endswith("norm"):
        d.emit(name, x, axis=axis)
        return
    size = (d.shape(x)[axis],)
    scales = [d.input(x.dtype.name, size) for _ in range(2)] if d.rng.random() < 0.5 else []
    d.emit(name, x, *scales, axis=axis, eps=0.1)


def small_rows(d: Draft) -> None:
    """Normalise along a static axis of a few elements, whose loop may be written out."""
    size = d.rng.choice([1, 2, 3, 5, 8])
    outer = d.shape(d.pick(has_axes(1, 3)))[: d.rng.randint(1, 2)]
    inner = d.rng.choice([(), (), (4,)])
    x = d.input("float32", outer)
    row = d.input("float32", (size, *inner), static=True)
    wide = d.emit("add", d.emit("reshape", x, (*x.shape, *(1 for _ in row.shape))), row)
    y = d.emit(d.rng.choice(["softmax", "log_softmax"]), wide, axis=x.ndim)
    d.emit("multiply", y, d.emit("sum", wide, axis=x.ndim, keepdims=True))


def filling(d: Draft) -> None:
    """Combine a value with one constant everywhere, moved about before or after."""
    x = d.pick(is_float, has_axes(1, 4))
    shape = x.shape if d.rng.random() < 0.5 else tuple(1 for _ in x.shape)
    attrs = {"shape": shape, "value": d.rng.choice([1.0, 0.5, 0.0]), "dtype": x.dtype}
    constant = d.keep(build_full(attrs))
    way = d.rng.choice(["reshape", "cast", "spread", "mean"])
    if way == "reshape":
        constant = d.emit("reshape", d.emit("reshape", constant, (-1,)), shape)
    elif way == "cast":
        constant = d.emit("cast", d.emit("cast", constant, dtype="float64"), dtype=x.dtype.name)
    elif way == "spread":
        scalar = d.emit("reshape", d.emit("mean", x), tuple(1 for _ in x.shape))
        constant = d.emit("multiply", d.emit("broadcast_to", scalar, x.shape), constant)
    else:
        constant = d.emit("reshape", d.emit("mean", constant), tuple(1 for _ in x.shape))
    d.emit(d.rng.choice(["multiply", "subtract", "divide"]), x, constant)


def reshaping(d: Draft) -> None:
    """Flatten, merge neighbouring axes, split a static axis, or add and drop axes."""
    x = d.pick(has_axes(1))
    dims = list(x.shape)
    way = d.rng.choice(["flat", "merge", "split", "expand", "squeeze", "ones"])
    if way == "flat":
        d.emit("reshape", x, (-1,))
    elif way == "merge" and x.ndim >= 2:
        at = d.rng.randrange(x.ndim - 1)
        d.emit("reshape", x, (*dims[:at], dims[at] * dims[at + 1], *dims[at + 2 :]))
    elif way == "split":
        splits = [i for i, s in enumerate(dims) if isinstance(s, int) and s in (4, 6, 9)]
        if not splits or x.ndim > 4:
            raise Reject
        at = d.rng.choice(splits)
        factor = 3 if dims[at] == 9 else 2
        d.emit("reshape", x, (*dims[:at], factor, dims[at] // factor, *dims[at + 1 :]))
    elif way == "expand" and x.ndim < 5:
        d.emit("expand_dims", x, d.rng.randrange(-x.ndim - 1, x.ndim + 1))
    elif way == "squeeze" and 1 in dims:
        d.emit("squeeze", x, dims.index(1))
    elif way == "ones" and x.ndim < 5:
        d.emit("reshape", x, (1, *dims, 1)[: x.ndim + d.rng.randint(1, 2)])
    else:
        raise Reject


def rearrangement(d: Draft) -> None:
    """Move elements without computing: transposes, flips, rolls, tiles, repeats, masks."""
    x = d.pick(has_axes(1, 4))
    name = d.rng.choice(["transpose", "transpose", "flip", "roll", "tile", "repeat", "tril",
                         "triu", "swapaxes", "moveaxis", "broadcast_to"])  # fmt: skip
    axis = d.rng.randrange(x.ndim)
    other = d.rng.randrange(x.ndim)
    if name == "transpose":
        d.emit(name, x, tuple(d.rng.sample(range(x.ndim), x.ndim)))
    elif name in ("swapaxes", "moveaxis"):
        d.emit(name, x, axis, other)
    elif name == "flip":
        d.emit(name, x, d.rng.choice([None, axis, -1]))
    elif name == "roll":
        d.emit(name, x, d.rng.randint(-3, 3), axis)
    elif name == "tile":
        d.emit(name, x, tuple(d.rng.choice([1, 1, 2, 3]) for _ in range(x.ndim)))
    elif name == "repeat":
        d.emit(name, x, d.rng.choice([1, 2, 3]), d.rng.choice([axis, None]))
    elif name == "broadcast_to":
        d.emit(name, x, (d.rng.choice([2, 3]), *x.shape))
    elif x.ndim >= 2:
        d.emit(name, x, d.rng.randint(-2, 2))
    else:
        raise Reject


def slicing(d: Draft) -> None:
    """Take a slice by basic indexing, or one with a step."""
    x = d.pick(has_axes(1, 4))
    key: list[Any] = []
    for size in d.shape(x):
        way = d.rng.random()
        if way < 0.35:
            key.append(slice(None))
        elif way < 0.5:
            key.append(d.rng.randrange(-size, size))
        else:
            step = d.rng.choice([1, 1, 2, -1, -2])
            ends = sorted((d.rng.randint(0, size), d.rng.randint(0, size)))
            low, high = (ends[0] or None, ends[1]) if step > 0 else (ends[1], ends[0] - 1)
            high = None if high is not None and (high < 0 or d.rng.random() < 0.4) else high
            key.append(slice(low, high, step))
    if d.rng.random() < 0.2:
        key.insert(d.rng.randrange(len(key) + 1), None)
    d.emit("getitem", x, tuple(key))


def joining(d: Draft) -> None:
    """Concatenate, stack, pad or split."""
    x = d.pick(has_axes(1, 4))
    axis = d.rng.randrange(-x.ndim, x.ndim)
    way = d.rng.choice(["concat", "concat", "stack", "pad", "split"])
    if way == "split":
        size = d.shape(x)[axis]
        d.emit("split", x, (max(size // 2, 1),), axis)
    elif way == "pad":
        width = tuple((d.rng.randint(0, 2), d.rng.randint(0, 2)) for _ in range(x.ndim))
        modes = ["constant", "constant", "edge"]
        d.emit("pad", x, width, d.rng.choice(modes), d.rng.choice([0.0, 1.0]))
    else:
        others = [d.pick(lambda v: d.shape(v) == d.shape(x))]
        if way == "concat" and d.rng.random() < 0.5:
            shape = list(d.shape(x))
            shape[axis] = d.rng.choice([1, 2, 3])
            others.append(d.input(x.dtype.name, tuple(shape)))
        arrays = [x, *others]
        d.rng.shuffle(arrays)
        d.emit(way, arrays, axis=axis)


def product(d: Draft) -> None:
    """Multiply matrices, with batch axes and transpositions."""
    x = d.pick(is_float, has_axes(2, 4))
    depth = d.shape(x)[-1]
    flags = {"transpose_a": d.rng.random() < 0.3, "transpose_b": d.rng.random() < 0.3}
    depth = d.shape(x)[-2] if flags["transpose_a"] else depth
    columns = d.rng.choice([1, 2, 5, 8, 20])
    shape = (columns, depth) if flags["transpose_b"] else (depth, columns)
    w = d.input(x.dtype.name, shape)
    d.emit("matmul", x, d.keep(w * 0.25), **flags)


def self_product(d: Draft) -> None:
    """Multiply a matrix with itself, or two values of equal shape."""
    x = d.pick(is_float, has_axes(2, 3))
    y = d.pick(is_float, lambda v: d.shape(v) == d.shape(x))
    d.emit("matmul", d.keep(x * 0.25), y, transpose_b=True)


def windows(d: Draft) -> None:
    """Convolve or pool an input of images."""
    spatial = d.rng.choice([1, 2, 2])
    if d.rng.random() < 0.5:
        channels = d.rng.choice([1, 2, 4])
        sizes = tuple(d.rng.choice([5, 6, 7, 9]) for _ in range(spatial))
        d.input(d.rng.choice(["float32", "float32", "float64"]), (2, channels, *sizes))
    x = d.pick(is_float, has_axes(2 + spatial, 2 + spatial))
    sizes = d.shape(x)[2:]
    stride, pad = d.rng.choice([1, 1, 2]), d.rng.choice([0, 1])
    if min(sizes) < 3:
        raise Reject
    name = d.rng.choice(["conv", "conv", "max_pool", "avg_pool"])
    if name != "conv":
        d.emit(name, x, d.rng.choice([2, 3]), stride, pad)
        return
    channels = d.shape(x)[1]
    groups = 2 if channels % 2 == 0 and d.rng.random() < 0.3 else 1
    kernel = tuple(d.rng.choice([1, 2, 3]) for _ in range(spatial))
    shape = (d.rng.choice([2, 4, 6]), channels // groups, *kernel)
    w = d.input(x.dtype.name, shape, static=True)
    d.emit("conv", x, d.keep(w * 0.25), stride, pad, 1, groups)


def gathering(d: Draft) -> None:
    """Read or write at computed indices."""
    x = d.pick(has_axes(1, 3))
    axis = d.rng.randrange(x.ndim)
    size = d.shape(x)[axis]
    mode = d.rng.choice(["clip", "wrap"])
    way = d.rng.choice(["take", "take", "pick", "one_hot", "scatter_add"])
    if way == "pick":
        rest = tuple(s for a, s in enumerate(d.shape(x)) if a != axis)
        d.emit("pick", x, d.input("int32", rest), axis=axis, mode=mode)
    elif way == "one_hot":
        indices = d.pick(lambda v: v.dtype.name in ("int32", "int64"), has_axes(0, 3))
        d.emit("one_hot", indices, d.rng.choice([3, 5]))
    elif way == "scatter_add":
        if d.floating or not is_number(x):
            raise Reject
        indices = d.input("int32", d.shape(x)[:1])
        d.emit("scatter_add", indices, x, (d.rng.choice([3, 5]), *x.shape[1:]), mode=mode)
    else:
        indices = d.input("int32", d.rng.choice([(), (3,), (2, 3), (size,)]))
        d.emit("take", x, indices, axis=axis, mode=mode)


def randomness(d: Draft) -> None:
    """Drop elements, or draw new ones of another value's shape."""
    seed, counter = d.scalar_input(), d.scalar_input()
    way = d.rng.choice(["dropout", "dropout", "random_uniform", "random_normal", "random_randint"])
    if way == "dropout":
        d.emit("dropout", d.pick(is_float), seed, counter, p=d.rng.choice([0.3, 0.5]))
        return
    shape = d.pick(has_axes(0, 4)).shape
    if way == "random_randint":
        d.emit(way, seed, counter, shape, -3, 5)
    else:
        d.emit(way, seed, counter, shape)


STEPS: tuple[tuple[Callable[[Draft], None], int], ...] = (
    (unary, 6), (guarded, 3), (binary, 8), (division, 2), (comparison, 3), (logical, 2),
    (conversion, 2), (reduction, 6), (centred, 4), (normalization, 3), (small_rows, 1),
    (filling, 2), (reshaping, 4), (rearrangement, 5), (slicing, 4), (joining, 3), (product, 2),
    (self_product, 1), (windows, 4), (gathering, 3), (randomness, 1),
)  # fmt: skip
DIFFERENTIABLE = tuple(pair for pair in STEPS if pair[0] not in (comparison, logical, randomness))


def random_draft(seed: int, least: int, most: int, floating: bool = False) -> Draft:
    """Return a draft of ``least`` to ``most`` steps.

    Steps that do not fit are tried again, so the count is of those that do.
    """
    draft = Draft(seed, floating)
    table = DIFFERENTIABLE if floating else STEPS
    functions, weights = zip(*table, strict=True)
    with solving(draft.solver):
        for _ in range(draft.rng.randint(1, 3)):
            draft.fresh()
        wanted = draft.rng.randint(least, most)
        for _ in range(40 * most):
            if sum(v.op_name != "input" for v in draft.pool) >= wanted:
                break
            attempt(draft, draft.rng.choices(functions, weights)[0])
    return draft


def attempt(draft: Draft, step: Callable[[Draft], None]) -> None:
    """Take a step, or leave the draft as it is where it does not fit."""
    try:
        step(draft)
    except (Reject, GraphcError):
        return


def random_graph(seed: int, least: int = 3, most: int = 14) -> tuple[Graph, dict[str, int]]:
    """Return a graph and the sizes it was drafted with."""
    draft = random_draft(seed, least, most)
    rng = random.Random(seed + 1)
    return draft.graph(rng.randint(1, 4), rng.choice([0, 0, 1, 2])), draft.solver.hints
