"""The error tree, and the user's place in the code that every error carries.

An error message has up to three parts: what went wrong and where, in the user's terms; the
operation with its operand types; the remedy.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NoReturn

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
# `with graphc.options(...)` enters graphc through contextlib, which is no line of the user's.
_NOT_THE_USER = (_PACKAGE, contextlib.__file__)
_scope: ContextVar[tuple[str, ...]] = ContextVar("graphc_scope", default=())
_pinned: ContextVar[Location | None] = ContextVar("graphc_location", default=None)


@dataclass(frozen=True, slots=True)
class Location:
    """A line of the user's code and the path of the Block that was running.

    Parameters
    ----------
    file : str
        File name as Python reports it; printed without its folder.
    line : int
        Line number, from 1.
    scope : str
        Path of the Block, ``net.conv1``, or an empty string.
    """

    file: str
    line: int
    scope: str = ""

    def __str__(self) -> str:
        place = f"{os.path.basename(self.file)}:{self.line}"
        return f"{place} {self.scope}" if self.scope else place


def user_location() -> Location:
    """Return the innermost frame outside graphc, with the running Block's path."""
    pinned = _pinned.get()
    if pinned is not None:
        return pinned
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THE_USER):
        frame = frame.f_back
    return Location(frame.f_code.co_filename, frame.f_lineno, ".".join(_scope.get()))


def line_of_call(here: Location, there: Location | None, traced: Location | None) -> Location:
    """Return the line to blame for a failure in what was compiled before the call at hand.

    Parameters
    ----------
    here : Location
        Of the call.
    there : Location or None
        That of the operation that failed, when it was traced.
    traced : Location or None
        Of the call that made the trace; None where no line of a trace is of interest.

    Returns
    -------
    Location
        A line inside the traced function stays as it is.
    """
    if traced is None:
        return here
    if there is None or (there.file, there.line) == (traced.file, traced.line):
        return Location(here.file, here.line, there.scope if there else here.scope)
    return there


def scoped() -> bool:
    """Return whether a Block is running."""
    return bool(_scope.get())


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Run the body as a part of the Block ``name``; nests."""
    token = _scope.set((*_scope.get(), name))
    try:
        yield
    finally:
        _scope.reset(token)


@contextmanager
def located(where: Location | None) -> Iterator[None]:
    """Give what the body builds the line ``where``: rewrites keep the line of what they replace."""
    token = _pinned.set(where)
    try:
        yield
    finally:
        _pinned.reset(token)


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest candidate, or an empty string."""
    found = difflib.get_close_matches(str(name)[:200], list(candidates), n=1, cutoff=0.5)
    return f" Did you mean {found[0]!r}?" if found else ""


def suggest_attributes(module: str) -> None:
    """Let a module that is asked for an attribute it lacks answer with the nearest one."""
    names = vars(sys.modules[module])

    def missing(name: str) -> NoReturn:
        raise no_attribute(module, name, names)

    names["__getattr__"] = missing


def no_attribute(owner: str, name: str, names: Iterable[str]) -> AttributeError:
    """Return the error of an attribute that a module, layer or array does not have.

    Protocols of Python and NumPy ask for many names that begin with an underscore: those get no
    search for the nearest.
    """
    if name.startswith("_"):
        return AttributeError(f"{owner} has no attribute {name!r}")
    known = [n for n in names if not n.startswith("_")]
    return UnknownAttributeError(
        f"{owner} has no attribute {name!r}.{nearest(name, known)}",
        remedy=f"dir() of {owner} lists what there is.",
        where=user_location(),
    )


class GraphcError(RuntimeError):
    """Base of every error that graphc raises; also ``graphc.base.MXNetError``.

    Parameters
    ----------
    message : str
        What went wrong, in the user's terms.
    remedy : str, optional
        What to do about it.
    where : Location, optional
        The user's line; filled in by the first caller that knows it.
    op : str, optional
        Name of the operation.
    operands : sequence, optional
        Types of the operands, printed with ``str``.
    """

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        where: Location | None = None,
        op: str | None = None,
        operands: Sequence[object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.where = where
        self.op = op
        self.operands = None if operands is None else tuple(operands)

    late = False
    """Whether it was raised after the call that it is about, of which all is known."""

    def attach(
        self,
        *,
        where: Location | None = None,
        op: str | None = None,
        operands: Sequence[object] | None = None,
    ) -> GraphcError:
        """Fill in what is still unknown of line, operation and operands; return self."""
        if self.late:
            return self
        self.where = self.where or where
        if self.op is None and op is not None:
            self.op, self.operands = op, None if operands is None else tuple(operands)
        return self

    def __str__(self) -> str:
        lines = [self.message if self.where is None else f"{self.message}  [{self.where}]"]
        if self.op is not None:
            types = ", ".join(str(operand) for operand in self.operands or ())
            lines.append(f"  in {self.op}({types})")
        if self.remedy:
            lines.append(f"  {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        state = {
            "remedy": self.remedy,
            "where": self.where,
            "op": self.op,
            "operands": None if self.operands is None else tuple(map(str, self.operands)),
        }
        return (type(self), (self.message,), state)


class ShapeError(GraphcError, ValueError):
    """Sizes that do not fit each other."""


class DTypeError(GraphcError, TypeError):
    """An element type that an operation does not take."""


class ArgumentError(GraphcError, ValueError):
    """An argument whose value or name is not accepted."""


class UnknownNameError(GraphcError, LookupError):
    """A name that is not registered; the message gives the nearest one."""


class UnknownAttributeError(GraphcError, AttributeError):
    """A module, layer or array has no such attribute; the message gives the nearest one."""

    __str__ = GraphcError.__str__


class IndexRangeError(GraphcError, IndexError):
    """An index, label or axis that is out of range."""


class TraceError(GraphcError):
    """Python code asked a traced value for something only running can tell."""


class AutogradError(GraphcError):
    """A gradient was asked for that was not recorded or is no longer there."""


class DeferredInitializationError(GraphcError):
    """A Parameter was read before its shape was known."""


class UninitializedError(GraphcError):
    """A Parameter was read before ``initialize``."""


class BindError(GraphcError):
    """Arguments of a bound symbol or program that are missing or do not fit."""


class VerifyError(GraphcError):
    """A graph or kernel that breaks a rule of the IR."""


class ParseError(GraphcError, ValueError):
    """Text that is not a graph."""


class CompileError(GraphcError):
    """An operation that cannot be compiled."""


class DeviceError(GraphcError):
    """A device that is not there, or arrays on different devices."""


class MissingDependencyError(GraphcError, ImportError):
    """A feature whose optional dependency is not installed; names the extra."""


class FileFormatError(GraphcError, ValueError):
    """A file that is truncated, damaged or of an unknown format."""


class FileAccessError(GraphcError, OSError):
    """A file that cannot be opened or written; ``errno`` is the system's."""

    __str__ = GraphcError.__str__


class MissingFileError(FileAccessError, FileNotFoundError):
    """A file that is not there; the message gives the nearest name in its folder."""


class DatasetNotFoundError(GraphcError, FileNotFoundError):
    """A data set that is not where it was looked for."""

    __str__ = GraphcError.__str__


class DataLoaderError(GraphcError):
    """A DataLoader worker failed; carries the worker's traceback."""
