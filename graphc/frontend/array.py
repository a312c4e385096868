"""Arrays that compute at once, and what the tape keeps of it.

`Array` has NumPy's semantics and is what vjps run on; `graphc.frontend.ndarray.NDArray` puts
MXNet's on top. Either way an op is computed by `graphc.frontend.execute`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc.errors import (
    AutogradError,
    DeviceError,
    DTypeError,
    GraphcError,
    Location,
    user_location,
)
from graphc.frontend.context import HOST, Context
from graphc.frontend.execute import execute
from graphc.frontend.memory import converted
from graphc.ir.operand import REGISTRY, Operators, apply, computes_unclaimed, is_scalar
from graphc.ir.types import DType, TensorType, as_dtype, weak_dtype


class Mode(threading.local):
    """What this thread's autograd scopes say: recording, training."""

    recording = False
    training = False


mode = Mode()


class Noted:
    """The last event of a kind, as an object of its own.

    Where it is the one that was there before, there was none since: that need not be asked of
    each parameter, none of which is in the caches when a program has run.
    """

    last: object

    @classmethod
    def note(cls) -> None:
        """Note such an event."""
        cls.last = object()


class Moves(Noted):
    """That a Parameter, or the state of an optimizer, got another array."""

    last = object()


class Writes(Noted):
    """A write to memory that prepared values depend on, or that a Parameter got another array."""

    last = object()


class Storage:
    """Memory that handles share.

    Attributes
    ----------
    version : int
        How often it was written in place.
    written : Location or None
        The line of the last in-place write.
    exposed : bool
        Whether others have the memory too and may write to it unseen.
    watched : bool
        Whether values that are kept were computed from it.
    context : Context or None
        The device that has it. None goes with arrays of any device: numbers, NumPy's arrays, the
        state of random draws.
    """

    # Defaults of the class: every result of every operation makes a Storage, few are written to.
    version = 0
    written: Location | None = None
    exposed = False
    watched = False
    context: Context | None = HOST

    @staticmethod
    def on(context: Context | None) -> Storage:
        """Return what new memory on a device is noted in."""
        if context is HOST:
            return Storage()
        if context is None:
            return Unplaced()
        found = Storage()
        found.context = context
        return found

    def touch(self) -> None:
        """Note an in-place write by the user's current line."""
        self.version += 1
        self.written = user_location()
        if self.watched:
            Writes.note()

    def expose(self) -> None:
        """Note that others get the memory."""
        self.exposed = True
        if self.watched:
            Writes.note()

    def watch(self) -> int:
        """Have writes noted from now on; return the version."""
        self.watched = True
        return self.version


class Unplaced(Storage):
    """Memory that goes with arrays of any device."""

    context = None


def common(operands: Iterable[Any], what: str = "operand") -> Context | None:
    """Return the device that operands are on; None where none of them is on any.

    This decides it for operations, compiled calls and the arrays that they refer to.

    Parameters
    ----------
    operands : iterable
        What is no Array counts for nothing.
    what : str
        What the error calls them.

    Raises
    ------
    DeviceError
        When they are on two.
    """
    found: Context | None = None
    for operand in operands:
        if isinstance(operand, Array):
            own = operand._storage.context
            if own is not found and own is not None:
                if found is not None:
                    raise _apart(list(operands), what)
                found = own
    return found


def _apart(operands: Sequence[Any], what: str) -> DeviceError:
    """Return the error of operands on two devices."""
    places = [o._storage.context if isinstance(o, Array) else None for o in operands]
    named = [(number, place) for number, place in enumerate(places) if place is not None]
    first, other = next(
        (one, two) for one, two in zip(named, named[1:], strict=False) if one[1] is not two[1]
    )
    return two_devices(f"{what} {first[0]} is", first[1], f"{what} {other[0]} is", other[1])


def two_devices(one: str, its: Context, other: str, others: Context) -> DeviceError:
    """Return the error of two arrays, ``"x is"`` and ``"y is"``, that should be on one device."""
    return DeviceError(
        f"arrays on two devices: {one} on {its}, {other} on {others}",
        remedy=f"Move one: x.as_in_context(graphc.{others}). The Parameters of a network are where "
        "initialize(ctx=) or reset_ctx() put them.",
        where=user_location(),
    )


class Entry:
    """One recorded operation: the op, its operands as they were, its outputs.

    Attributes
    ----------
    op : OpDef
    attrs : dict
    operands : tuple of Saved
    outputs : tuple of Saved
    where : Location
    freed : bool
        Whether ``backward`` has already used it up.
    """

    __slots__ = ("attrs", "freed", "op", "operands", "outputs", "where")

    def __init__(
        self, op: Any, attrs: dict[str, Any], operands: tuple[Saved, ...], where: Location
    ) -> None:
        self.op, self.attrs, self.operands, self.where = op, attrs, operands, where
        self.outputs: tuple[Saved, ...] = ()
        self.freed = False

    def free(self) -> None:
        """Note that ``backward`` has used it up, and let go of the arrays.

        Outputs know the entry that made them: memory would wait for the garbage collector.
        """
        if not self.freed:
            self.freed = True
            release = getattr(self.op, "release", None)
            if release is not None:
                release(**self.attrs)
            self.operands = self.outputs = ()


class Handle(Operators):
    """What eager and traced handles share: how operands of one op come to one element type."""

    __slots__ = ()

    def __init__(self, content: Any) -> None:
        raise NotImplementedError

    @classmethod
    def wrap(cls, content: Any) -> Any:
        """Return a handle of this class of an array or a traced value."""
        return cls(content)

    @classmethod
    def scalar_dtype(cls, scalar: Any, peer: DType) -> DType:
        """Return the type a Python or NumPy scalar takes beside arrays of type ``peer``."""
        return weak_dtype(scalar.item() if isinstance(scalar, np.generic) else scalar, peer)

    @classmethod
    def operand_dtypes(cls, op: Any, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Return the types operands are cast to."""
        found: tuple[DType, ...] | None = op.operand_dtypes(types)
        return found


@computes_unclaimed
class Array(Handle):
    """An n-dimensional array with NumPy's semantics.

    Parameters
    ----------
    array : numpy.ndarray
        Used as it is, not copied.
    storage : Storage, optional
        By default that of new memory on ``cpu(0)``.
    """

    __slots__ = ("__weakref__", "_array", "_entry", "_index", "_leaf", "_storage")
    __graphc_priority__ = 20
    tracer_class: Any = None
    captured: Any = staticmethod(lambda operands: None)

    def __init__(self, array: np.ndarray, storage: Storage | None = None) -> None:
        self._array = array
        self._storage = storage or Storage()
        self._entry: Entry | None = None
        self._index = 0
        self._leaf: Any = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}\n{self._array!r}>"

    @property
    def type(self) -> TensorType:
        """Element type and shape."""
        return TensorType(as_dtype(self._array.dtype), self._array.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return self._array.shape

    @property
    def dtype(self) -> Any:
        """Element type."""
        return as_dtype(self._array.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._array.ndim

    @property
    def on_tape(self) -> bool:
        """Whether a gradient can flow through this array."""
        return self._entry is not None or self._leaf is not None

    @staticmethod
    def __graphc_apply__(op: Any, operands: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        traced = Array.captured(operands)
        if traced is not None:
            return apply(op, traced, attrs)
        cls = _handle_class(operands)
        try:
            context = common(operands)
            arrays = lift(cls, op, operands)
            types = [a.type for a in arrays]
            inferred = op.infer(*types, **attrs)
            single = isinstance(inferred, TensorType)
            expected = (inferred,) if single else inferred
            results = execute(op, [a._array for a in arrays], attrs, expected, context)
        except GraphcError as error:
            shown = [getattr(o, "type", type(o).__name__) for o in operands]
            raise error.attach(where=user_location(), op=op.name, operands=shown) from None
        outputs = tuple(cls(r, Storage.on(context)) for r in results)
        if op.name == "reshape":
            outputs[0]._storage = arrays[0]._storage
        if mode.recording and op.gradient:
            record(op, attrs, arrays, outputs)
        return outputs[0] if single else outputs


class Saved(Array):
    """An array as it was when it was recorded; reading it after an overwrite is an error."""

    __slots__ = ("_saved", "_version", "_where")

    def __init__(self, source: Array, where: Location) -> None:
        self._saved, self._storage = source._array, source._storage
        self._version, self._where = source._storage.version, where
        self._entry, self._index, self._leaf = source._entry, source._index, source._leaf

    @property
    def _array(self) -> np.ndarray:  # type: ignore[override]
        if self._storage.version != self._version:
            raise AutogradError(
                f"an array of shape {self._saved.shape} that the gradient needs was overwritten "
                f"at {self._storage.written}",
                remedy=f"It was used at {self._where}; write into a copy instead.",
                where=user_location(),
            )
        return self._saved

    @property
    def type(self) -> TensorType:
        """Element type and shape; asking for it is no read of the elements."""
        return TensorType(as_dtype(self._saved.dtype), self._saved.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis; asking for it is no read of the elements."""
        return self._saved.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._saved.ndim

    @property
    def dtype(self) -> Any:
        """Element type."""
        return as_dtype(self._saved.dtype)


def _handle_class(operands: Sequence[Any]) -> type[Array]:
    found: type[Array] = Array
    for operand in operands:
        kind = type(operand)
        if issubclass(kind, found) and not issubclass(kind, Saved):
            found = kind
    return found


def lift(cls: type[Array], op: Any, operands: Sequence[Any]) -> list[Array]:
    """Return operands as handles of one type of element where the op promotes."""
    kinds = [None if is_scalar(o) else getattr(o, "dtype", None) for o in operands]
    peer = op.peer([None if kind is None else as_dtype(kind) for kind in kinds])
    arrays = [_lift_one(cls, op, o, peer or as_dtype("float32")) for o in operands]
    dtypes = cls.operand_dtypes(op, [a.type for a in arrays])
    if dtypes is None:
        return arrays
    return [_cast(a, d) for a, d in zip(arrays, dtypes, strict=True)]


def _lift_one(cls: type[Array], op: Any, operand: Any, peer: DType) -> Array:
    if isinstance(operand, Array):
        return operand
    if is_scalar(operand):
        dtype = cls.scalar_dtype(operand, peer).numpy
        return cls(np.asarray(operand).astype(dtype), Unplaced())
    if isinstance(operand, (np.ndarray, list, tuple)):
        return cls(np.asarray(operand), Unplaced())
    raise DTypeError(
        f"{op.name} cannot take a {type(operand).__name__}",
        remedy="Pass an array, a NumPy array or a number.",
    )


def _cast(array: Array, dtype: DType) -> Array:
    if array.type.dtype is dtype:
        return array
    if not array.on_tape:
        cls = Array if isinstance(array, Saved) else type(array)
        return cls(converted(array._array, dtype.numpy), Storage.on(array._storage.context))
    cast: Array = apply(REGISTRY["cast"], (array,), {"dtype": dtype})
    return cast


def record(
    op: Any, attrs: dict[str, Any], operands: Sequence[Array], outputs: Sequence[Array]
) -> None:
    """Put an operation on the tape if a gradient flows through an operand."""
    if not any(a.on_tape for a in operands):
        return
    where = user_location()
    entry = Entry(op, attrs, tuple(Saved(a, where) for a in operands), where)
    for index, output in enumerate(outputs):
        output._entry, output._index = entry, index
    entry.outputs = tuple(Saved(o, where) for o in outputs)
