"""Parameters: arrays with an initializer, a gradient, and perhaps a shape that is not known yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import (
    ArgumentError,
    AutogradError,
    DeferredInitializationError,
    Location,
    ShapeError,
    UninitializedError,
    nearest,
    user_location,
)
from graphc.frontend import context as devices
from graphc.frontend import initializer as initializers
from graphc.frontend.array import Array, Writes
from graphc.frontend.autograd import pause
from graphc.frontend.context import Context
from graphc.frontend.gluon.completions import Completed
from graphc.frontend.initializer import InitDesc
from graphc.frontend.ndarray import NDArray
from graphc.frontend.symbol.functions import var
from graphc.frontend.tracer import current_trace, tracing
from graphc.ir.types import as_dtype
from graphc.runtime.random import host_generator

GRAD_REQUESTS = ("write", "add", "null")

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
    """An initialization that waits for the shape: how to do it, and with which random key."""

    init: Any
    default: Any
    key: int
    shape: tuple[int, ...] | None


class Parameter:
    """An array that a Block computes with and a Trainer updates.

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
        self._data: NDArray | None = None
        self._pending: _Pending | None = None
        self._variable: Any = None
        self._grad_req = "null"
        self._read_version = 0
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
            if self._data is not None:
                self._attach_grad()

    @property
    def shape_known(self) -> bool:
        """Whether every size is known."""
        return self._shape is not None and all(size > 0 for size in self._shape)

    @property
    def deferred(self) -> bool:
        """Whether it was initialized before its shape was known, which it still is not."""
        return self._pending is not None and self._data is None

    @property
    def initialized(self) -> bool:
        """Whether there is an array."""
        return self._data is not None

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
        default_init : Initializer or str, optional
            By default ``Uniform(0.07)``.
        force_reinit : bool
            Make a new array where there is one.

        Raises
        ------
        ArgumentError
            When the shape is not known and deferring was not allowed.
        """
        if self._data is not None and not force_reinit:
            return
        one_device(ctx)
        # The key is drawn now: when the shape becomes known does not change the numbers.
        key = int(host_generator().integers(1 << 63))
        given = init if init is not None else self.init
        pending = _Pending(
            None if given is None else _created(given), _created(default_init), key, self._shape
        )
        if self.shape_known:
            self._make(pending)
        elif self.allow_deferred_init:
            self._data, self._pending = None, pending
            Writes.note()
        else:
            raise ArgumentError(
                f"parameter {self.name} cannot be initialized: its shape is {self._shape}",
                remedy="Give all sizes, or allow_deferred_init=True.",
                where=user_location(),
            )

    def finish_deferred(self) -> None:
        """Make the array of a deferred initialization whose shape has become known."""
        if self._pending is not None and self._data is None:
            if not self.shape_known:
                raise self._unreadable()
            Completed.note(self, self._pending)
            self._make(self._pending)

    def defer_again(self, pending: _Pending) -> None:
        """Go back to waiting for a shape: what told it was a mistake."""
        self._data, self._pending, self._shape = None, pending, pending.shape
        Writes.note()

    def _make(self, pending: _Pending) -> None:
        assert self._shape is not None
        array = NDArray(np.zeros(self._shape, self._dtype.numpy))
        generator = np.random.Generator(np.random.Philox(key=pending.key))
        init = pending.default if pending.init is None else pending.init
        explicit = pending.init is not None
        desc = InitDesc(self.name, {}, pending.default, generator, explicit)
        # Initializers may be user code that computes with arrays: at once, whoever is tracing.
        with tracing(None), pause():  # type: ignore[arg-type]
            init(desc, array)
        self._hold(array)

    def _hold(self, array: NDArray) -> None:
        """Take an array for good."""
        self._data, self._pending = array, None
        Writes.note()
        self._shape = array.shape
        self._attach_grad()

    def _attach_grad(self) -> None:
        assert self._data is not None
        gradient = NDArray(np.zeros(self._data.shape, self._data.dtype))
        self._data.mark(gradient, self._grad_req)
        self._read_version = 0

    # -- reading and writing -------------------------------------------------------------------

    def current_array(self) -> NDArray:
        """Return the array itself, also while a function is being compiled."""
        if self._data is None:
            raise self._unreadable()
        return self._data

    def _unreadable(self) -> UninitializedError | DeferredInitializationError:
        if self._pending is not None:
            return DeferredInitializationError(
                f"parameter {self.name} has no values yet: its shape {self._shape} becomes known "
                "when the network first sees data",
                remedy="Call the network on a batch first, or give the layer its input size "
                "(in_units, in_channels).",
                where=user_location(),
            )
        return UninitializedError(
            f"parameter {self.name} has not been initialized",
            remedy="Call net.initialize() (or collect_params().initialize()) before the network "
            "is used, once all layers are there.",
            where=user_location(),
        )

    def data(self, ctx: Any = None) -> Any:
        """Return the array; while a function is being compiled, what stands for it.

        Parameters
        ----------
        ctx : Context, optional
            The device; there is one.

        Raises
        ------
        UninitializedError
            Before ``initialize``.
        DeferredInitializationError
            Before the shape is known.
        """
        if _symbolic.get():
            return self.var()
        trace = current_trace()
        if trace is None:
            return self._data if self._data is not None else self.current_array()
        array = self.current_array()
        return array.tracer_class.wrap(trace.current(array, self._label(), self))

    def _label(self) -> str:
        """Return the name that graphs show: the path of the layer and the end of the name."""
        path = user_location().scope.partition(".")[2]
        ending = next((e for e in _ENDINGS if self.name.endswith(e)), "")
        return f"{path}.{ending}" if path and ending else self.name

    def list_data(self) -> list[NDArray]:
        """Return the array on each device."""
        return [self.data()]

    def set_data(self, data: Any) -> None:
        """Set the values, and with them a shape that was not known.

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
        if self._data is None:
            if self._pending is None:
                raise self._unreadable()
            self._hold(NDArray(np.array(values, self._dtype.numpy, order="C")))
        else:
            self._data._array[...] = values
            self._data._storage.touch()

    def reset_ctx(self, ctx: Any) -> None:
        """Move to another device; there is one."""
        one_device(ctx)

    def list_ctx(self) -> list[Context]:
        """Return the devices the array is on."""
        if self._data is None and self._pending is None:
            raise self._unreadable()
        return [devices.cpu()]

    def cast(self, dtype: Any) -> None:
        """Convert to another element type."""
        self._dtype = as_dtype(dtype)
        if self._data is not None:
            self._hold(NDArray(self._data._array.astype(self._dtype.numpy)))

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
        """Return the gradient, which ``backward`` writes.

        Raises
        ------
        AutogradError
            When there is none: ``grad_req`` is ``"null"``, or TrainStep fused it away.
        """
        array = self.current_array()
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
        return [self.grad()]

    @property
    def fresh_grad(self) -> bool:
        """Whether ``backward`` has written the gradient since an update used it."""
        gradient = self.current_array()._grad
        return gradient is not None and gradient._storage.version != self._read_version

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
        gradient = self.current_array()._grad
        if gradient is not None:
            self._read_version = gradient._storage.version
        self.current_array().fuse_grad(fused)

    def zero_grad(self) -> None:
        """Set the gradient to zeros."""
        if self._data is None or self._data._grad is None:
            return
        stale = not self.fresh_grad
        self._data.zero_grad()
        if stale:
            self.use_grad()


_ENDINGS = ("running_mean", "running_var", "weight", "bias", "gamma", "beta", "alpha", "const")


class Constant(Parameter):
    """A Parameter that no Trainer changes.

    Parameters
    ----------
    name : str
    value : array
    """

    def __init__(self, name: str, value: Any) -> None:
        values = value._array if isinstance(value, Array) else np.asarray(value, np.float32)
        self.value = NDArray(np.array(values))
        super().__init__(
            name, grad_req="null", shape=values.shape, dtype=values.dtype,
            init=initializers.Constant(values), differentiable=False,
        )  # fmt: skip


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


def one_device(ctx: Any) -> Context:
    """Return the one device of a context argument.

    Raises
    ------
    ArgumentError
        For a list of several.
    """
    given = list(ctx) if isinstance(ctx, (list, tuple)) else [ctx]
    if len(set(given)) > 1:
        raise ArgumentError(
            f"a network can be on one device, got {', '.join(map(str, given))}",
            remedy="Pass one context; its threads share the work (graphc.options(threads=...)).",
            where=user_location(),
        )
    return devices.usable(given[0] if given else None)
