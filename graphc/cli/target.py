"""What ``dump`` and ``profile`` are pointed at: a graph file, or an object of a Python file."""

from __future__ import annotations

import inspect
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphc.cli.places import definition, relocated
from graphc.cli.shapes import parse_shape
from graphc.cli.symbols import bound_to_zeros, parameters, types_of
from graphc.errors import (
    ArgumentError,
    FileFormatError,
    GraphcError,
    Location,
    nearest,
    user_location,
)
from graphc.frontend.array import mode
from graphc.frontend.gluon.block import Block
from graphc.frontend.gluon.hybrid_block import HybridBlock
from graphc.frontend.gluon.train_step import TrainStep
from graphc.frontend.jit import Jit
from graphc.frontend.ndarray import NDArray
from graphc.frontend.symbol.executor import Executor
from graphc.frontend.symbol.symbol import Symbol
from graphc.ir.graph import Graph
from graphc.ir.parser import parse_graph
from graphc.ir.sizes import bind_sizes
from graphc.ir.types import TensorType
from graphc.ir.verify import verify

EXAMPLE = "example_inputs"


@dataclass(frozen=True, slots=True)
class Subject:
    """A graph to dump.

    Attributes
    ----------
    graph : Graph
        As traced.
    sizes : dict of str to int
        The sizes that the inputs it was traced with have.
    captured : tuple of int
        The inputs that are Parameters or arrays that the code refers to; None where a graph file
        does not tell.
    fixed : tuple of int
        Those of them that are Parameters: what depends on these alone runs once.
    """

    graph: Graph
    sizes: dict[str, int] = field(default_factory=dict)
    captured: tuple[int, ...] | None = None
    fixed: tuple[int, ...] = ()


def load(target: str, shapes: Sequence[str], training: bool) -> Subject:
    """Return the graph of ``file.graph`` or ``file.py:object``.

    Parameters
    ----------
    target : str
    shapes : sequence of str
        Types of the arguments to trace with, ``x=f32[64,784]``.
    training : bool
        Trace in training mode.

    Raises
    ------
    GraphcError
        For a file or object that is not there, or an object that cannot be traced.
    """
    path, name = _parts(target)
    if path.endswith(".py"):
        return _from_python(Path(path), name, shapes, training)
    if target.endswith(".graph"):
        return Subject(_read_graph(Path(target)))
    raise ArgumentError(
        f"{target!r} is neither a Python object nor a graph file",
        remedy="Name a Python file and an object in it (lenet.py:net), or a file that ends in "
        ".graph.",
    )


def runnable(target: str, shapes: Sequence[str]) -> tuple[Callable[[], object], Location]:
    """Return a call of ``file.py:object``, compiled, and the line that makes the object.

    Parameters
    ----------
    target : str
    shapes : sequence of str
        As of `load`; the arrays that are made so are zeros.

    Raises
    ------
    GraphcError
        As of `load`, and for a graph file.
    """
    path, name = _parts(target)
    if not path.endswith(".py"):
        raise ArgumentError(
            f"{target!r} is no Python object: what is profiled has to run",
            remedy="Name a Python file and an object in it, lenet.py:net.",
        )
    found, arguments = _resolved(Path(path), name, shapes)
    place = definition(Path(path), name)
    if isinstance(found, Executor):
        return found.forward, place
    if isinstance(found, HybridBlock):
        found.hybridize()
    called = found if isinstance(found, Block | Jit | TrainStep) else Jit(found)

    def call() -> None:
        with _user_code(Path(path)):
            called(*arguments)

    return call, place


def _parts(target: str) -> tuple[str, str]:
    """Return the file of a target, and the name of the object if it is Python."""
    path, separator, name = target.rpartition(":")
    if not separator or (os.name == "nt" and len(path) == 1):
        path, name = target, ""
    if path.endswith(".py") and not name:
        raise ArgumentError(
            f"{target} does not say which object of the file is meant",
            remedy=f"Add its name: {path}:net.",
        )
    return path, name


def _existing(path: Path) -> Path:
    if not path.is_file():
        folder = path.parent
        names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        raise ArgumentError(f"there is no file {path}.{nearest(path.name, names)}")
    return path


def _read_graph(path: Path) -> Graph:
    try:
        text = _existing(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not a text file: {error.reason}") from None
    graph = parse_graph(text, path.name)
    verify(graph)
    return graph


# -- Python files ----------------------------------------------------------------------------


def _from_python(path: Path, name: str, shapes: Sequence[str], training: bool) -> Subject:
    found, arguments = _resolved(path, name, shapes)
    outer, place = user_location(), definition(path, name)
    before = mode.training
    mode.training = training
    try:
        with _user_code(path):
            subject = trace(found, name, arguments)
    except GraphcError as error:
        if error.where is not None and error.where.line == outer.line:
            error.where = place if error.where.file == outer.file else error.where
        raise
    finally:
        mode.training = before
    graph = relocated(subject.graph, outer, place)
    return replace(subject, graph=graph.with_results(graph.results, name=name))


def _resolved(path: Path, name: str, shapes: Sequence[str]) -> tuple[Any, list[Any]]:
    """Return what can be called of an object of a file, and the arguments of a call."""
    scope = _run(_existing(path))
    with _user_code(path):
        found = _made(_member(scope, name, path))
    given = [parse_shape(text) for text in shapes]
    with _user_code(path):
        if isinstance(found, Symbol):
            found = bound_to_zeros(found, name, given or _example_types(found, name, scope))
        return found, _arguments(found, name, scope, given)


def _run(path: Path) -> dict[str, Any]:
    """Run a file as a module of another name than ``__main__``; return its globals."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with _user_code(path):
            return runpy.run_path(str(path), run_name="__graphc_dump__")
    finally:
        sys.path.remove(folder)


@contextmanager
def _user_code(path: Path) -> Iterator[None]:
    """Turn an error of the user's own code into one paragraph that names the line."""
    try:
        yield
    except GraphcError:
        raise
    except SystemExit as stop:
        raise ArgumentError(
            f"{path} ended with sys.exit({stop.code!r}) while it was being loaded",
            remedy='Put what runs under `if __name__ == "__main__":`.',
        ) from None
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if os.path.realpath(f.filename) == str(path.resolve())]
        line = f":{own[-1].lineno}" if own else ""
        if isinstance(error, SyntaxError) and error.lineno:
            line = f":{error.lineno}"
        last = frames[-1] if frames else None
        inner = ""
        if last is not None and (not own or last is not own[-1]):
            inner = f"  (raised in {os.path.basename(last.filename)}:{last.lineno})"
        raise ArgumentError(f"{path}{line}: {type(error).__name__}: {error}{inner}") from error


def _member(scope: Mapping[str, Any], name: str, path: Path) -> Any:
    first, *rest = name.split(".")
    public = [n for n in scope if not n.startswith("_")]
    if first not in scope:
        raise ArgumentError(
            f"{path} defines no {first!r}.{nearest(first, public)}",
            remedy=f"It defines {', '.join(public) or 'nothing'}.",
        )
    found = scope[first]
    for part in rest:
        if not hasattr(found, part):
            raise ArgumentError(f"{name}: {type(found).__name__} has no {part!r}")
        found = getattr(found, part)
    return found


def _made(found: Any) -> Any:
    """Return the Block that a function without parameters makes, initialized; else ``found``."""
    if not inspect.isfunction(found) or inspect.signature(found).parameters:
        return found
    made = found()
    if not isinstance(made, Block):
        return found
    made.initialize()
    return made


def trace(found: Any, name: str, arguments: Sequence[Any]) -> Subject:
    """Trace a Block, a TrainStep, an Executor, a compiled function or a plain one; runs nothing.

    Parameters
    ----------
    found : Block, TrainStep, Executor, Jit or callable
    name : str
        Of the object, for a function that has none.
    arguments : sequence
        Arrays, and lists, tuples and dicts of them; only their types and shapes matter.
    """
    jit: Jit | TrainStep
    if isinstance(found, Block):
        found.complete(*arguments)
        jit = Jit(found, name)
    elif isinstance(found, Jit | TrainStep):
        jit = found
    elif isinstance(found, Executor):
        jit = found.programs
    else:
        own = getattr(found, "__name__", name)
        jit = Jit(found, name if own == "<lambda>" else own)
    traced, arrays = jit.trace(*arguments)
    graph = traced.compiled.graph
    pairs = [
        (value.shape, arrays[source].shape)
        for value, source in zip(graph.inputs, traced.sources, strict=True)
        if isinstance(source, int)
    ]
    sizes = bind_sizes([declared for declared, _ in pairs], [shape for _, shape in pairs]) or {}
    learnt = parameters(found) if isinstance(found, Executor) else frozenset()
    captured = tuple(
        i for i, source in enumerate(traced.sources)
        if source in learnt or not isinstance(source, int | str)
    )  # fmt: skip
    return Subject(graph, sizes, captured, traced.compiled.fixed)


# -- arguments -------------------------------------------------------------------------------


def _arguments(
    found: Any, name: str, scope: Mapping[str, Any], given: Sequence[tuple[str, TensorType]]
) -> list[Any]:
    """Return what to trace with: the shapes given, or what the file or the object offers."""
    if isinstance(found, Executor):
        return [*found.arg_arrays, *found.aux_arrays]
    if not callable(found):
        raise ArgumentError(
            f"{name} is a {type(found).__name__}, not a Block, a Symbol or a function",
            remedy="Name a HybridBlock, a Symbol, a function of arrays, or what graphc.compile "
            "returned.",
        )
    names, needed, variadic = _signature(found)
    if given:
        return [_zeros(kind) for kind in _in_order(name, names, needed, variadic, given)]
    made = _example(found, scope)
    if made is not None:
        made = list(made) if isinstance(made, list | tuple) else [made]
        return [NDArray(np.ascontiguousarray(a)) if isinstance(a, np.ndarray) else a for a in made]
    if not needed and not variadic:
        return []
    wanted = " ".join(f"--shape {n}=f32[...]" for n in needed or ["x"])
    raise ArgumentError(
        f"the shapes of the arguments of {name} ({', '.join(names) or '*args'}) are not known",
        remedy=f"Give them, {wanted}, or define {EXAMPLE}() in the file or on the object, which "
        "returns the arrays of a call.",
    )


def _example(found: Any, scope: Mapping[str, Any]) -> Any:
    """Return the arrays that the object or its file offers to trace with, or None."""
    example = None if isinstance(found, Symbol) else getattr(found, EXAMPLE, None)
    example = scope.get(EXAMPLE) if example is None else example
    return example() if callable(example) else example


def _example_types(
    symbol: Symbol, name: str, scope: Mapping[str, Any]
) -> list[tuple[str, TensorType]]:
    example = _example(symbol, scope)
    return [] if example is None else types_of(example, name)


def _signature(found: Any) -> tuple[list[str], list[str], bool]:
    """Return the names of the positional parameters, those without default, and whether *args."""
    parameters = list(inspect.signature(_called(found)).parameters.values())
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    own = [p for p in parameters if p.kind in positional]
    if isinstance(found, Block) and _called(found).__name__ == "hybrid_forward":
        # Behind F come the inputs, then the Parameters, which are given by name.
        names = vars(found)["_reg_params"]
        own = [p for p in own[1:] if p.name not in names]
    variadic = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    needed = [p.name for p in own if p.default is inspect.Parameter.empty]
    return [p.name for p in own], needed, variadic


def _called(found: Any) -> Callable[..., Any]:
    if isinstance(found, Jit):
        return found.function
    if not isinstance(found, Block):
        called: Callable[..., Any] = found
        return called
    hybrid = getattr(type(found), "hybrid_forward", None)
    overridden = hybrid is not None and "forward" not in _defined(type(found))
    return found.hybrid_forward if overridden else found.forward  # type: ignore[attr-defined]


def _defined(cls: type) -> set[str]:
    """Return what the class and its bases define, down to HybridBlock or Block themselves."""
    found: set[str] = set()
    for base in cls.__mro__:
        if base.__name__ in ("HybridBlock", "Block") and base.__module__.startswith("graphc."):
            break
        found |= set(base.__dict__)
    return found


def _in_order(
    name: str,
    names: Sequence[str],
    needed: Sequence[str],
    variadic: bool,
    given: Sequence[tuple[str, TensorType]],
) -> list[TensorType]:
    by_name = {n: kind for n, kind in given if n}
    unnamed = [kind for n, kind in given if not n]
    if variadic:
        return [kind for _, kind in given]
    for wrong in [n for n in by_name if n not in names]:
        raise ArgumentError(
            f"{name} has no argument {wrong!r}.{nearest(wrong, names)}",
            remedy=f"Its arguments are {', '.join(names)}.",
        )
    found = []
    for argument in names:
        kind = by_name.get(argument) or (unnamed.pop(0) if unnamed else None)
        if kind is not None:
            found.append(kind)
        elif argument in needed:
            raise ArgumentError(
                f"--shape does not say what {argument!r} of {name} is",
                remedy=f"Add --shape {argument}=f32[...].",
            )
        else:
            break
    if unnamed:
        raise ArgumentError(f"{name} takes {len(names)} arguments, --shape gives more")
    return found


def _zeros(kind: TensorType) -> NDArray:
    return NDArray(np.zeros(kind.shape, kind.dtype.numpy))  # type: ignore[arg-type]
