"""Launch tables: a plan cut down to what running it takes, and its form on disk.

A table names kernels by their keys and memory by numbers: the inputs come first, then the outputs,
then what lives in the arena. It holds no graph and no kernel body, so a program that was compiled
before starts from its table alone. On disk it is JSON: sizes are text, nothing in it is evaluated,
and whatever does not fit together is a ValueError.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.errors import GraphcError, Location
from graphc.ir.dim import Dim, SizeExpr, parse_dim, symbols
from graphc.ir.graph import input_name
from graphc.ir.operand import REGISTRY
from graphc.ir.plan import Cost, LaunchSpec, Life, MemoryPlan, Plan, arrange
from graphc.ir.types import TensorType, as_dtype


@dataclass(frozen=True, slots=True)
class Check:
    """The op whose record turns the failure of a kernel into an error, and its attributes."""

    op: str
    attrs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LaunchRow:
    """One kernel call.

    Attributes
    ----------
    kernel : str
        Key of the compiled kernel.
    label : str
        Name for people: the ops of the group.
    where : Location or None
        The user's line.
    places : tuple of int
        Memory of each operand, then of each result.
    results : int
        How many of them are results.
    sizes : tuple of (str, Dim)
        The kernel's size arguments: their names in the kernel, their values in the program's sizes.
    extent, work, turns : Dim
        Of the kernel, over its own sizes.
    cost : Cost
        What the kernel has to do, over its own sizes.
    check : Check or None
        What a kernel that can fail checks.
    """

    kernel: str
    label: str
    where: Location | None
    places: tuple[int, ...]
    results: int
    sizes: tuple[tuple[str, Dim], ...]
    extent: Dim
    work: Dim
    turns: Dim
    cost: Cost
    check: Check | None

    @property
    def written(self) -> tuple[int, ...]:
        """Memory of each result."""
        return self.places[len(self.places) - self.results :]


@dataclass(frozen=True, slots=True)
class LaunchTable:
    """A program without its graph.

    Attributes
    ----------
    name : str
    inputs : tuple of (str, TensorType)
        Names and types; input ``i`` lives at place ``i``.
    outputs : tuple of (int, TensorType)
        Places and types.
    updated : tuple of int
        Inputs that the program writes to.
    launches : tuple of LaunchRow
        In the order they run.
    lives : tuple of Life
        The places in the arena.
    """

    name: str
    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[int, TensorType], ...]
    updated: tuple[int, ...]
    launches: tuple[LaunchRow, ...]
    lives: tuple[Life, ...]

    def memory(self, sizes: Mapping[str, int]) -> MemoryPlan:
        """Return where each place of the arena lies at the sizes of a call."""
        return arrange(self.lives, sizes)


def table_of(plan: Plan, keys: Sequence[str]) -> LaunchTable:
    """Return the table of a plan whose kernels have these keys."""
    graph = plan.graph
    numbers: dict[Any, int] = {value: number for number, value in enumerate(graph.inputs)}

    def place(value: Any) -> int:
        return numbers.setdefault(plan.root[value], len(numbers))

    outputs = tuple((place(value), value.type) for value in graph.outputs)
    return LaunchTable(
        graph.name,
        tuple((input_name(value), value.type) for value in graph.inputs),
        outputs,
        tuple(graph.inputs.index(target) for target, _ in graph.updates),
        tuple(
            _row(spec, key, tuple(place(v) for v in (*spec.reads, *spec.writes)))
            for spec, key in zip(plan.launches, keys, strict=True)
        ),
        tuple(
            Life(place(x.value), place(x.owner), x.size, x.item_bytes, x.first, x.last)
            for x in plan.lives
        ),
    )


def _row(spec: LaunchSpec, key: str, places: tuple[int, ...]) -> LaunchRow:
    kernel = spec.kernel
    check = next((n for n in spec.node.attrs["body"].nodes if hasattr(n.op, "failure")), None)
    return LaunchRow(
        key,
        spec.label,
        spec.node.where,
        places,
        len(spec.writes),
        tuple(zip(kernel.sizes, spec.sizes)),  # the number of the launch comes behind them
        kernel.extent,
        kernel.work,
        kernel.turns,
        spec.cost,
        None if check is None else Check(check.op.name, dict(check.attrs)),
    )


# -- on disk ---------------------------------------------------------------------------------


def table_data(table: LaunchTable) -> dict[str, Any]:
    """Return a table as lists, numbers and texts that `json` writes.

    Raises
    ------
    ValueError
        If an attribute of a check has no such form.
    """
    return {
        "name": table.name,
        "inputs": [[name, *_type_data(kind)] for name, kind in table.inputs],
        "outputs": [[place, *_type_data(kind)] for place, kind in table.outputs],
        "updated": list(table.updated),
        "launches": [_row_data(row) for row in table.launches],
        "arena": [
            [x.value, x.owner, _dim_data(x.size), x.item_bytes, x.first, x.last]
            for x in table.lives
        ],
    }


def _type_data(kind: TensorType) -> list[Any]:
    return [kind.dtype.name, [_dim_data(size) for size in kind.shape]]


def _dim_data(dim: Dim) -> int | str:
    return str(dim) if isinstance(dim, SizeExpr) else int(dim)


def _dims(cost: Cost) -> tuple[Dim, ...]:
    return cost.flops, cost.n_bytes, *cost.counts


def _row_data(row: LaunchRow) -> list[Any]:
    where, check = row.where, row.check
    return [
        row.kernel,
        row.label,
        None if where is None else [where.file, where.line, where.scope],
        list(row.places),
        row.results,
        [[name, _dim_data(size)] for name, size in row.sizes],
        _dim_data(row.extent),
        _dim_data(row.work),
        _dim_data(row.turns),
        [_dim_data(dim) for dim in _dims(row.cost)],
        None if check is None else [check.op, {k: _attr_data(v) for k, v in check.attrs.items()}],
    ]


def _attr_data(item: Any) -> Any:
    if isinstance(item, SizeExpr):
        return {"size": str(item)}
    if item is None or isinstance(item, (bool, int, float, str)):
        return item
    raise ValueError(f"a check has an attribute of type {type(item).__name__}")


def table_from(data: Any) -> LaunchTable:
    """Return the table that `table_data` gave, or that a file claims it did.

    Raises
    ------
    ValueError
        If ``data`` is no table, or its parts do not fit together.
    """
    try:
        table = _Reader().table(data)
        _verify(table)
    except (GraphcError, AttributeError, KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(f"not a launch table: {error!r}") from None
    return table


class _Reader:
    """Rebuilds a table; the few sizes that a program has are parsed once."""

    def __init__(self) -> None:
        self._dims: dict[str, Dim] = {}

    def table(self, data: Any) -> LaunchTable:
        return LaunchTable(
            _text(data["name"]),
            tuple((_text(name), self.type(*kind)) for name, *kind in data["inputs"]),
            tuple((_count(place), self.type(*kind)) for place, *kind in data["outputs"]),
            tuple(map(_count, data["updated"])),
            tuple(self.row(*row) for row in data["launches"]),
            tuple(self.life(*life) for life in data["arena"]),
        )

    def type(self, dtype: Any, shape: Any) -> TensorType:
        return TensorType(as_dtype(_text(dtype)), tuple(map(self.dim, shape)))

    def dim(self, data: Any) -> Dim:
        if not isinstance(data, str):
            return _count(data)
        if data not in self._dims:
            self._dims[data] = parse_dim(data)
        return self._dims[data]

    def row(
        self, kernel: Any, label: Any, where: Any, places: Any, results: Any, sizes: Any,
        extent: Any, work: Any, turns: Any, cost: Any, check: Any,
    ) -> LaunchRow:  # fmt: skip
        return LaunchRow(
            _text(kernel),
            _text(label),
            None if where is None else _location(*where),
            tuple(map(_count, places)),
            _count(results),
            tuple((_text(name), self.dim(size)) for name, size in sizes),
            self.dim(extent),
            self.dim(work),
            self.dim(turns),
            self.cost(*cost),
            None if check is None else self.check(*check),
        )

    def cost(self, flops: Any, n_bytes: Any, *counts: Any) -> Cost:
        return Cost(self.dim(flops), self.dim(n_bytes), tuple(map(self.dim, counts)))

    def check(self, op: Any, attrs: Any) -> Check:
        if not hasattr(REGISTRY[_text(op)], "failure"):
            raise ValueError(f"{op} checks nothing")
        return Check(op, {name: self.attr(item) for name, item in attrs.items()})

    def attr(self, data: Any) -> Any:
        return self.dim(_text(data["size"])) if isinstance(data, dict) else data

    def life(
        self, value: Any, owner: Any, size: Any, item_bytes: Any, first: Any, last: Any
    ) -> Life:
        numbers = map(_count, (item_bytes, first, last))
        return Life(_count(value), _count(owner), self.dim(size), *numbers)


def _text(data: Any) -> str:
    if not isinstance(data, str):
        raise ValueError(f"not a text: {data!r}")
    return data


def _count(data: Any) -> int:
    if type(data) is not int or data < 0:
        raise ValueError(f"not a number from 0: {data!r}")
    return data


def _location(file: Any, line: Any, scope: Any) -> Location:
    return Location(_text(file), _count(line), _text(scope))


def _verify(table: LaunchTable) -> None:
    """Raise ValueError where a launch would use memory or a size that the program does not have."""
    arena = {life.value for life in table.lives}
    known = {*range(len(table.inputs)), *(place for place, _ in table.outputs), *arena}
    if not {place for row in table.launches for place in row.places} <= known:
        raise ValueError("a launch uses memory that is not there")
    if not set(table.updated) <= set(range(len(table.inputs))):
        raise ValueError("an update of what is no input")
    owners = {life.value for life in table.lives if life.owner == life.value}
    if not {life.owner for life in table.lives} <= owners:
        raise ValueError("memory is taken over from what has none")
    bound = _names(size for _, kind in table.inputs for size in kind.shape)
    if not _names(_program_sizes(table)) <= bound:
        raise ValueError("a size that no input has")
    for row in table.launches:
        if row.results > len(row.places):
            raise ValueError("a launch with more results than memory")
        own = (row.extent, row.work, row.turns, *_dims(row.cost))
        if not _names(own) <= {name for name, _ in row.sizes}:
            raise ValueError("an extent over sizes that the kernel does not have")


def _names(dims: Iterable[Dim]) -> set[str]:
    return set().union(*map(symbols, dims))


def _program_sizes(table: LaunchTable) -> Iterator[Dim]:
    """Yield every size over the variables of the program."""
    for _, kind in table.outputs:
        yield from kind.shape
    for life in table.lives:
        yield life.size
    for row in table.launches:
        yield from (size for _, size in row.sizes)


def write_tables(tables: Sequence[LaunchTable], notes: Any = None) -> bytes:
    """Return tables as bytes, with ``notes`` (numbers, texts, lists of them) beside them."""
    data = {"tables": [table_data(table) for table in tables], "notes": notes}
    return json.dumps(data, separators=(",", ":")).encode()


def read_tables(content: bytes) -> tuple[list[LaunchTable], Any]:
    """Return the tables and notes that `write_tables` made bytes of.

    Raises
    ------
    ValueError
        If the bytes are anything else.
    """
    try:
        data = json.loads(content)
        return [table_from(table) for table in data["tables"]], data["notes"]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no launch tables: {error!r}") from None
