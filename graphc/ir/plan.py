"""A compiled program as data: its launches, what shares memory, where values live."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.ir.dim import Dim, evaluate
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.loop import Kernel

ALIGNMENT = 64
"""Bytes that arena offsets are multiples of: a cache line, a full vector."""


@dataclass(frozen=True, slots=True)
class Life:
    """A value that lives in the arena, and from which launch to which.

    Attributes
    ----------
    value : hashable
        The value, or the number that stands for its memory.
    owner : hashable
        The value whose memory this one takes over; itself where it has memory of its own.
    size : Dim
        Number of elements.
    item_bytes : int
        Size of one element.
    first, last : int
        Numbers of launches.
    """

    value: Hashable
    owner: Hashable
    size: Dim
    item_bytes: int
    first: int
    last: int

    def n_bytes(self, sizes: Mapping[str, int]) -> int:
        """Return the bytes of the value; an empty one still has an address of its own."""
        return max(evaluate(self.size, sizes), 1) * self.item_bytes


@dataclass(frozen=True, slots=True)
class Slot:
    """Arena memory of one value, live from launch ``first`` to launch ``last``."""

    value: Any
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


def arrange(lives: Sequence[Life], sizes: Mapping[str, int]) -> MemoryPlan:
    """Give every value of the arena an offset, at concrete sizes.

    Values that take over one another's memory are placed as one; large ones come first, each at
    the lowest offset that is free while it lives.

    Parameters
    ----------
    lives : sequence of Life
    sizes : mapping of str to int
        Values of the size variables.
    """
    merged: dict[Hashable, list[int]] = {}
    needs: dict[Hashable, int] = {}
    for life in lives:
        span = merged.setdefault(life.owner, [life.first, life.last])
        span[0], span[1] = min(span[0], life.first), max(span[1], life.last)
        if life.value == life.owner:
            needs[life.owner] = life.n_bytes(sizes)
    placed: list[Slot] = []
    for owner, (first, last) in sorted(merged.items(), key=lambda m: (-needs[m[0]], m[1][0])):
        busy = [s for s in placed if s.first <= last and first <= s.last]
        placed.append(Slot(owner, _first_fit(busy, needs[owner]), needs[owner], first, last))
    offsets = {slot.value: slot.offset for slot in placed}
    slots = tuple(
        Slot(life.value, offsets[life.owner], life.n_bytes(sizes), life.first, life.last)
        for life in lives
    )
    total = max((slot.offset + slot.n_bytes for slot in placed), default=0)
    return MemoryPlan(slots, total, sum(slot.n_bytes for slot in slots))


def _first_fit(busy: Sequence[Slot], n_bytes: int) -> int:
    """Return the lowest aligned offset that is free of ``busy``."""
    offset = 0
    for slot in sorted(busy, key=lambda s: s.offset):
        if offset + n_bytes <= slot.offset:
            break
        offset = max(offset, -(-(slot.offset + slot.n_bytes) // ALIGNMENT) * ALIGNMENT)
    return offset


@dataclass(frozen=True, slots=True)
class Cost:
    """What a kernel has to do, over its sizes.

    Attributes
    ----------
    flops : Dim
        Floating-point operations.
    n_bytes : Dim
        Bytes of operands and results, each once.
    counts : tuple of Dim
        What indices count, where that differs: elements of an array, or terms of a reduction. Of
        constants it has the largest alone.
    """

    flops: Dim
    n_bytes: Dim
    counts: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One kernel call of a group: what it reads and writes, and its sizes.

    Attributes
    ----------
    node : Node
        The group.
    kernel : Kernel
    reads, writes : tuple of Value
        Its parameters; scratch memory of a group is an input that no graph has.
    sizes : tuple of Dim
        The kernel's sizes, in the graph's size variables.
    cost : Cost
    part : str
        Which part of the group's work it is, where that takes several kernels.
    """

    node: Node
    kernel: Kernel
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]
    sizes: tuple[Dim, ...]
    cost: Cost
    part: str = ""

    @property
    def label(self) -> str:
        """Name for people: the ops of the group."""
        label = str(self.node.attrs["label"])
        return f"{label}_{self.part}" if self.part else label


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
    lives : tuple of Life
        The values that live in the arena.
    """

    graph: Graph
    launches: tuple[LaunchSpec, ...]
    root: Mapping[Value, Value]
    lives: tuple[Life, ...]

    def memory(self, sizes: Mapping[str, int]) -> MemoryPlan:
        """Return where each value lives at the sizes of a call."""
        return arrange(self.lives, sizes)
