"""NDArray: MXNet's mutable array with an identity, a device and a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import (
    ArgumentError,
    AutogradError,
    DeviceError,
    DTypeError,
    Location,
    ShapeError,
    user_location,
)
from graphc.frontend import context as devices
from graphc.frontend.array import Array, Storage, Unplaced, common, mode
from graphc.frontend.assign import assign, assign_part
from graphc.frontend.backward import GRAD_REQUESTS, backward, detach_from_tape
from graphc.frontend.context import HOST, Context
from graphc.frontend.memory import copied, filled, on_host, overwrite, part_of, placed, wait_for
from graphc.frontend.ndarray_methods import NDMethods, key_parts
from graphc.frontend.ops.operator import chosen, dims, set_handle
from graphc.frontend.ops.reshape_codes import coded_shape
from graphc.frontend.ops.shape import as_tuple
from graphc.frontend.tape import Leaf
from graphc.frontend.tracer import Tracer, current_trace
from graphc.frontend.transfer import transfer
from graphc.ir.graph import Value
from graphc.ir.ops import gather, movement
from graphc.ir.ops.composite import attempt


class NDTracer(NDMethods, Tracer):
    """A traced value with MXNet's semantics."""

    __slots__ = ("is_mask",)

    def __init__(self, value: Value) -> None:
        super().__init__(value)
        self.is_mask = False

    def __setitem__(self, key: Any, value: Any) -> None:
        raise self._refuse(
            "writing into an array", "Make a new array (where, concat, a product with a mask)"
        )

    @property
    def context(self) -> Context:
        """The device that the program will run on."""
        trace = current_trace()
        return (None if trace is None else trace.context) or devices.current_context()

    ctx = device = context

    def as_in_context(self, context: Any) -> Any:
        """Return the value itself: a program runs on one device.

        Raises
        ------
        DeviceError
            For another one.
        """
        there = devices.usable(context)
        if there is not self.context:
            raise _leaves_program(self.context, there)
        return self

    as_in_ctx = to_device = as_in_context

    def asnumpy(self) -> Any:
        """Raise: the elements are not known while compiling."""
        raise self._refuse("asnumpy()")

    def asscalar(self) -> Any:
        """Raise: the elements are not known while compiling."""
        raise self._refuse("asscalar()")

    item = asscalar

    def wait_to_read(self) -> None:
        """Do nothing."""


class NDArray(NDMethods, Array):
    """A mutable array with MXNet 1.9's semantics; `nd.array` and its like make it.

    Parameters
    ----------
    array : numpy.ndarray
        C-contiguous; used as it is, not copied.
    """

    __slots__ = ("_fused", "_grad", "_grad_req", "is_mask")
    tracer_class = NDTracer

    def __init__(self, array: np.ndarray, storage: Storage | None = None) -> None:
        # What Array sets, written out: making a handle is a good part of a small call.
        self._array = array
        self._storage = storage or Storage()
        self._entry, self._index, self._leaf = None, 0, None
        self._grad: NDArray | None = None
        self._grad_req = "null"
        self._fused: tuple[Location, int] | None = None
        self.is_mask = False

    # -- what it is ----------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._array.size

    @property
    def context(self) -> Context:
        """The device that the array is on."""
        return self._storage.context or devices.current_context()

    ctx = device = context

    def __repr__(self) -> str:
        sizes = "x".join(map(str, self.shape))
        return f"\n{on_host(self._array)}\n<NDArray {sizes} @{self.context}>"

    def __str__(self) -> str:
        return repr(self)

    # -- out to Python and NumPy ---------------------------------------------------------------

    def asnumpy(self) -> np.ndarray:
        """Return a copy as a NumPy array."""
        return copied(self._array, HOST)

    def asscalar(self) -> Any:
        """Return the only element as a NumPy scalar.

        Raises
        ------
        ShapeError
            When there is not exactly one.
        """
        if self._array.size != 1:
            raise ShapeError(
                f"an array of shape {self.shape} is no scalar",
                remedy="asscalar(), float(), int() and bool() take arrays with one element.",
                where=user_location(),
            )
        return on_host(self._array).reshape(-1)[0]

    def item(self) -> Any:
        """Return the only element as a Python number."""
        return self.asscalar().item()

    def tolist(self) -> Any:
        """Return the elements as nested lists."""
        return on_host(self._array).tolist()

    def __float__(self) -> float:
        return float(self.asscalar())

    def __int__(self) -> int:
        return int(self.asscalar())

    def __index__(self) -> int:
        if not self.type.dtype.integer:
            raise TypeError("only integer arrays with one element can be converted to an index")
        return int(self.asscalar())

    def __bool__(self) -> bool:
        if self._array.size != 1:
            raise ShapeError(
                f"the truth of an array of shape {self.shape} is ambiguous",
                remedy="Reduce it first, for example by .sum() or .min().",
                where=user_location(),
            )
        return bool(on_host(self._array).reshape(-1)[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            self._storage.expose()
            return np.asarray(self._array, dtype=dtype, copy=None if dtype else False)
        return np.array(on_host(self._array), dtype=dtype, copy=True)

    def __dlpack__(self, **kwargs: Any) -> Any:
        self._storage.expose()
        return self._array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (type(self), on_host(self._array).copy(), self.context))

    def __copy__(self) -> NDArray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> NDArray:
        context = self._storage.context
        return type(self)(copied(self._array, context), Storage.on(context))

    def wait_to_read(self) -> None:
        """Wait until the array is computed; on the CPU it is when the call returns.

        Raises
        ------
        DeviceError
            For what failed on the device since the last wait.
        """
        wait_for(self._array)

    wait_to_write = wait_to_read

    # -- devices -------------------------------------------------------------------------------

    def as_in_context(self, context: Context | str) -> NDArray:
        """Return the array on a device: itself where it is there, else a copy.

        Under ``record`` gradients come back from there.

        Raises
        ------
        DeviceError
            For a GPU that is not there, and for another device while a function is being compiled.
        """
        there = devices.usable(context)
        return self if self._storage.context is there else self._moved(there)

    def _moved(self, there: Context) -> NDArray:
        """Return a copy on a device."""
        if current_trace() is not None and there is not self.context:
            raise _leaves_program(self.context, there)
        found: NDArray = transfer(self, there)
        return found

    as_in_ctx = to_device = as_in_context

    def as_nd_ndarray(self) -> NDArray:
        """Return the array itself."""
        return self

    def tostype(self, stype: str) -> NDArray:
        """Return the array in a storage type; there is only ``"default"``, dense."""
        chosen("storage type", stype, ("default",))
        return self

    def copyto(self, other: NDArray | Context) -> NDArray:
        """Copy into another array, or onto a device; returns what was written."""
        if isinstance(other, Context):
            there = devices.usable(other)
            here = self._storage.context is there
            copy: NDArray = self.copy() if here else self._moved(there)
            return copy
        if not isinstance(other, NDArray):
            raise ArgumentError(
                f"copyto() takes an NDArray or a Context, got {type(other).__name__}",
                where=user_location(),
            )
        assign(other, self)
        return other

    # -- views and writes ----------------------------------------------------------------------

    def _view(self, array: np.ndarray, traced: Any) -> NDArray:
        """Return a handle of a part of this memory; ``traced()`` is the same on the tape."""
        view = type(self)(array, self._storage)
        if mode.recording and self.on_tape:
            recorded = traced()
            view._entry, view._index = recorded._entry, recorded._index
        return view

    def _reshape(self, sizes: Any, reverse: bool = False) -> Any:
        if current_trace() is not None:
            return super()._reshape(sizes, reverse)
        target = attempt("reshape", (self,), coded_shape, dims(self), as_tuple(sizes), reverse)
        target = attempt("reshape", (self,), movement.reshaped, self.type, target)
        plain = tuple(int(d) for d in target)  # type: ignore[call-overload]
        return self._view(self._array.reshape(plain), lambda: movement.reshape(self, plain))

    def detach(self) -> Any:
        """Return a handle of the same memory through which no gradient flows."""
        if current_trace() is not None:
            return super().detach()
        return type(self)(self._array, self._storage)

    def __getitem__(self, key: Any) -> Any:
        parts = key_parts(key)
        if current_trace() is not None or any(map(gather.is_index_array, parts)):
            return super().__getitem__(key)
        try:
            part = part_of(self._array, parts)
        except (IndexError, ValueError, TypeError):
            return super().__getitem__(key)  # whose error says more
        if part is None:
            return super().__getitem__(key)
        part = part if part.ndim else part.reshape(1)
        return self._view(part, lambda: NDMethods.__getitem__(self, key))

    def __setitem__(self, key: Any, value: Any) -> None:
        parts = key_parts(key)
        everything = all(p is Ellipsis or p == slice(None) for p in parts if not _has_axes(p))
        if everything and not any(map(_has_axes, parts)):
            assign(self, value)
        else:
            assign_part(self, tuple(_plain_index(p) for p in parts), value)

    def _in_place(self, name: str, other: Any) -> Any:
        result = self._binary(name, other)
        if result is not NotImplemented:
            assign(self, result)
            return self
        return result

    def __iadd__(self, other: Any) -> Any:
        return self._in_place("add", other)

    def __isub__(self, other: Any) -> Any:
        return self._in_place("subtract", other)

    def __imul__(self, other: Any) -> Any:
        return self._in_place("multiply", other)

    def __itruediv__(self, other: Any) -> Any:
        return self._in_place("divide", other)

    def __imod__(self, other: Any) -> Any:
        return self._in_place("mod", other)

    # -- gradients -----------------------------------------------------------------------------

    @property
    def grad(self) -> NDArray | None:
        """The gradient that `backward` writes, or None without `attach_grad`.

        Raises
        ------
        AutogradError
            When a TrainStep used it last, without writing it.
        """
        self.check_grad(f"this array of shape {self.shape}")
        return self._grad

    def check_grad(self, owner: str) -> None:
        """Raise AutogradError where the gradient was used without being written."""
        if self._fused is None or self._grad is None:
            return
        line, version = self._fused
        if self._grad._storage.version == version:
            raise AutogradError(
                f"the gradient of {owner} was fused away: the TrainStep at {line} used it without "
                "writing it to memory",
                remedy="Use autograd.record(), backward() and trainer.step() where you read "
                "gradients.",
                where=user_location(),
            )

    def fuse_grad(self, where: Location | None) -> None:
        """Note the line that used the gradient without writing it; None: it was written."""
        gradient = self._grad
        self._fused = None if where is None or gradient is None else (
            where, gradient._storage.version
        )  # fmt: skip

    @property
    def grad_req(self) -> str:
        """What `backward` does with the gradient: ``"write"``, ``"add"`` or ``"null"``."""
        return self._grad_req

    def attach_grad(self, grad_req: str = "write", stype: str | None = None) -> None:
        """Make room for a gradient, zeros at first; the array becomes a constant of what follows.

        Parameters
        ----------
        grad_req : {"write", "add", "null"}
            What `backward` does: replace the gradient, add to it, or nothing.

        Raises
        ------
        DTypeError
            For integers and bools, along which no gradient flows.
        """
        if grad_req != "null" and not self.type.dtype.floating:
            raise DTypeError(
                f"attach_grad() on an array of {self.type.dtype.name}, which has no gradient",
                remedy='Make it floating-point first: x = x.astype("float32").',
                where=user_location(),
            )
        context = self._storage.context
        zeros = filled(self.shape, 0, self._array.dtype, context)
        self.mark(type(self)(zeros, Storage.on(context)), grad_req)

    def mark(self, gradient: NDArray, grad_req: str = "write") -> None:
        """Attach an array that `backward` writes the gradient into."""
        chosen("grad_req", grad_req, GRAD_REQUESTS)
        if gradient.shape != self.shape:
            raise ShapeError(
                f"a gradient of shape {gradient.shape} does not fit an array of {self.shape}",
                where=user_location(),
            )
        common((self, gradient), "array and its gradient, number")
        detach_from_tape(self)
        self._grad_req = grad_req
        self._grad = None if grad_req == "null" else gradient
        self._leaf = None if grad_req == "null" else Leaf(self)

    def zero_grad(self) -> None:
        """Set the gradient to zeros."""
        if self._grad is not None:
            overwrite(self._grad._array, 0)
            self._grad._storage.touch()

    def backward(
        self, out_grad: NDArray | None = None, retain_graph: bool = False, train_mode: bool = True
    ) -> None:
        """Compute the gradients of what this array depends on.

        Parameters
        ----------
        out_grad : NDArray, optional
            Gradient of this array; by default ones.
        retain_graph : bool
            Keep the record for another pass.
        train_mode : bool
            Whether operations behave as in training.

        Raises
        ------
        AutogradError
            When the array was not computed under ``autograd.record()``.
        """
        backward([self], None if out_grad is None else [out_grad], retain_graph, train_mode)


def _has_axes(part: Any) -> bool:
    return not isinstance(part, slice) and part is not Ellipsis


def _restored(cls: type[NDArray], array: np.ndarray, context: Context) -> NDArray:
    """Return an array from a pickle, on ``cpu(0)`` where its device is not there."""
    if context.device_type == "gpu" and context.device_id >= devices.num_gpus():
        context = HOST
    return cls(placed(array, context), Storage.on(context))


def _leaves_program(here: Context, there: Context) -> DeviceError:
    """Return the error of an array that should change its device in a program."""
    return DeviceError(
        f"a function that is compiled runs on one device, this one on {here}: nothing in it can "
        f"go to {there}",
        remedy="Call as_in_context() on its arguments and results, or do not hybridize this Block.",
        where=user_location(),
    )


def _plain_index(part: Any) -> Any:
    """Return an index array as NumPy takes it; one on a GPU as it is."""
    if isinstance(part, Array):
        held = part._array
        return held.astype(np.int64) if isinstance(held, np.ndarray) else held
    return part.astype(np.int64) if isinstance(part, np.ndarray) else part


NDTracer.eager_class = NDArray
# A copy: what is recorded must not change with the NumPy array.
set_handle(lambda array: NDArray(np.array(array, order="C"), Unplaced()))
