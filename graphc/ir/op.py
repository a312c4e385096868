"""Op records: one for each op, holding everything that is known of it.

A record is an instance of an `OpDef` subclass and is itself the public function: ``exp(x)`` works
on arrays, traced values and Symbols through the operand protocol.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.operand import REGISTRY, apply
from graphc.ir.types import (
    DType,
    TensorType,
    as_dtype,
    bool_,
    broadcast_shapes,
    float32,
    float64,
    floating_dtype,
    int32,
    int64,
    promote,
    uint8,
)

FLOATS = (float32, float64)
INTEGERS = (int32, int64, uint8)
NUMBERS = FLOATS + INTEGERS
EVERY = (*NUMBERS, bool_)


class Kind(enum.Enum):
    """All that fusion may ask of an op.

    POINTWISE: the output element needs the operands' elements at the (broadcast) same index.
    REDUCE: sums, maxima and the like over axes. MOVEMENT: each output element is one operand
    element, or a fill value, at an index computed from the output index (and data, for ``take``).
    CONTRACT: sums of products. SCATTER: writes at computed indices. SCAN: each step needs the one
    before. OPAQUE: anything else.
    """

    POINTWISE = "pointwise"
    REDUCE = "reduce"
    MOVEMENT = "movement"
    CONTRACT = "contract"
    SCATTER = "scatter"
    SCAN = "scan"
    OPAQUE = "opaque"


@dataclass(frozen=True, slots=True)
class Spec:
    """A random test operand: uniform in ``low .. high`` (integers in ``low .. high - 1``).

    ``dtype`` None means each of the record's types in turn. ``distinct`` draws values that are all
    different (for maxima whose gradient is taken).
    """

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    dtype: DType | None = None
    distinct: bool = False

    def draw(self, generator: np.random.Generator, dtype: DType) -> np.ndarray:
        """Return an array of this spec."""
        kind = self.dtype or dtype
        count = int(np.prod(self.shape))
        if kind is bool_:
            return np.asarray(generator.random(self.shape) < 0.5)
        low, high = self.low, self.high
        drawn: np.ndarray
        if kind.integer:
            low = max(low, 0) if kind.kind == "u" else low
            high = max(high, low + 1)
            drawn = generator.integers(int(low), int(high), self.shape)
        elif self.distinct:
            drawn = generator.permutation(np.linspace(low, high, count)).reshape(self.shape)
        else:
            drawn = generator.uniform(low, high, self.shape)
        return np.asarray(drawn).astype(kind.numpy)


@dataclass(frozen=True, slots=True)
class Sample:
    """Operands and attributes an op is tested with."""

    specs: tuple[Spec, ...]
    attrs: dict[str, Any] = field(default_factory=dict)


def sample(*operands: tuple[int, ...] | Spec, **attrs: Any) -> Sample:
    """Return a Sample: a plain shape stands for ``Spec(shape)``."""
    specs = tuple(o if isinstance(o, Spec) else Spec(o) for o in operands)
    return Sample(specs, attrs)


class OpDef:
    """Base of op records.

    Attributes
    ----------
    name : str
        Name in printed graphs.
    kind : Kind
    dtypes : tuple of DType
        Types each sample is tested in (of operands whose Spec names none).
    samples : tuple of Sample
    tolerance : dict of DType to (rtol, atol)
        How close kernels come to ``reference``; types that are not listed must be equal.
    compiled : bool
        Imperative code runs it as a program too, as it does sums of products and scatters.
    gradient : bool
        Whether there is a gradient to test (piecewise constant ops have none).
    orders : int
        How often it can be differentiated, at most 2 standing for any number of times; more is an
        AutogradError.
    scattered : bool
        Whether neighbouring results come from places far apart, so that reading an operand through
        the op, twice perhaps, is slower than computing the result once.
    unrolled : tuple of int
        Axes of the result that ``lower`` gets as constants: of a few static indices, each with
        code of its own.
    tiled : dict of int to int
        Axes of the result whose indices ``lower`` gets as a multiple of a number plus a constant,
        which is below that number and likewise has code of its own.
    overwrites : int or None
        Operand that the first result is written over, and so on for the next ones: the kernel
        writes only what it changes.
    """

    name: str = ""
    kind: Kind = Kind.OPAQUE
    dtypes: tuple[DType, ...] = FLOATS
    samples: tuple[Sample, ...] = ()
    tolerance: dict[DType, tuple[float, float]] = {float32: (2e-5, 2e-6), float64: (1e-12, 1e-13)}
    compiled: bool = False
    gradient: bool = True
    orders: int = 2
    scattered: bool = False
    unrolled: tuple[int, ...] = ()
    tiled: Mapping[int, int] = {}
    overwrites: int | None = None

    def __call__(self, *operands: Any, **attrs: Any) -> Any:
        """Apply the op to arrays, traced values or Symbols."""
        return apply(self, operands, attrs)

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A function of this module: a bound method of the table would take all of it along.
        return (_registered, (self.name,))

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Return the types operands are cast to, or None to take them as they are."""
        return None

    def peer(self, dtypes: Sequence[DType | None]) -> DType | None:
        """Return the operand type beside which a scalar is weak; None stands for a scalar."""
        known = [d for d in dtypes if d is not None]
        return next((d for d in known if d.floating), known[0] if known else None)

    def label(self, **attrs: Any) -> str:
        """Return what a kernel is called after an application of the op."""
        return self.name

    def infer(self, *types: TensorType, **attrs: Any) -> TensorType | tuple[TensorType, ...]:
        """Return the result type(s), or raise ShapeError or DTypeError."""
        raise NotImplementedError

    def vjp(self, g: Any, y: Any, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        """Return the gradient of each operand, or None, given that of the output(s)."""
        return (None,) * len(inputs)

    def lower(self, k: Any, *operands: Any, **attrs: Any) -> Any:
        """Return the scalar(s) at one output index."""
        raise NotImplementedError

    def nest(self, k: Any, outputs: Any, *operands: Any, **attrs: Any) -> Any:
        """Return explicit loops over buffers, for what ``lower`` cannot say."""
        raise NotImplementedError

    def decompose(self, *inputs: Any, **attrs: Any) -> Any:
        """Return the result as a composition of other ops."""
        raise NotImplementedError

    def reference(self, *arrays: np.ndarray, **attrs: Any) -> Any:
        """Compute with NumPy."""
        raise NotImplementedError

    @property
    def lowers(self) -> bool:
        """Whether the record has ``lower``."""
        return type(self).lower is not OpDef.lower

    @property
    def nests(self) -> bool:
        """Whether the record has an explicit ``nest``."""
        return type(self).nest is not OpDef.nest

    @property
    def decomposes(self) -> bool:
        """Whether the record is a composition of other ops."""
        return type(self).decompose is not OpDef.decompose


T = TypeVar("T", bound=OpDef)


def register(record: T) -> T:
    """Add a record to the registry and return it."""
    if record.name in REGISTRY:
        raise DTypeError(f"op {record.name!r} is registered twice")
    REGISTRY[record.name] = record
    return record


def _registered(name: str) -> Any:
    """Return the record of that name; how a record is unpickled."""
    return REGISTRY[name]


class Pointwise(OpDef):
    """A record whose result at an index needs its operands there; operands broadcast.

    Parameters
    ----------
    name, doc : str
    lower : callable
        ``lower(k, *scalars, **attrs) -> Expr``.
    reference : callable
        ``reference(*arrays, **attrs) -> array``.
    vjp : callable, optional
        ``vjp(g, y, *inputs, **attrs) -> tuple``; broadcasting is undone elsewhere.
    result : {"same", "bool"} or DType
        Result type; ``"same"`` as the promoted operands.
    floating : bool
        Integer operands are promoted to floating point first.
    dtypes, samples : tuple
    """

    kind = Kind.POINTWISE

    def __init__(
        self,
        name: str,
        doc: str,
        *,
        lower: Callable[..., Any],
        reference: Callable[..., Any],
        vjp: Callable[..., tuple[Any, ...]] | None = None,
        result: str | DType = "same",
        floating: bool = False,
        dtypes: tuple[DType, ...] = FLOATS,
        samples: tuple[Sample, ...] = (),
        tolerance: dict[DType, tuple[float, float]] | None = None,
    ) -> None:
        self.name, self.__doc__ = name, doc
        self._lower, self._reference, self._vjp = lower, reference, vjp
        self.result, self.floating = result, floating
        self.dtypes, self.samples = dtypes, samples
        self.gradient = vjp is not None
        if tolerance is not None:
            self.tolerance = tolerance
        register(self)

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Promote all operands to one type, a floating one where the op needs it."""
        dtype = promote(*(t.dtype for t in types))
        return (floating_dtype(dtype) if self.floating else dtype,) * len(types)

    def infer(self, *types: TensorType, **attrs: Any) -> TensorType:
        """Broadcast the shapes; the type is the promoted one, or ``result``."""
        dtype = types[0].dtype if self.result == "same" else bool_
        if isinstance(self.result, DType):
            dtype = self.result
        return TensorType(dtype, broadcast_shapes(*(t.shape for t in types)))

    def vjp(self, g: Any, y: Any, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        """Return the gradients, not yet summed over broadcast axes; integers have none."""
        if self._vjp is None or not as_dtype(y.dtype).floating:
            return (None,) * len(inputs)
        return self._vjp(g, y, *inputs, **attrs)

    def lower(self, k: Any, *scalars: Any, **attrs: Any) -> Any:
        """Return the result at one index from the operands at that index."""
        return self._lower(k, *scalars, **attrs)

    def reference(self, *arrays: np.ndarray, **attrs: Any) -> Any:
        """Compute with NumPy, warnings off."""
        with np.errstate(all="ignore"):
            return self._reference(*arrays, **attrs)


class Unary(Pointwise):
    """A pointwise op of one operand."""

    def __call__(self, x: Any) -> Any:
        """Apply element by element."""
        return apply(self, (x,), {})


class Binary(Pointwise):
    """A pointwise op of two operands, which broadcast."""

    def __call__(self, a: Any, b: Any) -> Any:
        """Apply element by element."""
        return apply(self, (a, b), {})
