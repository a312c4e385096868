"""Recording what is computed, and going back over it: MXNet's ``autograd``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.errors import ArgumentError, AutogradError, TraceError, user_location
from graphc.frontend import backward as engine
from graphc.frontend.array import Array, mode
from graphc.frontend.array import record as record_entry
from graphc.frontend.ndarray import NDArray
from graphc.frontend.tracer import Tracer
from graphc.ir.op import Kind, OpDef


@contextmanager
def _scope(recording: bool | None, training: bool | None) -> Iterator[None]:
    before = mode.recording, mode.training
    mode.recording = before[0] if recording is None else recording
    mode.training = before[1] if training is None else training
    try:
        yield
    finally:
        mode.recording, mode.training = before


def record(train_mode: bool = True) -> Any:
    """Return a scope in which operations are recorded for `backward`.

    Parameters
    ----------
    train_mode : bool
        Whether dropout, batch norm and the like behave as in training.

    Examples
    --------
    >>> from graphc import autograd, nd
    >>> x = nd.array([3.0])
    >>> x.attach_grad()
    >>> with autograd.record():
    ...     y = x * x
    >>> y.backward()
    >>> x.grad.asscalar()
    np.float32(6.0)
    """
    return _scope(True, train_mode)


def pause(train_mode: bool = False) -> Any:
    """Return a scope in which operations are not recorded."""
    return _scope(False, train_mode)


def train_mode() -> Any:
    """Return a scope in which dropout, batch norm and the like behave as in training."""
    return _scope(None, True)


def predict_mode() -> Any:
    """Return a scope in which dropout, batch norm and the like behave as in prediction."""
    return _scope(None, False)


def is_recording() -> bool:
    """Return whether operations are recorded."""
    return mode.recording


def is_training() -> bool:
    """Return whether operations behave as in training."""
    return mode.training


def set_recording(is_recording: bool) -> bool:
    """Switch recording on or off; return what it was."""
    previous, mode.recording = mode.recording, bool(is_recording)
    return previous


def set_training(train_mode: bool) -> bool:
    """Switch training behaviour on or off; return what it was."""
    previous, mode.training = mode.training, bool(train_mode)
    return previous


def _listed(arrays: Any) -> list[Any]:
    return [arrays] if isinstance(arrays, Array) else list(arrays)


def mark_variables(
    variables: Any, gradients: Any, grad_reqs: str | Sequence[str] = "write"
) -> None:
    """Attach arrays that `backward` writes gradients into.

    Parameters
    ----------
    variables, gradients : NDArray or list of NDArray
    grad_reqs : str or list of str
        ``"write"``, ``"add"`` or ``"null"``.
    """
    targets, buffers = _listed(variables), _listed(gradients)
    requests = [grad_reqs] * len(targets) if isinstance(grad_reqs, str) else list(grad_reqs)
    for target, buffer, request in zip(targets, buffers, requests, strict=True):
        target.mark(buffer, request)


def backward(
    heads: Any, head_grads: Any = None, retain_graph: bool = False, train_mode: bool = True
) -> None:
    """Compute the gradients of heads for every array with `attach_grad`.

    Parameters
    ----------
    heads : NDArray or list of NDArray
    head_grads : NDArray or list of NDArray, optional
        Gradient of each head; by default ones.
    retain_graph : bool
        Keep the record for another pass.
    train_mode : bool
        Whether operations behave as in training.

    Raises
    ------
    AutogradError
        When a head was not computed under `record`, or its record was already used up.
    """
    engine.backward(_listed(heads), head_grads, retain_graph, train_mode)


def grad(
    heads: Any, variables: Any, head_grads: Any = None, retain_graph: bool | None = None,
    create_graph: bool = False, train_mode: bool = True,
) -> Any:  # fmt: skip
    """Return the gradients of heads by variables; their ``grad`` is left alone.

    Parameters
    ----------
    heads, variables : NDArray or list of NDArray
    head_grads : NDArray or list of NDArray, optional
    retain_graph : bool, optional
        By default as ``create_graph``.
    create_graph : bool
        Record the gradients too, so that they have gradients themselves.
    train_mode : bool

    Returns
    -------
    NDArray or list of NDArray
        As ``variables`` was given.
    """
    targets = _listed(variables)
    if not targets:
        raise ArgumentError("grad() needs at least one variable", where=user_location())
    retain = create_graph if retain_graph is None else retain_graph
    found = engine.gradients(
        _listed(heads), targets, head_grads, retain, create_graph, train_mode
    )
    return found[0] if isinstance(variables, Array) else found


class _CustomOp(OpDef):
    """The tape's op for a `Function`."""

    name, kind = "function", Kind.OPAQUE

    def vjp(self, g: Any, y: Any, *inputs: Any, function: Function) -> tuple[Any, ...]:
        """Call the function's own ``backward``."""
        if mode.recording:
            raise AutogradError(
                f"{type(function).__name__} is an autograd.Function, whose gradient is not "
                "recorded: it has no second gradient",
                remedy="Write it with nd operations only, or do not pass create_graph=True.",
                where=user_location(),
            )
        outputs = y if isinstance(y, tuple) else (y,)
        arriving = g if isinstance(g, tuple) else (g,)
        given = [
            NDArray.wrap(engine.ones_like(o)._array * 0) if c is None else _as_nd(c)
            for o, c in zip(outputs, arriving, strict=True)
        ]
        found = function.backward(*given)
        listed = found if isinstance(found, (list, tuple)) else (found,)
        if len(listed) != len(inputs):
            raise AutogradError(
                f"{type(function).__name__}.backward returned {len(listed)} gradients for "
                f"{len(inputs)} inputs",
                where=user_location(),
            )
        return tuple(None if part is None else engine.constant_of(part) for part in listed)


def _as_nd(array: Array) -> NDArray:
    found: NDArray = NDArray.wrap(array._array)
    found._storage = array._storage
    found._entry, found._index, found._leaf = array._entry, array._index, array._leaf
    return found


_CUSTOM = _CustomOp()


class Function:
    """An operation with a gradient of your own: override ``forward`` and ``backward``.

    Examples
    --------
    >>> from graphc import autograd, nd
    >>> class Sigmoid(autograd.Function):
    ...     def forward(self, x):
    ...         y = 1 / (1 + nd.exp(-x))
    ...         self.save_for_backward(y)
    ...         return y
    ...     def backward(self, dy):
    ...         (y,) = self.saved_tensors
    ...         return dy * y * (1 - y)
    """

    def __init__(self) -> None:
        self._saved: tuple[Any, ...] = ()

    def save_for_backward(self, *arrays: Any) -> None:
        """Keep arrays for ``backward``, where `saved_tensors` holds them."""
        self._saved = arrays

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `save_for_backward` kept."""
        return self._saved

    def forward(self, *inputs: Any) -> Any:
        """Compute the output(s) from arrays; nothing is recorded here."""
        raise NotImplementedError

    def backward(self, *output_grads: Any) -> Any:
        """Compute the gradient of each input from those of the outputs."""
        raise NotImplementedError

    def __call__(self, *inputs: Any) -> Any:
        """Run ``forward`` and record it as one operation.

        Raises
        ------
        TraceError
            In a function that is being compiled.
        """
        if any(isinstance(x, Tracer) for x in inputs):
            raise TraceError(
                f"{type(self).__name__} is an autograd.Function, which runs in Python and cannot "
                "be compiled",
                remedy="Do not hybridize the block that calls it.",
                where=user_location(),
            )
        with pause(mode.training):
            result = self.forward(*inputs)
        outputs = [_as_nd(o) for o in _listed(result)]
        for output in outputs:
            engine.detach_from_tape(output)
        if mode.recording:
            record_entry(_CUSTOM, {"function": self}, inputs, outputs)
        return outputs[0] if isinstance(result, Array) else outputs
