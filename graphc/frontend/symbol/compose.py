"""From a call with Symbols to a node: which arguments are inputs, which variables are missing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, nearest, user_location
from graphc.frontend.array import Array
from graphc.frontend.ops.operator import OPERATORS, Operator, unknown_keyword
from graphc.frontend.symbol.naming import current_names
from graphc.frontend.symbol.node import (
    OPERATOR,
    RECORD,
    SOURCE,
    VARIABLE,
    Entry,
    Node,
    topological,
)
from graphc.frontend.tracer import Tracer
from graphc.ir.operand import is_scalar

_NAMES = {
    "add": "_plus",
    "subtract": "_minus",
    "multiply": "_mul",
    "divide": "_div",
    "mod": "_mod",
    "power": "_power",
}
"""MXNet's names of what Python's operators make."""

_COMMUTES = ("add", "multiply")

# Inputs that a call may lack, and when an operator has them none the less: then they become
# variables like the others. An input that is not listed is always there.
_OPTIONAL: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "bias": lambda params: not params.get("no_bias"),
    "length": lambda params: bool(params.get("use_length")),
    "sequence_length": lambda params: bool(params.get("use_sequence_length")),
    "gamma": lambda params: params.get("act_type", "prelu") == "prelu",
    "state_cell": lambda params: params.get("mode", "lstm") == "lstm",
}


@functools.cache
def defaults(operator: str) -> dict[str, Any]:
    """Return the default value of each argument of an operator that has one."""
    parameters = inspect.signature(OPERATORS[operator].function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def variable(name: str, params: dict[str, Any], attributes: dict[str, str]) -> Node:
    """Return a new variable."""
    return Node(
        VARIABLE, "", name, params={k: v for k, v in params.items() if v is not None},
        attributes=attributes, where=user_location(),
    )  # fmt: skip


def compose(
    record: Operator, args: Sequence[Any], kwargs: Mapping[str, Any], hint: str | None = None
) -> Node:
    """Return the node of an operator's call; inputs that are missing become variables.

    Parameters
    ----------
    record : Operator
    args, kwargs
        Of the call; ``name=`` names the node, ``attr=`` is kept at it.
    hint : str, optional
        What the node is called where it has no name; by default as the operator.
    """
    params = dict(kwargs)
    name = current_names().get(params.pop("name", None), hint or record.name.lower())
    attributes = checked_attributes(params.pop("attr", None))
    params.pop("ctx", None)
    if params.pop("out", None) is not None:
        raise ArgumentError(
            f"{record.name} of a Symbol has no array to write into (out=)", where=user_location()
        )
    inputs: list[Entry]
    places: Sequence[str | int]
    if record.variadic:
        inputs, places = _variadic(record, args, params)
    else:
        params |= _positional(record, args, params)
        inputs, places = _named(record, name, params)
    for keyword in params:
        if keyword not in record.parameters:
            raise unknown_keyword(record.name, str(keyword), record.parameters)
    known = {**defaults(record.name), **params}
    outputs = ("output",) if record.outputs is None else tuple(record.outputs(**known))
    return Node(
        OPERATOR, record.name, name, tuple(inputs), tuple(places), params, outputs, attributes,
        user_location(),
    )  # fmt: skip


def checked_attributes(given: Any) -> dict[str, str]:
    """Return what a user wants to keep at a node.

    Raises
    ------
    ArgumentError
        For what is not a dict of strings.
    """
    found = dict(given or {})
    for key, item in found.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise ArgumentError(
                f"attr takes a dict of strings, got {key!r}: {item!r}",
                remedy=f"Write {str(key)!r}: {str(item)!r}.",
                where=user_location(),
            )
    return found


def _variadic(
    record: Operator, args: Sequence[Any], params: dict[str, Any]
) -> tuple[list[Entry], list[int]]:
    listed = args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args
    if not listed:
        raise ArgumentError(f"{record.name} got no Symbols", where=user_location())
    expected = params.pop("num_args", None)
    if expected is not None and int(expected) != len(listed):
        raise ArgumentError(
            f"{record.name} got {len(listed)} Symbols, num_args is {expected}",
            where=user_location(),
        )
    return [as_entry(record.name, x) for x in listed], list(range(len(listed)))


def _positional(record: Operator, args: Sequence[Any], params: Mapping[str, Any]) -> dict[str, Any]:
    if len(args) > len(record.parameters):
        raise ArgumentError(
            f"{record.name} takes {len(record.parameters)} arguments, got {len(args)}",
            where=user_location(),
        )
    found = dict(zip(record.parameters, args))
    twice = next((key for key in found if key in params), None)
    if twice is not None:
        raise ArgumentError(
            f"{record.name} got {twice!r} twice, by place and by name", where=user_location()
        )
    return found


def _named(record: Operator, name: str, params: dict[str, Any]) -> tuple[list[Entry], list[str]]:
    """Take the inputs out of the arguments, in the operator's order."""
    known = {**defaults(record.name), **params}
    inputs: list[Entry] = []
    places: list[str] = []
    for place in record.inputs:
        given = params.pop(place, None)
        if given is None and not _present(record, place, known):
            continue
        if is_scalar(given):
            params[place] = given
            continue
        inputs.append(
            (variable(f"{name}_{place}", {}, {}), 0)
            if given is None
            else as_entry(record.name, given)
        )
        places.append(place)
    return inputs, places


def _present(record: Operator, place: str, known: Mapping[str, Any]) -> bool:
    if place not in defaults(record.name):
        return True
    rule = _OPTIONAL.get(place)
    return rule is not None and rule(known)


def as_entry(op: str, operand: Any) -> Entry:
    """Return the one output that a Symbol stands for.

    Raises
    ------
    ArgumentError
        For an operand that is no Symbol, or one with several outputs.
    """
    heads = getattr(operand, "_heads", None)
    if heads is None:
        kind = type(operand).__name__
        array = isinstance(operand, (Array, Tracer, np.ndarray))
        raise ArgumentError(
            f"{op} cannot take a Symbol and {'an array' if array else f'a {kind}'} together",
            remedy="Make it a variable, sym.var(name), and give the array to bind."
            if array
            else "Pass Symbols and numbers.",
            where=user_location(),
        )
    if len(heads) != 1:
        names = ", ".join(node.output_name(index) for node, index in heads[:4])
        raise ArgumentError(
            f"{op} got a Symbol with {len(heads)} outputs ({names}) where one is needed",
            remedy="Choose one, for example symbol[0].",
            where=user_location(),
        )
    entry: Entry = heads[0]
    return entry


def compose_record(op: Any, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Node:
    """Return the node of an op record's call; numbers lie among its operands."""
    inputs, places, scalars = [], [], {}
    for position, operand in enumerate(operands):
        if is_scalar(operand):
            scalars[position] = operand
        else:
            inputs.append(as_entry(op.name, operand))
            places.append(position)
    name = current_names().get(None, _record_hint(op.name, places, len(operands)))
    return Node(
        RECORD, op.name, name, tuple(inputs), tuple(places), dict(attrs), where=user_location(),
        scalars=scalars,
    )  # fmt: skip


def _record_hint(op: str, places: Sequence[int], count: int) -> str:
    """Return MXNet's name: ``_plus``, ``_plusscalar``, ``_rminusscalar``."""
    if op == "negative":
        return "_mulscalar"
    if op not in _NAMES or len(places) == count:
        return _NAMES.get(op, op)
    swapped = places[0] == 1 and op not in _COMMUTES
    return f"_r{_NAMES[op][1:]}scalar" if swapped else f"{_NAMES[op]}scalar"


def compose_source(
    op: str, function: Callable[..., Any], name: str | None, args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Node:  # fmt: skip
    """Return the node of a call without operands: zeros, random numbers."""
    signature = inspect.signature(function)
    try:
        given = dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        unknown = next((key for key in kwargs if key not in signature.parameters), None)
        if unknown is not None:
            raise unknown_keyword(op, unknown, tuple(signature.parameters)) from None
        raise ArgumentError(f"{op}: {error}", where=user_location()) from None
    for key, item in given.items():
        if hasattr(item, "__graphc_apply__"):
            raise ArgumentError(
                f"{op}: {key} must be a number here, got a {type(item).__name__}",
                where=user_location(),
            )
    return Node(SOURCE, op, current_names().get(name, op), params=given, where=user_location())


def substituted(heads: Sequence[Entry], replacements: Mapping[str, Entry]) -> list[Entry]:
    """Return the heads with variables replaced by other outputs."""
    made: dict[int, Node] = {}

    def new(entry: Entry) -> Entry:
        node, index = entry
        if node.kind == VARIABLE and node.name in replacements:
            return replacements[node.name]
        return made[id(node)], index

    for node in topological(heads):
        inputs = tuple(new(entry) for entry in node.inputs)
        kept = all(a[0] is b[0] for a, b in zip(inputs, node.inputs, strict=True))
        made[id(node)] = node if kept else with_inputs(node, inputs)
    return [new(entry) for entry in heads]


def with_inputs(node: Node, inputs: tuple[Entry, ...], name: str | None = None) -> Node:
    """Return a copy of a node over other inputs, with another name if one is given."""
    return Node(
        node.kind, node.op, name or node.name, inputs, node.places, dict(node.params), node.outputs,
        dict(node.attributes), node.where, dict(node.scalars),
    )  # fmt: skip


def choose_by_name(what: str, name: str, names: Sequence[str]) -> int:
    """Return the position of a name, or raise naming the nearest."""
    if name not in names:
        raise ArgumentError(
            f"there is no {what} {name!r}.{nearest(name, names)}",
            remedy=f"There are {', '.join(names[:20])}.",
            where=user_location(),
        )
    return list(names).index(name)
