"""Parameters: arrays with an initializer, a gradient, and perhaps a shape that is not known yet."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.errors import (
    ArgumentError,
    AutogradError,
    GraphcError,
    Location,
    ShapeError,
    nearest,
    user_location,
)
from graphc.frontend import initializer as initializers
from graphc.frontend.array import Array, Moves, Storage, Writes
from graphc.frontend.autograd import pause
from graphc.frontend.context import HOST, Context, memory_of
from graphc.frontend.gluon.completions import Completed
from graphc.frontend.gluon.placement import (
    Place,
    devices_of,
    gathered,
    not_there,
    spread,
    unreadable,
)
from graphc.frontend.initializer import InitDesc
from graphc.frontend.memory import copied, filled, on_host, overwrite
from graphc.frontend.ndarray import NDArray
from graphc.frontend.symbol.functions import var
from graphc.frontend.tracer import current_trace, tracing
from graphc.ir.types import as_dtype
from graphc.runtime.random import host_generator

GRAD_REQUESTS = ("write", "add", "null")
# Threads may call a network for the first time side by side.
_finishing = threading.RLock()

_symbolic: ContextVar[bool] = ContextVar("graphc_symbolic", default=False)


@contextmanager
def composing() -> Iterator[None]:
    """Let Parameters read in the body give their variables: a Symbol is being composed."""
    token = _symbolic.set(True)
    try:
        yield
    finally:
        _symbolic.reset(token)


@dataclass(frozen=True, slots=True)
class _Pending:
    """An initialization that waits for the shape: how to do it, where, with which random key."""

    init: Any
    default: Any
    key: int
    shape: tuple[int, ...] | None
    devices: tuple[Context, ...]


class Parameter:
    """An array that a Block computes with and a Trainer updates, on one device or several.

    Parameters
    ----------
    name : str
    grad_req : {"write", "add", "null"}
        What ``backward`` does with the gradient; ``"null"`` asks for none.
    shape : int or tuple of int, optional
        0 or -1 is a size that is not known yet.
    dtype : str or type
    lr_mult, wd_mult : float
        Factors of the Trainer's learning rate and weight decay.
    init : Initializer or str, optional
        By default what ``initialize`` is given, by the name of the Parameter.
    allow_deferred_init : bool
        Whether ``initialize`` may come before the shape is known.
    differentiable : bool
        False makes ``grad_req`` ``"null"`` for good: running statistics.
    stype : str
        Accepted as MXNet's; arrays are dense.
    grad_stype : str
        ``"row_sparse"`` asks for lazy updates; see :class:`~graphc.gluon.nn.Embedding`.

    Attributes
    ----------
    name : str
        With the prefixes of the Blocks it was made in, ``"dense0_weight"``.
    devices : tuple of Context
        Those that it has an array on, or will have where its shape is not known yet.
    """

    def __init__(
        self,
        name: str,
        grad_req: str = "write",
        shape: int | Sequence[int] | None = None,
        dtype: Any = "float32",
        lr_mult: float = 1.0,
        wd_mult: float = 1.0,
        init: Any = None,
        allow_deferred_init: bool = False,
        differentiable: bool = True,
        stype: str = "default",
        grad_stype: str = "default",
    ) -> None:
        self.name = name
        self.lr_mult, self.wd_mult, self.init = lr_mult, wd_mult, init
        self.allow_deferred_init, self.grad_stype = allow_deferred_init, grad_stype
        self._differentiable = differentiable
        self._shape = None if shape is None else _sizes(shape)
        self._dtype = as_dtype("float32" if dtype is None else dtype)
        self._read: dict[Context, int] = {}
        self._become({}, None)
        self._variable: Any = None
        self._grad_req = "null"
        self.grad_req = grad_req

    def __repr__(self) -> str:
        return f"Parameter {self.name} (shape={self.shape}, dtype={self._dtype.name})"

    # -- what it is ----------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Sizes, 0 where they are not known yet; None where nothing is known."""
        return self._shape

    @shape.setter
    def shape(self, shape: int | Sequence[int]) -> None:
        new = _sizes(shape)
        if self._shape is not None and not _fits(self._shape, new):
            raise ShapeError(
                f"parameter {self.name} has shape {self._shape}, which cannot become {new}",
                remedy="Only sizes that are 0 or -1 can still be set.",
                where=user_location(),
            )
        self._shape = new

    @property
    def dtype(self) -> Any:
        """Element type, as NumPy's."""
        return self._dtype.numpy.type

    @property
    def grad_req(self) -> str:
        """What ``backward`` does with the gradient."""
        return self._grad_req

    @grad_req.setter
    def grad_req(self, request: str) -> None:
        if request not in GRAD_REQUESTS:
            raise ArgumentError(
                f"grad_req must be one of {', '.join(GRAD_REQUESTS)}, got {request!r}."
                f"{nearest(str(request), GRAD_REQUESTS)}",
                where=user_location(),
            )
        request = request if self._differentiable else "null"
        if request != self._grad_req:
            self._grad_req = request
            self._attach_grad(self._arrays)

    @property
    def shape_known(self) -> bool:
        """Whether every size is known."""
        return self._shape is not None and all(size > 0 for size in self._shape)

    @property
    def deferred(self) -> bool:
        """Whether it was initialized before its shape was known, which it still is not."""
        return self._pending is not None and not self._arrays

    @property
    def initialized(self) -> bool:
        """Whether there is an array."""
        return bool(self._arrays)

    # -- making the array ----------------------------------------------------------------------

    def initialize(
        self, init: Any = None, ctx: Any = None, default_init: Any = None,
        force_reinit: bool = False,
    ) -> None:  # fmt: skip
        """Make the array, or, where its shape is not known yet, note how to make it.

        Parameters
        ----------
        init : Initializer or str, optional
            Before the Parameter's own ``init`` and ``default_init``.
        ctx : Context or list of Context, optional
            By default the current one. On each device of a list there is an array of its own with
            the same values.
        default_init : Initializer or str, optional
            By default ``Uniform(0.07)``.
        force_reinit : bool
            Make a new array where there is one.

        Raises
        ------
        ArgumentError
            When the shape is not known and deferring was not allowed.
        """
        if self._arrays and not force_reinit:
            return
        devices = devices_of(ctx)
        # The key is drawn now: when the shape becomes known does not change the numbers.
        key = int(host_generator().integers(1 << 63))
        given = init if init is not None else self.init
        pending = _Pending(
            None if given is None else _created(given), _created(default_init), key, self._shape,
            devices,
        )  # fmt: skip
        if self.shape_known:
            self._make(pending)
        elif self.allow_deferred_init:
            self._become({}, pending)
        else:
            raise ArgumentError(
                f"parameter {self.name} cannot be initialized: its shape is {self._shape}",
                remedy="Give all sizes, or allow_deferred_init=True.",
                where=user_location(),
            )

    def finish_deferred(self) -> None:
        """Make the array of a deferred initialization whose shape has become known."""
        with _finishing:
            if self._pending is not None and not self._arrays:
                if not self.shape_known:
                    raise self._unreadable()
                Completed.note(self, self._pending)
                self._make(self._pending)

    def defer_again(self, pending: _Pending) -> None:
        """Go back to waiting for a shape: what told it was a mistake."""
        self._shape = pending.shape
        self._become({}, pending)

    def _make(self, pending: _Pending) -> None:
        assert self._shape is not None
        array = NDArray(np.zeros(self._shape, self._dtype.numpy))
        generator = np.random.Generator(np.random.Philox(key=pending.key))
        init = pending.default if pending.init is None else pending.init
        explicit = pending.init is not None
        desc = InitDesc(self.name, {}, pending.default, generator, explicit)
        # Initializers may be user code that computes with arrays: at once, whoever is tracing.
        with tracing(None), pause(), HOST:  # type: ignore[arg-type]
            init(desc, array)
        self._hold(spread(array, pending.devices))

    def _hold(self, arrays: dict[Context, NDArray]) -> None:
        """Take arrays for good; another thread sees them when they have their gradients."""
        self._shape = next(iter(arrays.values())).shape
        self._attach_grad(arrays)
        self._become(arrays, None)

    def _become(self, arrays: dict[Context, NDArray], pending: _Pending | None) -> None:
        """Have these arrays, or wait for the shape."""
        self._arrays, self._pending = arrays, pending
        self._first = next(iter(arrays.values()), None)
        self.devices = tuple(arrays) if pending is None else pending.devices
        Moves.note()
        Writes.note()

    def _attach_grad(self, arrays: dict[Context, NDArray]) -> None:
        for device, array in arrays.items():
            zeros = filled(array.shape, 0, array.dtype, device)
            array.mark(NDArray(zeros, Storage.on(device)), self._grad_req)
        self._read = dict.fromkeys(arrays, 0)

    # -- reading and writing -------------------------------------------------------------------

    def current_array(self, device: Context | None = None) -> NDArray:
        """Return the array itself, also while a function is being compiled.

        ``device`` is by default the first that it is on.
        """
        found = self._first if device is None else self._arrays.get(device)
        if found is None:
            if self._first is None or device is None:
                raise self._unreadable()
            raise not_there(self.name, device, self._arrays)
        return found

    def place(self, ctx: Context | str | None = None) -> Place:
        """Return the Parameter on a device: of one device that, of several the current one."""
        if ctx is None and len(self._arrays) == 1:
            return Place(self, next(iter(self._arrays)))
        return Place(self, memory_of(ctx))

    def values(self) -> np.ndarray:
        """Return the values, those of the first device; means where others differ, as MXNet."""
        if not self._arrays:
            raise self._unreadable()
        return gathered(self._arrays)

    def _unreadable(self) -> GraphcError:
        return unreadable(self.name, self._shape, deferred=self._pending is not None)

    def data(self, ctx: Any = None) -> Any:
        """Return the array; while a function is being compiled, what stands for it.

        Parameters
        ----------
        ctx : Context, optional
            By default the device that it is on; where it is on several, that of the Block's input
            while one runs, else the current one.

        Raises
        ------
        DeviceError
            For a device that it is not on.
        UninitializedError
            Before ``initialize``.
        DeferredInitializationError
            Before the shape is known.
        """
        if _symbolic.get():
            return self.var()
        trace = current_trace()
        if trace is None:
            if ctx is None and len(self._arrays) == 1:
                return self._first
            return self.current_array(memory_of(ctx))
        if ctx is None and len(self._arrays) > 1:
            ctx = trace.context
        place = self.place(ctx)
        array = place.current_array()
        return array.tracer_class.wrap(trace.current(array, self._label(), place))

    def _label(self) -> str:
        """Return the name that graphs show: the path of the layer and the end of the name."""
        path = user_location().scope.partition(".")[2]
        ending = next((e for e in _ENDINGS if self.name.endswith(e)), "")
        return f"{path}.{ending}" if path and ending else self.name

    def list_data(self) -> list[NDArray]:
        """Return the array on each device."""
        self.current_array()
        return list(self._arrays.values())

    def set_data(self, data: Any) -> None:
        """Set the values on every device, and with them a shape that was not known.

        Raises
        ------
        ShapeError
            When the shape does not fit.
        """
        values = data._array if isinstance(data, Array) else np.asarray(data)
        if self._shape is not None and not _fits(self._shape, values.shape):
            raise ShapeError(
                f"values of shape {values.shape} do not fit parameter {self.name} of shape "
                f"{self._shape}",
                where=user_location(),
            )
        if self._arrays:
            for array in self._arrays.values():
                overwrite(array._array, values)
                array._storage.touch()
            return
        if self._pending is None:
            raise self._unreadable()
        new = NDArray(np.array(on_host(values), self._dtype.numpy, order="C"))
        self._hold(spread(new, self._pending.devices))

    def reset_ctx(self, ctx: Any) -> None:
        """Move to a device, or to each of a list, with `values`; gradients become zeros."""
        devices = devices_of(ctx)
        if devices == self.devices:
            return
        if self._arrays:
            self._hold(spread(NDArray(self.values().copy()), devices))
        elif self._pending is not None:
            self._become({}, replace(self._pending, devices=devices))
        else:
            raise self._unreadable()

    def list_ctx(self) -> list[Context]:
        """Return the devices the array is on."""
        if not self._arrays and self._pending is None:
            raise self._unreadable()
        return list(self.devices)

    def cast(self, dtype: Any) -> None:
        """Convert to another element type."""
        self._dtype = as_dtype(dtype)
        if self._arrays:
            kind = self._dtype.numpy
            self._hold({
                there: NDArray(copied(on_host(a._array).astype(kind), there), Storage.on(there))
                for there, a in self._arrays.items()
            })  # fmt: skip

    def var(self) -> Any:
        """Return the Symbol that stands for this Parameter."""
        if self._variable is None:
            self._variable = var(
                self.name, shape=self._shape, lr_mult=self.lr_mult, wd_mult=self.wd_mult,
                dtype=self._dtype.name, init=self.init,
            )  # fmt: skip
        return self._variable

    # -- gradient ------------------------------------------------------------------------------

    def grad(self, ctx: Any = None) -> NDArray:
        """Return the gradient, which ``backward`` writes; ``ctx`` as of `data`.

        Raises
        ------
        DeviceError
            For a device that the Parameter is not on.
        AutogradError
            When there is none: ``grad_req`` is ``"null"``, or TrainStep fused it away.
        """
        alone = ctx is None and len(self._arrays) < 2
        array = self.current_array() if alone else self.current_array(memory_of(ctx))
        if array._grad is None:
            raise AutogradError(
                f"parameter {self.name} has no gradient: its grad_req is 'null'",
                remedy="Set grad_req to 'write' before the forward pass.",
                where=user_location(),
            )
        array.check_grad(f"parameter {self.name}")
        return array._grad

    def list_grad(self) -> list[NDArray]:
        """Return the gradient on each device."""
        return [self.grad(device) for device in self._arrays] or [self.grad()]

    def fresh_grads(self) -> list[Context]:
        """Return the devices whose gradient ``backward`` has written since an update used it."""
        self.current_array()
        return [
            device
            for device, array in self._arrays.items()
            if array._grad is not None and array._grad._storage.version != self._read[device]
        ]

    @property
    def grad_fused(self) -> bool:
        """Whether what used the gradient last was a TrainStep that did not write it."""
        data = self.current_array()
        fused, gradient = data._fused, data._grad
        if fused is None or gradient is None:
            return False
        return fused[1] == gradient._storage.version

    def use_grad(self, fused: Location | None = None) -> None:
        """Note that an update has used the gradient; ``fused``: it never reached memory."""
        for device, array in self._arrays.items():
            if array._grad is not None:
                self._read[device] = array._grad._storage.version
            array.fuse_grad(fused)

    def zero_grad(self) -> None:
        """Set the gradient on every device to zeros."""
        if not self._arrays or self._grad_req == "null":
            return
        fresh = self.fresh_grads()
        for device, array in self._arrays.items():
            array.zero_grad()
            if device not in fresh and array._grad is not None:
                self._read[device] = array._grad._storage.version


_ENDINGS = ("running_mean", "running_var", "weight", "bias", "gamma", "beta", "alpha", "const")


def _created(init: Any) -> Any:
    if isinstance(init, initializers.Mixed):
        return init
    return initializers.create(init)


def _sizes(shape: int | Sequence[int]) -> tuple[int, ...]:
    given = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    return tuple(max(int(size), 0) for size in given)


def _fits(known: Sequence[int], new: Sequence[int]) -> bool:
    """Return whether a shape fits one with unknown sizes."""
    return len(known) == len(new) and all(
        a <= 0 or a == b for a, b in zip(known, new, strict=True)
    )
