"""Executors: a Symbol bound to arrays, run forward and backward as compiled programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc.errors import (
    AutogradError,
    BindError,
    ShapeError,
    nearest,
    user_location,
)
from graphc.frontend.array import Array, Storage, mode
from graphc.frontend.assign import assign
from graphc.frontend.backward import constant_of, cotangents_of
from graphc.frontend.context import Context
from graphc.frontend.jit import Jit
from graphc.frontend.memory import accumulate, filled, overwrite
from graphc.frontend.ndarray import NDArray
from graphc.frontend.symbol.infer import Inference
from graphc.frontend.symbol.layer_shapes import RULES
from graphc.frontend.symbol.node import OPERATOR, Entry, Node, evaluate, topological, variables
from graphc.frontend.tape import Leaf, pull_back
from graphc.frontend.trace import symbolic_input
from graphc.frontend.tracer import Trace
from graphc.frontend.tree import flatten
from graphc.ir.graph import Value, placeholder
from graphc.ir.types import TensorType, shape_text


class Bound:
    """What executors of one Symbol share: its heads, names and compiled programs.

    Attributes
    ----------
    heads : tuple of (Node, int)
    arguments, auxiliary : list of Node
        The variables; auxiliary ones are updated by operators in training.
    symbol : Symbol
    """

    def __init__(self, symbol: Any, heads: Sequence[Entry], name: str) -> None:
        self.symbol, self.heads = symbol, tuple(heads)
        self.arguments, self.auxiliary = variables(self.heads)
        names = [node.name for node in (*self.arguments, *self.auxiliary)]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise BindError(
                f"two different variables are called {twice!r}",
                remedy="Use one sym.var for both, or another name.",
                where=user_location(),
            )

        sized = _parameters(self.heads) | {id(node) for node in self.auxiliary}
        fixed = [id(node) in sized for node in (*self.arguments, *self.auxiliary)]
        self.programs = Programs(self.heads, name, names, fixed)

    def output_names(self) -> list[str]:
        """Return the names of the outputs."""
        return [node.output_name(index) for node, index in self.heads]


class Programs(Jit):
    """The compiled programs of some heads, as a function of their variables.

    Attributes
    ----------
    fixed : tuple of bool
        For each variable, whether its sizes are those of a layer: it is a parameter or a state.
    """

    def __init__(
        self, heads: Sequence[Entry], name: str, names: Sequence[str], fixed: Sequence[bool]
    ) -> None:
        super().__init__(self._compute, name)
        self._heads, self._names, self.fixed = heads, tuple(names), tuple(fixed)

    def _compute(self, *values: Any) -> list[Any]:
        return evaluate(self._heads, dict(zip(self._names, values, strict=True)))

    def argument(self, trace: Trace, number: int, kind: TensorType) -> Value:
        """Return the input for a variable; a parameter of a layer has fixed sizes."""
        name = self._names[number]
        fixed = self.fixed[number]
        value = placeholder(name, kind) if fixed else symbolic_input(trace.solver, name, kind)
        trace.inputs.append((value, number))
        return value


def _parameters(heads: Sequence[Entry]) -> set[int]:
    """Return ids of the variables whose sizes are those of a layer, not those of its data."""
    return {
        id(entry[0])
        for node in topological(heads)
        if node.kind == OPERATOR and node.op in RULES
        for entry, place in zip(node.inputs[1:], node.places[1:], strict=True)
        if place != "label"
    }


class Executor:
    """A Symbol with arrays for its variables; `Symbol.bind` and `simple_bind` make it.

    Attributes
    ----------
    arg_dict, grad_dict, aux_dict : dict of str to NDArray
        Arguments, their gradients (None where none is computed) and auxiliary states. The arrays
        are those that were bound, not copies.
    outputs : list of NDArray
        Of the last `forward`.
    """

    def __init__(
        self, bound: Bound, ctx: Context, arg_dict: dict[str, NDArray],
        grad_dict: dict[str, NDArray | None], grad_req: dict[str, str],
        aux_dict: dict[str, NDArray],
    ) -> None:  # fmt: skip
        self._bound, self._ctx, self._requests = bound, ctx, grad_req
        self.arg_dict, self.grad_dict, self.aux_dict = arg_dict, grad_dict, aux_dict
        self._heads: list[Array] | None = None
        self._outputs: list[NDArray] | None = None
        check_arrays(bound, {**arg_dict, **aux_dict})

    def __repr__(self) -> str:
        return f"<Executor of {self._bound.symbol!r} on {self._ctx}>"

    @property
    def programs(self) -> Programs:
        """The compiled programs, which the executors of one Symbol share."""
        return self._bound.programs

    @property
    def arg_arrays(self) -> list[NDArray]:
        """The arguments in the order of `Symbol.list_arguments`."""
        return list(self.arg_dict.values())

    @property
    def grad_arrays(self) -> list[NDArray | None]:
        """The gradients in the order of `Symbol.list_arguments`."""
        return list(self.grad_dict.values())

    @property
    def aux_arrays(self) -> list[NDArray]:
        """The auxiliary states in the order of `Symbol.list_auxiliary_states`."""
        return list(self.aux_dict.values())

    @property
    def outputs(self) -> list[NDArray]:
        """The results of the last `forward`.

        Raises
        ------
        BindError
            Before the first.
        """
        if self._outputs is None:
            raise BindError(
                "this executor has no outputs yet", remedy="Call forward() first.",
                where=user_location(),
            )  # fmt: skip
        return self._outputs

    @property
    def output_dict(self) -> dict[str, NDArray]:
        """The results of the last `forward` by name."""
        return dict(zip(self._bound.output_names(), self.outputs, strict=True))

    def forward(self, is_train: bool = False, **data: Any) -> list[NDArray]:
        """Compute the outputs.

        Parameters
        ----------
        is_train : bool
            Whether dropout, batch norm and the like behave as in training, and `backward` may
            follow.
        **data : NDArray, numpy.ndarray or number
            Written into the bound arguments of these names first.

        Returns
        -------
        list of NDArray

        Raises
        ------
        BindError
            For a name that is no argument.
        ShapeError
            For an array that has not the shape of the argument.
        """
        for name, array in data.items():
            self._write(name, array)
        wanted = is_train and any(g is not None for g in self.grad_dict.values())
        handles = [self._handle(name) for name in self.arg_dict]
        handles += [NDArray(a._array, a._storage) for a in self.aux_dict.values()]
        _, structure = flatten((tuple(handles), {}), lambda x: isinstance(x, Array))
        with self._ctx, _scopes(wanted, bool(is_train)):
            results = self.programs.trace_for(handles, structure).run(handles)
        self._heads = results if wanted else None
        self._outputs = [NDArray(r._array, r._storage) for r in results]
        return self._outputs

    def _handle(self, name: str) -> NDArray:
        """Return a handle of a bound array that leads gradients to its name."""
        array = self.arg_dict[name]
        handle = NDArray(array._array, array._storage)
        if self.grad_dict.get(name) is not None:
            handle._leaf = Leaf(name)
        return handle

    def _write(self, name: str, array: Any) -> None:
        if name not in self.arg_dict:
            raise unknown_name("argument", name, self.arg_dict)
        target = self.arg_dict[name]
        given = getattr(array, "shape", None)
        if given is not None and tuple(given) != target.shape:
            raise ShapeError(
                f"argument {name!r} was bound with shape {shape_text(target.shape)}, forward got "
                f"{shape_text(tuple(given))}",
                remedy=f"executor.reshape({name}={tuple(given)}) returns an executor for it.",
                where=user_location(),
            )
        with _scopes(False, mode.training):
            assign(target, array)

    def backward(self, out_grads: Any = None, is_train: bool = True) -> None:
        """Compute the gradients and write them into `grad_dict` as ``grad_req`` says.

        Parameters
        ----------
        out_grads : NDArray or list of NDArray, optional
            Gradient of each output; by default ones.
        is_train : bool
            Whether operators behave as in training.

        Raises
        ------
        AutogradError
            When ``forward(is_train=True)`` did not run before, or no gradient was asked for.
        """
        if self._heads is None:
            raise self._no_forward()
        with _scopes(False, is_train):
            arriving = pull_back(
                [constant_of(head) for head in self._heads],
                cotangents_of(self._heads, out_grads),
                retain=True,
            )
        found = {key.owner: g for key, g in arriving.items() if isinstance(key, Leaf)}
        for name, target in self.grad_dict.items():
            if target is not None:
                self._store(target, found.get(name), self._requests[name])

    def _no_forward(self) -> AutogradError:
        if all(g is None for g in self.grad_dict.values()):
            return AutogradError(
                "backward() has no gradient to compute: none was bound",
                remedy="Give args_grad= to bind, or use simple_bind, which makes them.",
                where=user_location(),
            )
        return AutogradError(
            "backward() needs forward(is_train=True) before it",
            remedy="Call executor.forward(is_train=True) first.",
            where=user_location(),
        )

    @staticmethod
    def _store(target: NDArray, gradient: Array | None, request: str) -> None:
        if request == "add":
            if gradient is not None:
                accumulate(target._array, gradient._array)
        else:
            overwrite(target._array, 0 if gradient is None else gradient._array)
        target._storage.touch()

    def copy_params_from(
        self, arg_params: Mapping[str, Any], aux_params: Mapping[str, Any] | None = None,
        allow_extra_params: bool = False,
    ) -> None:  # fmt: skip
        """Copy arrays into the arguments and auxiliary states of the same names.

        Parameters
        ----------
        arg_params, aux_params : dict of str to NDArray
        allow_extra_params : bool
            Skip names that this executor does not have.

        Raises
        ------
        BindError
            For such a name otherwise, or an array of another shape.
        """
        pairs = (("argument", arg_params, self.arg_dict), ("auxiliary state", aux_params,
                                                           self.aux_dict))  # fmt: skip
        for what, given, own in pairs:
            for name, array in (given or {}).items():
                if name in own:
                    _copy(what, name, array, own[name])
                elif not allow_extra_params:
                    raise unknown_name(
                        what, name, own, "allow_extra_params=True skips what is not needed."
                    )

    def reshape(
        self, partial_shaping: bool = False, allow_up_sizing: bool = False,
        **shapes: Sequence[int],
    ) -> Executor:  # fmt: skip
        """Return an executor for arguments of other shapes; what keeps its shape is shared.

        Parameters
        ----------
        partial_shaping : bool
            Let the shapes of arguments that are not named change too.
        allow_up_sizing : bool
            Accepted as MXNet's; arrays that grow are made anew in any case.
        **shapes : tuple of int

        Raises
        ------
        BindError
            For a name that is no argument, and where an argument that is not named would change.
        """
        for name in shapes:
            if name not in self.arg_dict:
                raise unknown_name("argument", name, self.arg_dict)
        dtypes = {name: array.type.dtype for name, array in self.arg_dict.items()}
        inference = Inference(self._bound.heads, shapes, dtypes)
        fitted = {
            node.name: settled_shape(inference, node, "reshape")
            for node in (*self._bound.arguments, *self._bound.auxiliary)
        }
        for name, array in self.arg_dict.items():
            if fitted[name] != array.shape and name not in shapes and not partial_shaping:
                raise BindError(
                    f"argument {name!r} would change from shape {shape_text(array.shape)} to "
                    f"{shape_text(fitted[name])}",
                    remedy="Name it as well, or pass partial_shaping=True for a new array.",
                    where=user_location(),
                )

        def fit(array: Any, name: str) -> Any:
            if array is None or array.shape == fitted[name]:
                return array
            return zeros_on(self._ctx, fitted[name], array._array.dtype)

        arrays, grads, states = (
            {name: fit(array, name) for name, array in own.items()}
            for own in (self.arg_dict, self.grad_dict, self.aux_dict)
        )
        return Executor(self._bound, self._ctx, arrays, grads, self._requests, states)

    def explain(self) -> str:
        """Return a text: which programs were compiled, for which sizes and why."""
        return self.programs.explain()

    def debug_str(self) -> str:
        """Return the nodes of the Symbol as text."""
        text: str = self._bound.symbol.debug_str()
        return text


def zeros_on(context: Context, shape: Sequence[int], dtype: Any) -> NDArray:
    """Return a new array of zeros on a device."""
    return NDArray(filled(shape, 0, dtype, context), Storage.on(context))


def unknown_name(what: str, name: str, known: Mapping[str, Any], remedy: str = "") -> BindError:
    """Return the error of a name that a Symbol does not have."""
    listed = ", ".join(list(known)[:20]) or "none"
    return BindError(
        f"there is no {what} {name!r}.{nearest(name, known)}",
        remedy=f"The Symbol's are: {listed}. {remedy}".strip(),
        where=user_location(),
    )


def settled_shape(inference: Inference, node: Node, what: str) -> tuple[int, ...]:
    """Return the shape of a variable that must be known by now.

    Raises
    ------
    BindError
        When it does not follow from what was given.
    """
    shape = inference.shape((node, 0))
    plain = tuple(d for d in shape or () if isinstance(d, int))
    if shape is None or len(plain) != len(shape):
        raise BindError(
            f"the shape of {node.name!r} does not follow from those given to {what}",
            remedy=f"Give it too, {what}(..., {node.name}=(...)).",
            where=user_location(),
        )
    return plain


def check_arrays(bound: Bound, arrays: Mapping[str, NDArray]) -> None:
    """Raise where shapes or types of arrays contradict the Symbol, naming node and argument."""
    for node in (*bound.arguments, *bound.auxiliary):
        asked, array = node.params.get("dtype"), arrays[node.name]
        if asked is not None and array.type.dtype is not asked:
            raise BindError(
                f"variable {node.name!r} was made with dtype {asked.name}, it gets "
                f"{array.type.dtype.name}",
                remedy=f"Convert the array with .astype({asked.name!r}).",
                where=user_location(),
            )
    Inference(
        bound.heads,
        {name: array.shape for name, array in arrays.items()},
        {name: array.type.dtype for name, array in arrays.items()},
        exact=True,
    )


def _copy(what: str, name: str, source: Any, target: NDArray) -> None:
    if tuple(np.shape(source)) != target.shape:
        raise BindError(
            f"{what} {name!r} has shape {shape_text(target.shape)}, it gets an array of "
            f"{shape_text(tuple(np.shape(source)))}",
            where=user_location(),
        )
    with _scopes(False, mode.training):
        assign(target, source)


@contextmanager
def _scopes(recording: bool, training: bool) -> Iterator[None]:
    before = mode.recording, mode.training
    mode.recording, mode.training = recording, training
    try:
        yield
    finally:
        mode.recording, mode.training = before

