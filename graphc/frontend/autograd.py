"""Recording what is computed, and going back over it: MXNet's ``autograd``."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.errors import ArgumentError, AutogradError, TraceError, user_location
from graphc.frontend import backward as engine
from graphc.frontend.array import Array, Storage, mode
from graphc.frontend.array import record as record_entry
from graphc.frontend.memory import filled, on_host
from graphc.frontend.ndarray import NDArray
from graphc.frontend.tape import Leaf
from graphc.frontend.tracer import current_trace
from graphc.frontend.tree import flatten
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

    def vjp(
        self, g: Any, y: Any, *inputs: Any, function: Function, saved: tuple[Any, ...],
        loose: Array | None,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Call the function's own ``backward`` with what this call of it saved."""
        name = type(function).__name__
        if mode.recording and loose is not None:
            raise AutogradError(
                f"{name}.forward kept an array of shape {loose.shape} that is neither an input nor "
                "an output: a second gradient would miss how it was computed",
                remedy="Keep inputs and outputs only, and compute the rest again in backward.",
                where=user_location(),
            )
        outputs = y if isinstance(y, tuple) else (y,)
        arriving = g if isinstance(g, tuple) else (g,)
        given = [
            _zeros(o) if c is None else _as_nd(c)
            for o, c in zip(outputs, arriving, strict=True)
        ]
        if mode.recording:
            for cotangent in given:
                cotangent._leaf = cotangent._leaf or (None if cotangent._entry else Leaf())
        function._saved = saved
        found = function.backward(*given)
        listed = found if isinstance(found, (list, tuple)) else (found,)
        if len(listed) != len(inputs):
            raise AutogradError(
                f"{name}.backward returned {len(listed)} gradients for {len(inputs)} inputs",
                remedy="Return one for each input of forward, None where there is none.",
                where=user_location(),
            )
        return tuple(map(functools.partial(_gradient, name), listed, inputs))


def _gradient(name: str, found: Any, operand: Array) -> Array | None:
    """Return what ``backward`` gave for one input as the tape takes it."""
    if found is None:
        return None
    if not isinstance(found, Array) or found.shape != operand.shape:
        kind = f"shape {found.shape}" if isinstance(found, Array) else f"a {type(found).__name__}"
        raise AutogradError(
            f"{name}.backward returned {kind} for an input of shape {operand.shape}",
            remedy="Return an NDArray of the input's shape, or None.",
            where=user_location(),
        )
    if mode.recording and not found.on_tape and on_host(found._array).any():
        raise AutogradError(
            f"{name}.backward computed a gradient outside of nd: it has no second gradient",
            remedy="Write backward with nd operations only, or do not pass create_graph=True.",
            where=user_location(),
        )
    return engine.constant_of(found)


def _zeros(like: Array) -> NDArray:
    context = like._storage.context
    return NDArray(filled(like.shape, 0, like.dtype.numpy, context), Storage.on(context))


def _as_nd(array: Array) -> NDArray:
    found = NDArray(array._array, array._storage)
    found._entry, found._index, found._leaf = array._entry, array._index, array._leaf
    return found


_CUSTOM = _CustomOp()


class Function:
    """An operation with a gradient of your own: override ``forward`` and ``backward``.

    A second gradient (``grad(..., create_graph=True)``) is that of ``backward``: it must then be
    written with nd operations, and ``forward`` must keep nothing but inputs and outputs.

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

    _saved: tuple[Any, ...] = ()

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
        ArgumentError
            For an input or output that is no NDArray.
        """
        name = type(self).__name__
        if current_trace() is not None:
            raise TraceError(
                f"{name} is an autograd.Function, which runs in Python and cannot be compiled",
                remedy="Do not hybridize the block that calls it, or write it with nd operations; "
                "nd.stop_gradient keeps the gradient out of a part.",
                where=user_location(),
            )
        _expect_arrays(f"{name} takes", inputs)
        before = set(map(id, _arrays_in(vars(self))))
        with pause(mode.training):
            result = self.forward(*inputs)
        listed = result if isinstance(result, (list, tuple)) else [result]
        _expect_arrays(f"{name}.forward returns", listed)
        known = before.union(map(id, inputs))
        # An array that was there before gets a second handle: it has another gradient there.
        outputs = [
            NDArray(o._array, o._storage) if id(o) in known or o.on_tape else o for o in listed
        ]
        if mode.recording:
            made = set(map(id, listed)) | known
            kept = (a for a in _arrays_in(vars(self)) if id(a) not in made)
            loose = next((a for a in kept if a.type.dtype.floating and not a.is_mask), None)
            attrs = {"function": self, "saved": self._saved, "loose": loose}
            record_entry(_CUSTOM, attrs, inputs, outputs)
        return outputs if isinstance(result, (list, tuple)) else outputs[0]


def _arrays_in(tree: Any) -> list[Any]:
    return flatten(tree, lambda leaf: isinstance(leaf, NDArray))[0]


def _expect_arrays(what: str, arrays: Sequence[Any]) -> None:
    wrong = next((a for a in arrays if not isinstance(a, NDArray)), None)
    if wrong is not None:
        raise ArgumentError(
            f"{what} NDArrays, got a {type(wrong).__name__}",
            remedy="Keep other values as attributes of the Function.",
            where=user_location(),
        )
