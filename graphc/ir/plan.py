"""A compiled program as data: its launches, what shares memory, where values live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from graphc.ir.dim import Dim
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.loop import Kernel


@dataclass(frozen=True, slots=True)
class Slot:
    """Arena memory of one value, live from launch ``first`` to launch ``last``."""

    value: Value
    offset: int
    n_bytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Offsets of the values that live in the arena, at concrete sizes.

    Attributes
    ----------
    slots : tuple of Slot
    arena_bytes : int
    unshared_bytes : int
        What the arena would take if no memory were used twice.
    """

    slots: tuple[Slot, ...]
    arena_bytes: int
    unshared_bytes: int


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One kernel call: what it reads and writes, and its sizes in the graph's size variables."""

    node: Node
    kernel: Kernel
    sizes: tuple[Dim, ...]

    @property
    def label(self) -> str:
        """Name for people: the ops of the group."""
        return str(self.node.attrs["label"])


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a program but machine code and concrete sizes.

    Attributes
    ----------
    graph : Graph
        The fused graph.
    launches : tuple of LaunchSpec
        In the order they run.
    root : mapping of Value to Value
        The value whose memory another one names: an input, an output, or one in the arena.
    memory : callable
        Maps the sizes of a call to its MemoryPlan.
    """

    graph: Graph
    launches: tuple[LaunchSpec, ...]
    root: Mapping[Value, Value]
    memory: Callable[[Mapping[str, int]], MemoryPlan]
