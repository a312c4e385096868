"""Handles of traced values: what user code computes with while it is being compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from graphc.errors import DTypeError, GraphcError, ShapeError, TraceError, user_location
from graphc.frontend.array import Array, Handle, Unplaced, two_devices
from graphc.frontend.context import Context
from graphc.frontend.trace import symbolic_input
from graphc.ir.dim import Dim, SizeExpr
from graphc.ir.graph import Value, build, cast, constant, placeholder, unique_name
from graphc.ir.operand import is_scalar
from graphc.ir.sizes import SizeSolver, fix, known_size, resolve, unify
from graphc.ir.types import TensorType, as_dtype


class Trace:
    """What one trace collects besides the nodes: implicit inputs, updates, random draws.

    Parameters
    ----------
    context : Context, optional
        The device that the arguments are on. Where they are on none, the first array that the code
        refers to decides.

    Attributes
    ----------
    solver : SizeSolver
    inputs : list of (Value, object)
        Graph inputs with where their array comes from at each call: an argument number, an array
        handle (captured or a parameter), ``"seed"`` or ``"counter"``.
    updates : dict of Value to Value
    draws : int
        Random keys taken so far.
    """

    def __init__(self, context: Context | None = None) -> None:
        self.context = context
        self._decided_by = "the arguments"
        self.solver = SizeSolver()
        self.inputs: list[tuple[Value, Any]] = []
        self.updates: dict[Value, Value] = {}
        self.draws = 0
        self._captured: dict[int, Value] = {}
        self._alive: list[Array] = []

    def argument(self, number: int, kind: TensorType) -> Value:
        """Return a new symbolic input for argument ``number``."""
        value = symbolic_input(self.solver, f"x{number}", kind)
        self.inputs.append((value, number))
        return value

    def capture(self, array: Array, name: str = "", source: Any = None) -> Value:
        """Return the input that stands for an array the code refers to; its sizes are fixed.

        ``source`` may be an object with ``current_array()`` that gives the array at each call: a
        Parameter, whose array may be replaced between calls.
        """
        key = id(array)
        if key not in self._captured:
            label = name or f"captured{len(self._captured)}"
            self._meet(array, name or f"an array of shape {array.shape} that the code refers to")
            self._captured[key] = placeholder(self._unique(label), array.type)
            self.inputs.append((self._captured[key], source or array))
            self._alive.append(array)
        return self._captured[key]

    def _meet(self, array: Array, name: str) -> None:
        """Have an array on the device of the program."""
        own = array._storage.context
        if own is None or own is self.context:
            return
        if self.context is not None:
            verb = "are" if self._decided_by == "the arguments" else "is"
            raise two_devices(f"{self._decided_by} {verb}", self.context, f"{name} is", own)
        self.context, self._decided_by = own, name

    def current(self, array: Array, name: str = "", source: Any = None) -> Value:
        """Return what a captured array holds at this point of the trace."""
        value = self.capture(array, name, source)
        return self.updates.get(value, value)

    def update(self, array: Array, new: Value, name: str = "", source: Any = None) -> None:
        """Replace what a captured array holds when the program has run."""
        target = self.capture(array, name, source)
        fits = new.dtype is target.dtype and new.ndim == target.ndim and all(
            unify(there, size) is not None
            for there, size in zip(target.shape, new.shape, strict=True)
        )
        if not fits:
            raise ShapeError(
                f"{name or 'an array'} is {target.type} and cannot become {new.type}",
                remedy="What replaces it needs its shape and type.",
                where=user_location(),
            )
        self.updates[target] = new

    def random_key(self) -> tuple[Value, Value]:
        """Return the seed and counter of the next random draw."""
        seed, counter = (self._state(kind) for kind in ("seed", "counter"))
        self.draws += 1
        return seed, counter + (self.draws - 1)

    def _state(self, kind: str) -> Value:
        for value, source in self.inputs:
            if isinstance(source, str) and source == kind:
                return value
        value = placeholder(kind, TensorType(as_dtype("int64"), ()))
        self.inputs.append((value, kind))
        return value

    def _unique(self, name: str) -> str:
        return unique_name(name, {v.node.attrs["name"] for v, _ in self.inputs})


_current: ContextVar[Trace | None] = ContextVar("graphc_trace", default=None)


current_trace: Callable[[], Trace | None] = _current.get
"""Returns the trace that is being made in this context, or None."""


@contextmanager
def tracing(trace: Trace) -> Iterator[Trace]:
    """Let the body's operations on tracers and captured arrays build ``trace``."""
    token = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(token)


class Size:
    """A symbolic size as user code sees it.

    Arithmetic stays symbolic. Asking for a number (``int``, comparisons, ``range``) fixes the size
    to what it is in the call that is being traced; `explain` names the line.
    """

    __slots__ = ("dim",)

    def __init__(self, dim: SizeExpr) -> None:
        self.dim = dim

    def __index__(self) -> int:
        found = fix(self.dim)
        if found is None:
            raise TraceError(f"size {self.dim} is not known here", where=user_location())
        return found

    __int__ = __index__

    def __float__(self) -> float:
        return float(self.__index__())

    def __bool__(self) -> bool:
        return bool(self.__index__())

    def __hash__(self) -> int:
        return hash(self.__index__())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Size) and resolve(self.dim) == resolve(other.dim):
            return True
        return self.__index__() == other

    def __lt__(self, other: Any) -> bool:
        return self.__index__() < other

    def __le__(self, other: Any) -> bool:
        return self.__index__() <= other

    def __gt__(self, other: Any) -> bool:
        return self.__index__() > other

    def __ge__(self, other: Any) -> bool:
        return self.__index__() >= other

    def __add__(self, other: Any) -> Any:
        return _arithmetic(self, other, lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return _arithmetic(self, other, lambda a, b: a - b)

    def __rsub__(self, other: Any) -> Any:
        return _arithmetic(self, other, lambda a, b: b - a)

    def __mul__(self, other: Any) -> Any:
        return _arithmetic(self, other, lambda a, b: a * b)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return _arithmetic(self, other, lambda a, b: a // b)

    def __mod__(self, other: Any) -> Any:
        return _arithmetic(self, other, lambda a, b: a % b)

    def __truediv__(self, other: Any) -> float:
        return self.__index__() / other

    def __neg__(self) -> Any:
        return as_size(-self.dim)

    def __repr__(self) -> str:
        return str(resolve(self.dim))


def as_size(dim: Dim) -> Any:
    """Return a Dim as user code sees it: an int, or a Size."""
    dim = resolve(dim)
    return Size(dim) if isinstance(dim, SizeExpr) else dim


def plain_sizes(sizes: Any) -> Any:
    """Return sizes given by user code (ints, Sizes, tuples of them) as Dims."""
    if isinstance(sizes, Size):
        return sizes.dim
    if isinstance(sizes, (tuple, list)):
        return tuple(plain_sizes(s) for s in sizes)
    return sizes


def _arithmetic(size: Size, other: Any, combine: Any) -> Any:
    other = plain_sizes(other)
    if isinstance(other, float):
        return combine(size.__index__(), other)
    if not isinstance(other, (int, SizeExpr, np.integer)):
        return NotImplemented
    return as_size(combine(size.dim, other if isinstance(other, SizeExpr) else int(other)))


class Tracer(Handle):
    """A traced value with NumPy's semantics; `NDTracer` has MXNet's.

    Parameters
    ----------
    value : Value
    """

    __slots__ = ("_value",)
    __graphc_priority__ = 30
    eager_class: type[Array] = Array

    def __init__(self, value: Value) -> None:
        self._value = value

    @property
    def type(self) -> TensorType:
        """Element type and shape."""
        kind = self._value.type
        return kind.with_shape(tuple(resolve(d) for d in kind.shape))

    @property
    def shape(self) -> tuple[Any, ...]:
        """Size of each axis; a `Size` where it is symbolic."""
        return tuple(as_size(d) for d in self._value.shape)

    @property
    def dtype(self) -> Any:
        """Element type."""
        return self._value.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._value.ndim

    @staticmethod
    def __graphc_apply__(op: Any, operands: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        cls = _tracer_class(operands)
        where = user_location()
        try:
            values = _values(cls, op, operands)
            dtypes = cls.operand_dtypes(op, [v.type for v in values])
            if dtypes is not None:
                values = [cast(v, d) for v, d in zip(values, dtypes, strict=True)]
            outputs = build(op, tuple(values), attrs, where)
        except GraphcError as error:
            types = [o.type.sized() if hasattr(o, "type") else type(o).__name__ for o in operands]
            error = _in_sizes_of_the_call(error, op, types, attrs)
            raise error.attach(where=where, op=op.name, operands=types) from None
        wrapped = tuple(cls.wrap(v) for v in outputs)
        return wrapped[0] if len(wrapped) == 1 else wrapped

    def __repr__(self) -> str:
        return f"<traced {self.type}>"

    def _refuse(self, what: str, instead: str = "") -> TraceError:
        return TraceError(
            f"{what} needs the value of {self.type}, which is not known while the function is "
            "being compiled",
            remedy=(instead or "Use graphc ops that select (where, maximum, a mask)")
            + ", move this out of forward, or do not hybridize this block.",
            where=user_location(),
        )

    def __bool__(self) -> bool:
        raise self._refuse("a condition (if, while, and, or, not)")

    def __float__(self) -> float:
        raise self._refuse("float()")

    def __int__(self) -> int:
        raise self._refuse("int()")

    def __index__(self) -> int:
        raise self._refuse("using it as an index")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise self._refuse("converting to NumPy")


def _in_sizes_of_the_call(
    error: GraphcError, op: Any, types: Sequence[Any], attrs: dict[str, Any]
) -> GraphcError:
    """Return an op's error as it is without a trace: with numbers in place of symbols."""
    plain = {
        name: tuple(map(_plain_part, value)) if isinstance(value, tuple) else _plain_part(value)
        for name, value in attrs.items()
    }
    if not all(isinstance(t, TensorType) for t in types):
        return error
    try:
        op.infer(*types, **plain)
    except GraphcError as concrete:
        if type(concrete) is type(error):
            return concrete
    return error


def _plain_part(value: Any) -> Any:
    size = known_size(value) if isinstance(value, SizeExpr) else None
    return value if size is None else size


def _tracer_class(operands: Sequence[Any]) -> type[Tracer]:
    found: type[Tracer] = Tracer
    for operand in operands:
        if isinstance(operand, Tracer) and issubclass(type(operand), found):
            found = type(operand)
    return found


def _values(cls: type[Tracer], op: Any, operands: Sequence[Any]) -> list[Value]:
    trace = current_trace()
    typed = (Tracer, Array, np.ndarray)
    peer = op.peer([as_dtype(o.dtype) if isinstance(o, typed) else None for o in operands])
    values = []
    for operand in operands:
        if isinstance(operand, Tracer):
            values.append(operand._value)
        elif isinstance(operand, Array) and trace is not None:
            values.append(trace.current(operand))
        elif isinstance(operand, Value):
            values.append(operand)
        elif is_scalar(operand):
            values.append(constant(operand, cls.scalar_dtype(operand, peer or as_dtype("float32"))))
        elif isinstance(operand, Size):
            values.append(constant(int(operand), cls.scalar_dtype(1, peer or as_dtype("int64"))))
        elif isinstance(operand, np.ndarray) and trace is not None:
            values.append(trace.capture(Array(operand, Unplaced())))
        else:
            raise DTypeError(
                f"{op.name} cannot take a {type(operand).__name__} beside a traced value",
                remedy="Pass an array or a number.",
            )
    return values


def _captured(operands: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return operands with arrays as inputs of the trace that is being made; None without one.

    What is computed of an array the code refers to is part of the program: the array may hold
    something else at the next call.
    """
    trace = current_trace()
    if trace is None or not any(isinstance(o, Array) for o in operands):
        return None
    return tuple(
        o.tracer_class.wrap(trace.current(o)) if isinstance(o, Array) else o for o in operands
    )


Array.tracer_class = Tracer
Array.captured = staticmethod(_captured)
