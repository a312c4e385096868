"""Telling what is wrong with the arguments of a Block: of its constructor, of its ``forward``."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from graphc.errors import ArgumentError, nearest, user_location


@cache
def constructor_arguments(cls: type) -> tuple[str, ...]:
    """Return the names that a constructor and those it hands keywords on to take."""
    known: list[str] = []
    for base in cls.__mro__:
        if "__init__" in base.__dict__ and base is not object:
            known += [
                p.name
                for p in inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
                if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"
            ]
    return tuple(dict.fromkeys(known))


def unknown_argument(cls: type, name: str) -> ArgumentError:
    """Return the error of a keyword that the constructor of a Block does not have."""
    known = constructor_arguments(cls)
    return ArgumentError(
        f"{cls.__name__} has no argument {name!r}.{nearest(name, known)}",
        remedy=f"Its arguments are {', '.join(known)}.",
        where=user_location(),
    )


def check_keywords(cls: type, keywords: dict[str, Any]) -> None:
    """Raise for a keyword that a layer of graphc does not have.

    Python would first complain of the positional argument that is missing because of it. What
    constructors of the user's own classes take is theirs to say.
    """
    if cls.__module__.startswith("graphc."):
        for name in keywords:
            if name not in constructor_arguments(cls):
                raise unknown_argument(cls, name)


def no_input(block: Any, args: tuple[Any, ...]) -> ArgumentError | None:
    """Return the error of a layer of graphc that got None for an input, or None if it did not."""
    if not type(block).__module__.startswith("graphc."):
        return None
    for parameter, given in zip(inspect.signature(block.forward).parameters.values(), args):
        if given is None and parameter.default is parameter.empty:
            return ArgumentError(
                f"{type(block).__name__} got None for its input {parameter.name!r}",
                remedy="A forward, function or transform without `return` gives None.",
                where=user_location(),
            )
    return None


def wrong_inputs(block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ArgumentError | None:
    """Return the error of a call whose inputs ``forward`` does not take, or None if it does."""
    own = {name: None for name in block._reg_params}
    calls = [(block.forward, args, kwargs)]
    if hasattr(block, "hybrid_forward"):
        calls.append((block.hybrid_forward, (None, *args), {**own, **kwargs}))
    for function, given, keywords in calls:
        try:
            inspect.signature(function).bind(*given, **keywords)
        except TypeError as misfit:
            names = [
                str(p)
                for p in inspect.signature(function).parameters.values()
                if p.name not in own and not (function != block.forward and p.name == "F")
            ]
            count = len(args) + len(kwargs)
            return ArgumentError(
                f"{type(block).__name__}.{function.__name__} takes ({', '.join(names)}), got "
                f"{count} input{'' if count == 1 else 's'}: {misfit}",
                remedy="Call the Block with one array for each input of its forward.",
                where=user_location(),
            )
    return None
