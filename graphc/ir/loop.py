"""The loop IR: statements and Kernel.

Before scheduling a Kernel is the plain nest: loops over output indices, one `Store` each, with
`Reduce` as an expression. A schedule rewrites that into the loops a target runs: it binds axes,
makes tiles, and turns each `Reduce` into accumulators and a fixed tree (`Fold`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from graphc.errors import Location
from graphc.ir.dim import Dim
from graphc.ir.expr import Buffer, Expr
from graphc.ir.intrinsics import INTRINSICS


class Bind(enum.Enum):
    """What runs a loop.

    On CUDA the body of the one loop over blocks holds one loop over threads, from 0 to a constant:
    a thread runs its body once, and `Barrier` and `Intrinsic` there are reached by all threads of
    the block or of the warp: they take the loops and branches around it alike, and meet at the same
    turn. Between two barriers no thread touches an element of shared or global memory that another
    thread of its block writes; in a whole launch none touches one that another block writes.
    """

    SERIAL = ""
    PARALLEL = "parallel"
    BLOCK = "block"
    THREAD = "thread"


class Stmt:
    """Base of statements."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class For(Stmt):
    """``for name in range(start, stop, step)``.

    Of blocks a multiprocessor runs ``at_once`` at least: a thread has no more registers than that
    leaves it.
    """

    name: str
    start: Expr
    stop: Expr
    body: tuple[Stmt, ...]
    step: int = 1
    bind: Bind = Bind.SERIAL
    at_once: int = 1


@dataclass(frozen=True, slots=True)
class If(Stmt):
    """Run ``body`` where the scalar ``condition`` holds, else ``otherwise``."""

    condition: Expr
    body: tuple[Stmt, ...]
    otherwise: tuple[Stmt, ...] = ()


@dataclass(frozen=True, slots=True)
class Let(Stmt):
    """Name a value, once."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Declare(Stmt):
    """Make a register that `Assign` changes."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Assign(Stmt):
    """Change a declared register."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Store(Stmt):
    """Write ``value`` to ``buffer``; offset, strides and mask as in `Load`.

    A ``streaming`` one passes the caches by, if the buffer begins at a line of them; each row of
    the tile must begin at a multiple of its own elements.
    """

    buffer: Buffer
    offset: Expr
    value: Expr
    strides: tuple[Dim, ...] = ()
    mask: Expr | None = None
    streaming: bool = False


@dataclass(frozen=True, slots=True)
class Prefetch(Stmt):
    """Ask for the line of an element that is needed later; it may lie outside the buffer.

    ``level`` is the nearest cache that is to hold it. A line that will be stored to, ``write``,
    is to leave the caches of the other cores at once.
    """

    buffer: Buffer
    offset: Expr
    level: int = 1
    write: bool = False


@dataclass(frozen=True, slots=True)
class Alloc(Stmt):
    """Make scratch memory for the rest of this body; its shape is static.

    In the space ``"shared"`` it is one for all threads of a block and stands in front of the loop
    over them; in the space ``"stack"`` it is one for each thread.
    """

    buffer: Buffer


@dataclass(frozen=True, slots=True)
class Barrier(Stmt):
    """Wait for all threads of the block; each sees what the others wrote before.

    Those that have come to a `Fail` are not waited for.
    """


@dataclass(frozen=True, slots=True)
class Intrinsic(Stmt):
    """Name what the threads of a warp compute together, all of them; see `INTRINSICS`.

    It orders no memory. A warp is 32 threads with numbers in turn; a block of fewer than 32 is one
    smaller warp, in which a shuffle from a lane that does not exist gives a lane its own value.
    """

    name: str
    operation: str
    args: tuple[Expr, ...]

    @property
    def value(self) -> Expr:
        """The argument whose type and tile the result has."""
        return self.args[INTRINSICS[self.operation].like]


@dataclass(frozen=True, slots=True)
class Fail(Stmt):
    """Stop the kernel with an error code and up to six i64 details.

    On CUDA it stops the thread. The others go on, but what they store does not matter; the error is
    that of one of the threads that failed.
    """

    code: int
    details: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class Python(Stmt):
    """Call a function of Python text on whole arrays, inputs and then outputs.

    ``source`` is a module's text that defines ``function``. It is the only statement of its kernel,
    which Numba compiles.
    """

    function: str
    source: str
    buffers: tuple[Buffer, ...]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel: parameters, sizes, body.

    Attributes
    ----------
    name : str
    params : tuple of Buffer
        Inputs, then outputs, in the order of the kernel's ``buffers`` argument.
    outputs : int
        How many of the last params are written.
    sizes : tuple of str
        Size variables in the order of the ``sizes`` argument.
    body : tuple of Stmt
    extent : Dim
        Iterations of the parallel axis, over size variables; the body of a scheduled kernel runs
        iterations ``begin`` to ``end`` of it.
    ordered : bool
        The loops are an op's explicit nest and run as written.
    turns : Dim
        How often the grid of a CUDA kernel is launched, each time behind the end of the time
        before. Where it is not 1, the last of the size arguments is the number of the launch,
        `TURN`.
    work : Dim
        Estimated nanoseconds of one iteration, over size variables: what chunks are cut by.
    where : Location, optional
    """

    name: str
    params: tuple[Buffer, ...]
    outputs: int
    sizes: tuple[str, ...]
    body: tuple[Stmt, ...]
    extent: Dim = 1
    work: Dim = 1
    ordered: bool = False
    turns: Dim = 1
    where: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Grid:
    """A scheduled kernel, and the plain one of what it computes.

    Its parameters are some of those of the group's plain kernel, and scratch memory that an earlier
    grid of its series has written.
    """

    kernel: Kernel
    plain: Kernel


@dataclass(frozen=True, slots=True)
class Series:
    """What a target runs for a plain kernel: grids one after the other.

    The end of a grid is where all its blocks meet. Sizes decide which of them run: a grid that has
    no block is not launched.

    Attributes
    ----------
    grids : tuple of Grid
    sizes : tuple of (str, Dim)
        Size arguments that they have beside those of the plain kernel, over these.
    """

    grids: tuple[Grid, ...]
    sizes: tuple[tuple[str, Dim], ...] = ()


def alone(kernel: Kernel, plain: Kernel) -> Series:
    """Return the series of one grid."""
    return Series((Grid(kernel, plain),))


def python_of(kernel: Kernel) -> Python | None:
    """Return the call that is all of a kernel, if it is one in Python."""
    first = kernel.body[0] if len(kernel.body) == 1 else None
    return first if isinstance(first, Python) else None


TURN = "turn"
"""Name of the size argument that numbers the launches of a kernel's grid."""
BEGIN = "begin"
END = "end"
"""Names of the bounds of the parallel loop in a scheduled kernel's body (i64 `Index` symbols)."""
