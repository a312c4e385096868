"""The op of a user's whole kernel in Python, over arrays of declared types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from graphc.errors import AutogradError, DTypeError, GraphcError, ShapeError, user_location
from graphc.ir.dim import Dim, SizeExpr, evaluate, substitute, symbols
from graphc.ir.expr import Buffer
from graphc.ir.loop import Python, Stmt
from graphc.ir.op import Kind, OpDef, register, sample
from graphc.ir.operand import apply
from graphc.ir.signature import parse_signature
from graphc.ir.sizes import bind_sizes, resolve, unify
from graphc.ir.types import TensorType, float32

Pullback = Callable[..., Sequence[Any]]

PULLBACKS: dict[str, Pullback] = {"twice": lambda g, x: (g * 2.0,)}
"""What gives the gradients, by its name in nodes: ``pullback(g, *inputs)``."""

_TWICE = """\
def twice(x, y):
    for i in range(x.shape[0]):
        y[i] = 2 * x[i]
"""
_ATTRS = {
    "signature": "x: f32[n] -> y: f32[n]", "function": "twice", "source": _TWICE,
    "pullback": "twice",
}  # fmt: skip


class PythonKernel(OpDef):
    """A function of Python text that writes its last arguments, of declared types.

    ``pullback`` names the entry of `PULLBACKS` that computes gradients, or is empty.
    """

    name, kind, compiled = "python_kernel", Kind.OPAQUE, True
    dtypes = (float32,)
    samples = (sample((5,), **_ATTRS), sample((1,), **_ATTRS), sample((0,), **_ATTRS))

    def __call__(self, *operands: Any, **attrs: Any) -> Any:
        """Call the function on operands."""
        return apply(self, operands, attrs)

    def label(self, **attrs: Any) -> str:
        """Return the function's name."""
        return str(attrs["function"])

    def infer(self, *types: TensorType, **attrs: Any) -> TensorType | tuple[TensorType, ...]:
        """Return the declared types of the outputs, at the sizes of the operands."""
        function, signature = attrs["function"], parse_signature(attrs["signature"])
        declared = signature.inputs
        if len(types) != len(declared):
            names = ", ".join(name for name, _ in declared)
            raise ShapeError(f"{function} takes {names}; got {len(types)} arrays")
        sizes: dict[str, Dim] = {}
        for (name, kind), got in zip(declared, types, strict=True):
            if got.dtype is not kind.dtype:
                raise DTypeError(
                    f"{name} of {function} is declared {kind}, got {got.sized()}",
                    remedy=f'Convert it with .astype("{kind.dtype.name}").',
                )
            pairs = zip(kind.shape, got.shape)
            if got.ndim != kind.ndim or not all(_fitted(d, size, sizes) for d, size in pairs):
                raise ShapeError(
                    f"{name} of {function} is declared {kind}, got {got.sized()}",
                    remedy="Sizes of one name are equal in all arguments." if sizes else "",
                )
        found = tuple(
            kind.with_shape(tuple(substitute(d, sizes) for d in kind.shape))
            for _, kind in signature.outputs
        )
        return found if len(found) > 1 else found[0]

    def vjp(self, g: Any, y: Any, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        """Return what the given pullback returns."""
        if attrs["pullback"] not in PULLBACKS:
            raise AutogradError(
                f"kernel {attrs['function']} has no gradient",
                remedy="Give it one: graphc.kernel(types, vjp=function).",
                where=user_location(),
            )
        return tuple(PULLBACKS[attrs["pullback"]](g, *inputs))

    def nest(self, k: Any, outputs: Any, *operands: Buffer, **attrs: Any) -> tuple[Stmt, ...]:
        """Return the call."""
        return (Python(attrs["function"], attrs["source"], (*operands, *outputs)),)

    def failure(self, code: int, details: tuple[int, ...], **attrs: Any) -> GraphcError:
        """Return the error of a call that raised."""
        function = attrs["function"]
        return GraphcError(
            f"kernel {function} raised an exception",
            remedy=f"Call {function}.python(...) on NumPy arrays to see it.",
        )

    def reference(self, *arrays: np.ndarray, **attrs: Any) -> Any:
        """Run the function as Python, on new arrays."""
        signature = parse_signature(attrs["signature"])
        shapes = [kind.shape for _, kind in signature.inputs]
        sizes = bind_sizes(shapes, [a.shape for a in arrays]) or {}
        outputs = tuple(
            np.zeros([evaluate(d, sizes) for d in kind.shape], kind.dtype.numpy)
            for _, kind in signature.outputs
        )
        python_function(attrs["source"], attrs["function"])(*arrays, *outputs)
        return outputs if len(outputs) > 1 else outputs[0]


@cache
def python_function(source: str, name: str) -> Callable[..., None]:
    """Return a function of Python text."""
    scope: dict[str, Any] = {}
    exec(compile(source, f"<kernel {name}>", "exec"), scope)
    found: Callable[..., None] = scope[name]
    return found


def _fitted(declared: Dim, got: Dim, sizes: dict[str, Dim]) -> bool:
    """Return whether a size is as declared; sizes of a new name are noted."""
    if isinstance(declared, SizeExpr) and str(declared) in symbols(declared):
        return unify(sizes.setdefault(str(declared), got), got) is not None
    return unify(substitute(declared, sizes), resolve(got)) is not None


python_kernel = register(PythonKernel())
