"""Symbol: one or more outputs of an untyped graph, composed with operators and functions."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import (
    ArgumentError,
    BindError,
    IndexRangeError,
    ShapeError,
    TraceError,
    UnknownAttributeError,
    no_attribute,
    user_location,
)
from graphc.frontend.ndarray import NDArray
from graphc.frontend.ndarray_methods import COMPARISONS, NDMethods
from graphc.frontend.ops import elementwise, shape
from graphc.frontend.ops.operator import OPERATORS, Operator
from graphc.frontend.symbol.bind import Arrays, bind, simple_bind
from graphc.frontend.symbol.compose import (
    as_entry,
    choose_by_name,
    compose,
    compose_record,
    substituted,
    with_inputs,
)
from graphc.frontend.symbol.dtypes import check_arguments, infer_dtypes
from graphc.frontend.symbol.executor import Bound, Executor, unknown_name
from graphc.frontend.symbol.infer import Inference, is_complete, known_dtypes, plain_shape
from graphc.frontend.symbol.node import (
    VARIABLE,
    Entry,
    Node,
    topological,
    variables,
)
from graphc.ir.operand import REGISTRY, Operators, is_scalar

Shapes = list[tuple[int, ...]]

_OF_COMPARISONS = {
    name: OPERATORS[f"broadcast_{name.replace('less', 'lesser')}"] for name in COMPARISONS
}
_OF_ARRAYS = ("shape", "ndim", "size", "dtype", "type", "context", "ctx", "grad", "asnumpy")
_binding = threading.RLock()


class Symbol(NDMethods, Operators):
    """Outputs of calls that wait for arrays; `graphc.sym.var` makes the first one.

    The functions of `graphc.sym`, Python's operators and the methods of an NDArray compose
    Symbols; `bind` gives them arrays.

    Examples
    --------
    >>> from graphc import sym
    >>> fc1 = sym.FullyConnected(sym.var("data"), num_hidden=10, name="fc1")
    >>> fc1.list_arguments(), fc1.list_outputs()
    (['data', 'fc1_weight', 'fc1_bias'], ['fc1_output'])
    """

    __slots__ = ("_bound", "_heads")
    __graphc_priority__ = 40
    namespace = "sym"

    def __init__(self, heads: Sequence[Entry]) -> None:
        self._heads = tuple(heads)
        self._bound: Bound | None = None

    # -- composing -----------------------------------------------------------------------------

    @staticmethod
    def __graphc_compose__(record: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Symbol:
        node = compose(record, args, kwargs)
        check_arguments(node)
        return every_output(node)

    @staticmethod
    def __graphc_apply__(op: Any, operands: tuple[Any, ...], attrs: dict[str, Any]) -> Symbol:
        return every_output(compose_record(op, operands, attrs))

    def _binary(self, name: str, other: Any, swapped: bool = False) -> Any:
        known = hasattr(other, "__graphc_apply__") or is_scalar(other)
        if not (known or isinstance(other, np.ndarray)):
            return NotImplemented
        operands = (other, self) if swapped else (self, other)
        record = _OF_COMPARISONS.get(name)
        if record is None:
            return Symbol.__graphc_apply__(REGISTRY[name], operands, {})
        hint = f"_{record.name.removeprefix('broadcast_')}"
        hint += "scalar" if is_scalar(other) else ""
        return every_output(compose(record, operands, {}, hint))

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> bool:
        raise TraceError(
            "a Symbol has no truth value: it is computed when it is bound",
            remedy="Use sym.where(condition, x, y) to choose between values.",
            where=user_location(),
        )

    def __call__(self, *args: Symbol, name: str | None = None, **kwargs: Symbol) -> Symbol:
        """Return this graph with variables replaced by other Symbols.

        Parameters
        ----------
        *args : Symbol
            For the arguments in the order of `list_arguments`.
        name : str, optional
            New name of the last node.
        **kwargs : Symbol
            For the variables of these names.

        Raises
        ------
        ArgumentError
            For a name that is no variable.
        """
        names = self.list_inputs()
        arguments = self.list_arguments()
        if len(args) > len(arguments):
            raise ArgumentError(
                f"{self!r} takes {len(arguments)} Symbols, got {len(args)}",
                where=user_location(),
            )
        given = {**dict(zip(arguments, args)), **kwargs}
        for variable in given:
            choose_by_name("variable", variable, names)
        entries = {key: as_entry("composition", item) for key, item in given.items()}
        heads = substituted(self._heads, entries)
        if name is not None and len(heads) == 1 and heads[0][0].kind != VARIABLE:
            heads = [(with_inputs(heads[0][0], heads[0][0].inputs, name), heads[0][1])]
        return Symbol(heads)

    # -- what NDArrays have and Symbols have not ---------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name in _OF_ARRAYS:
            raise UnknownAttributeError(
                f"a Symbol has no {name}: it gets its shape and elements when it is bound",
                remedy="Use infer_shape(), or operators that need no sizes: reshape codes 0, -1, "
                "-2, -3, -4, slice_like, broadcast_like.",
                where=user_location(),
            )
        raise no_attribute("Symbol", name, dir(Symbol))

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        """Return the elements as another type."""
        return elementwise.cast(self, dtype=dtype)

    def copy(self) -> Any:
        """Return a copy of the elements."""
        return shape.identity(self)

    def detach(self) -> Any:
        """Return the same elements as a constant for differentiation."""
        return shape.BlockGrad(self)

    # -- outputs -------------------------------------------------------------------------------

    @property
    def name(self) -> str | None:
        """Name of the node; None for a group."""
        nodes = {id(node): node for node, _ in self._heads}
        return next(iter(nodes.values())).name if len(nodes) == 1 else None

    def __repr__(self) -> str:
        if self.name is not None:
            return f"<Symbol {self.name}>"
        return f"<Symbol group [{', '.join(node.name for node, _ in self._heads)}]>"

    def __len__(self) -> int:
        return len(self._heads)

    def __iter__(self) -> Iterator[Symbol]:
        return (Symbol([head]) for head in self._heads)

    def __getitem__(self, key: int | str | slice) -> Symbol:
        """Return one output by its number or name, or several by a slice."""
        if isinstance(key, str):
            return Symbol([self._heads[choose_by_name("output", key, self.list_outputs())]])
        if isinstance(key, slice):
            return Symbol(self._heads[key])
        if not isinstance(key, (int, np.integer)):
            raise ArgumentError(
                f"a Symbol is indexed by the number or the name of an output, not {key!r}",
                remedy="sym.slice, sym.slice_axis and sym.take choose elements.",
                where=user_location(),
            )
        if not -len(self) <= key < len(self):
            raise IndexRangeError(
                f"{self!r} has {len(self)} outputs, there is no output {key}",
                remedy=f"They are {', '.join(self.list_outputs()[:20])}.",
                where=user_location(),
            )
        return Symbol([self._heads[key]])

    @property
    def num_outputs(self) -> int:
        """How many outputs there are."""
        return len(self._heads)

    def list_outputs(self) -> list[str]:
        """Return the names of the outputs, ``fc1_output``."""
        return [node.output_name(index) for node, index in self._heads]

    def list_arguments(self) -> list[str]:
        """Return the names of the variables that are given or learnt, in order of use."""
        return [node.name for node in variables(self._heads)[0]]

    def list_auxiliary_states(self) -> list[str]:
        """Return the names of the variables that operators update in training."""
        return [node.name for node in variables(self._heads)[1]]

    def list_inputs(self) -> list[str]:
        """Return the names of all variables."""
        return [node.name for node in topological(self._heads) if node.kind == VARIABLE]

    def get_internals(self) -> Symbol:
        """Return every output of every node, variables too, as a group."""
        nodes = topological(self._heads)
        return Symbol([(node, i) for node in nodes for i in range(len(node.outputs))])

    def get_children(self) -> Symbol | None:
        """Return the operands of the nodes of the outputs as a group; None for a variable."""
        nodes = {id(node): node for node, _ in self._heads}.values()
        entries = [entry for node in nodes for entry in node.inputs]
        return Symbol(entries) if entries else None

    # -- attributes ----------------------------------------------------------------------------

    def attr(self, key: str) -> str | None:
        """Return what is kept at the node under a key, or None."""
        return self.list_attr().get(key)

    def list_attr(self) -> dict[str, str]:
        """Return everything that is kept at the node, with the arguments of its call as text."""
        node = self._node()
        return {} if node is None else _attributes(node)

    def attr_dict(self) -> dict[str, dict[str, str]]:
        """Return what is kept at every node, by the node's name."""
        found = {node.name: _attributes(node) for node in topological(self._heads)}
        return {name: attributes for name, attributes in found.items() if attributes}

    def _set_attr(self, **attributes: str) -> None:
        """Keep strings at the node."""
        node = self._node()
        if node is None:
            raise ArgumentError("a group has no attributes", where=user_location())
        node.attributes.update(attributes)

    def _node(self) -> Node | None:
        nodes = {id(node): node for node, _ in self._heads}
        return next(iter(nodes.values())) if len(nodes) == 1 else None

    def debug_str(self) -> str:
        """Return the nodes as text, operands before users."""
        lines = ["outputs: " + ", ".join(self.list_outputs())]
        for node in topological(self._heads):
            if node.kind == VARIABLE:
                lines.append(f"variable {node.name}")
                continue
            inputs = ", ".join(source.output_name(index) for source, index in node.inputs)
            given = [*node.scalars.items(), *node.params.items()]
            params = "".join(f" {key}={item!r}" for key, item in given)
            lines.append(f"{node.op} {node.name}({inputs}){params}")
        return "\n".join(lines)

    # -- copies --------------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        order = list(topological(self._heads))
        number = {id(node): i for i, node in enumerate(order)}
        rows = [
            (n.kind, n.op, n.name, tuple((number[id(s)], i) for s, i in n.inputs), n.places,
             dict(n.params), n.outputs, dict(n.attributes), n.where, dict(n.scalars))
            for n in order
        ]  # fmt: skip
        return _rebuilt, (rows, [(number[id(node)], index) for node, index in self._heads])

    def __copy__(self) -> Symbol:
        rebuild, parts = self.__reduce__()
        copied: Symbol = rebuild(*parts)
        return copied

    def __deepcopy__(self, memo: Any) -> Symbol:
        return self.__copy__()

    # -- types ---------------------------------------------------------------------------------

    def infer_shape(
        self, *args: Sequence[int] | None, **kwargs: Sequence[int]
    ) -> tuple[Shapes | None, Shapes | None, Shapes | None]:
        """Return the shapes of arguments, outputs and auxiliary states.

        Parameters
        ----------
        *args : tuple of int or None
            Shapes of the arguments in order; None where it is not known.
        **kwargs : tuple of int
            Shapes of arguments by name; 0 or -1 is a size that is not known.

        Returns
        -------
        arg_shapes, out_shapes, aux_shapes : list of tuple of int
            None, all three, with a warning, where they do not follow from what was given.

        Raises
        ------
        ShapeError
            When shapes contradict each other; names the node and its operand.
        """
        inference = self._inferred(args, kwargs)
        unknown = [
            node.output_name(index)
            for node, index in self._typed_entries()
            if not is_complete(inference.shape((node, index)))
        ]
        if unknown:
            warnings.warn(
                f"the shapes of {', '.join(unknown[:8])} do not follow from those given; "
                "infer_shape_partial returns what is known",
                stacklevel=2,
            )
            return None, None, None
        return self._listed_shapes(inference)  # type: ignore[return-value]

    def infer_shape_partial(
        self, *args: Sequence[int] | None, **kwargs: Sequence[int]
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """Return shapes as `infer_shape`: () where nothing is known, 0 for an unknown size."""
        found = self._listed_shapes(self._inferred(args, kwargs))
        arguments, outputs, states = ([s or () for s in part] for part in found)
        return arguments, outputs, states

    def _listed_shapes(self, inference: Inference) -> tuple[list[Any], list[Any], list[Any]]:
        arguments, states = variables(self._heads)

        def shapes(entries: Sequence[Entry]) -> list[Any]:
            return [plain_shape(inference.shape(entry)) for entry in entries]

        return (
            shapes([(n, 0) for n in arguments]), shapes(self._heads),
            shapes([(n, 0) for n in states]),
        )  # fmt: skip

    def _typed_entries(self) -> list[Entry]:
        arguments, states = variables(self._heads)
        return [*((n, 0) for n in (*arguments, *states)), *self._heads]

    def _inferred(
        self, args: Sequence[Sequence[int] | None], kwargs: Mapping[str, Sequence[int]]
    ) -> Inference:
        shapes = self._by_name(args, kwargs)
        for name, sizes in shapes.items():
            if not all(isinstance(d, (int, np.integer)) for d in sizes):
                raise ShapeError(f"{sizes!r} is no shape (of {name})", where=user_location())
        return Inference(self._heads, shapes, {})

    def _by_name(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        arguments = self.list_arguments()
        if len(args) > len(arguments):
            raise ArgumentError(
                f"{self!r} has {len(arguments)} arguments, got {len(args)}", where=user_location()
            )
        known = dict.fromkeys(self.list_inputs())
        for name in kwargs:
            if name not in known:
                raise unknown_name("argument", name, known)
        given = {**dict(zip(arguments, args)), **kwargs}
        return {name: item for name, item in given.items() if item is not None}

    def infer_type(self, *args: Any, **kwargs: Any) -> tuple[list[Any], list[Any], list[Any]]:
        """Return the element types of arguments, outputs and auxiliary states.

        Parameters
        ----------
        *args, **kwargs : dtype
            Of arguments, in order or by name; the others follow, in the end float32.

        Returns
        -------
        arg_types, out_types, aux_types : list of type
            NumPy's classes, ``numpy.float32``.
        """
        found = infer_dtypes(self._heads, known_dtypes(self._by_name(args, kwargs)))
        arguments, states = variables(self._heads)

        def types(entries: Sequence[Entry]) -> list[Any]:
            return [found[id(node), index].numpy.type for node, index in entries]

        return (
            types([(n, 0) for n in arguments]), types(self._heads), types([(n, 0) for n in states])
        )  # fmt: skip

    # -- running -------------------------------------------------------------------------------

    def bind(
        self, ctx: Any = None, args: Arrays = None, args_grad: Arrays = None,
        grad_req: Any = "write", aux_states: Arrays = None, group2ctx: Any = None,
        shared_exec: Any = None, **arrays: NDArray,
    ) -> Executor:  # fmt: skip
        """Return an executor over arrays, which it keeps and does not copy.

        Parameters
        ----------
        ctx : Context, optional
        args : dict of str to NDArray, or list of NDArray
            One for each argument; keywords do as well.
        args_grad : dict of str to NDArray, or list of NDArray, optional
            Where `Executor.backward` writes gradients.
        grad_req : str, or dict or list of str
            ``"write"``, ``"add"`` or ``"null"``, for all arguments or for each.
        aux_states : dict of str to NDArray, or list of NDArray, optional
        group2ctx, shared_exec
            Accepted as MXNet's; they have no effect.

        Raises
        ------
        BindError
            When arrays are missing, or are given for names that there are not.
        ShapeError
            When an array does not fit the node that takes it; names both.
        """
        if arrays:
            if args is not None and not isinstance(args, Mapping):
                raise BindError(
                    "bind got arrays both as a list and by keyword", where=user_location()
                )
            args = {**(args or {}), **arrays}
        return bind(self._shared(), ctx, args, args_grad, grad_req, aux_states)

    def simple_bind(
        self, ctx: Any = None, grad_req: Any = "write",
        type_dict: Mapping[str, Any] | None = None, stype_dict: Any = None,
        group2ctx: Any = None, shared_exec: Any = None, **kwargs: Sequence[int],
    ) -> Executor:  # fmt: skip
        """Return an executor over new arrays of zeros, with their gradients.

        Parameters
        ----------
        ctx : Context, optional
        grad_req : str, or dict or list of str
        type_dict : dict of str to dtype, optional
            Element types of arguments.
        stype_dict, group2ctx, shared_exec
            Accepted as MXNet's; they have no effect.
        **kwargs : tuple of int
            Shapes of arguments, from which the others follow.
        """
        return simple_bind(self._shared(), ctx, grad_req, type_dict, kwargs)

    def eval(self, ctx: Any = None, **kwargs: NDArray) -> list[NDArray]:
        """Return the outputs for arrays of the arguments, as a list."""
        states = self.list_auxiliary_states()
        given = {name: a for name, a in kwargs.items() if name not in states}
        kept = {name: a for name, a in kwargs.items() if name in states}
        return self.bind(ctx, given, aux_states=kept).forward()

    def _shared(self) -> Bound:
        """Return what executors of this Symbol share: its compiled programs."""
        with _binding:
            if self._bound is None:
                self._bound = Bound(self, self._heads, self.name or "group")
        return self._bound


def every_output(node: Node) -> Symbol:
    """Return all outputs of a node as a Symbol."""
    return Symbol([(node, index) for index in range(len(node.outputs))])


def _rebuilt(rows: Sequence[tuple[Any, ...]], heads: Sequence[tuple[int, int]]) -> Symbol:
    nodes: list[Node] = []
    for kind, op, name, inputs, *rest in rows:
        nodes.append(Node(kind, op, name, tuple((nodes[n], i) for n, i in inputs), *rest))
    return Symbol([(nodes[number], index) for number, index in heads])


def _attributes(node: Node) -> dict[str, str]:
    hidden = node.kind == VARIABLE
    params = {f"__{k}__" if hidden else str(k): _text(v) for k, v in node.params.items()}
    return {**params, **node.attributes}


def _text(item: Any) -> str:
    return str(getattr(item, "name", item))
