"""Kernels that store many results at each index, every one into a plane of its own.

Planes often lie a multiple of the page size apart, so lines that are written at once fall into one
set of a cache, and short rows write a part of a line each: lines would come and go between two
stores. Here a block of every plane is computed in scratch first, and then copied whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_min, linear, product, substitute, symbol
from graphc.ir.expr import Axis, Buffer, Expr, Index
from graphc.ir.loop import Alloc, For, Kernel, Let, Store
from graphc.passes.schedule.loops import Body, flat_loop, operations, vector_loop
from graphc.passes.schedule.nest import Nest, contiguous, reductions
from graphc.passes.schedule.packing import Names, Stretch, over_runs, touched
from graphc.passes.schedule.vectorize import vectorize

MANY = 8
"""Stores from which on they are kept apart."""
BLOCK = 128
"""Elements of a plane that one iteration computes: 18 KiB for 36 planes of float32."""


@dataclass(frozen=True, slots=True)
class Planes:
    """What `find` found: all stores run over ``outer`` and ``inner``.

    The inner axes are adjacent in memory. Store ``k`` goes to ``first + k * apart + position``
    there, ``first`` over the outer axes.
    """

    items: tuple[Nest, ...]
    outer: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    first: Dim
    apart: Dim


def find(items: tuple[Nest, ...]) -> Planes | None:
    """Return how the stores of a kernel lie in planes, or None where they do not."""
    axes, buffer = items[0].axes, items[0].store.buffer
    offsets = [i.store.offset.dim for i in items if isinstance(i.store.offset, Index)]
    same = all(i.axes == axes and i.store.buffer == buffer and not i.store.mask for i in items)
    if not (same and axes and MANY <= len(offsets) == len(items)) or reductions(items):
        return None
    apart = offsets[1] - offsets[0]
    found = linear(offsets[0], axes[-1].name)
    if found is None or found[0] != 1:
        return None
    if any(there != offsets[0] + apart * k for k, there in enumerate(offsets)):
        return None
    count = _adjacent(axes, offsets[0])
    inner = axes[-count:]
    first = substitute(offsets[0], {axis.name: 0 for axis in inner})
    return Planes(items, axes[:-count], inner, first, apart)


def _adjacent(axes: Sequence[Axis], offset: Dim) -> int:
    """Return how many of the last axes are one in memory."""
    count = 1
    while count < len(axes):
        inner = Axis(axes[-1].name, product(a.extent for a in axes[-count:]))
        if not contiguous([E.index(offset)], axes[-count - 1], inner):
            break
        count += 1
    return count


def schedule(kernel: Kernel, planes: Planes, lanes: int) -> Kernel:
    """Turn a kernel into blocks of all planes at once.

    Parameters
    ----------
    kernel : Kernel
        The plain kernel.
    planes : Planes
        What `find` found in it.
    lanes : int
        Elements of a vector register.
    """
    width = product(a.extent for a in planes.inner)
    dtype, pitch = planes.items[0].store.buffer.dtype, BLOCK + lanes
    scratch = Buffer("planes", dtype, (len(planes.items), pitch), "stack")
    start, count = symbol("start"), symbol("count")
    body = (
        Let("start", E.index(symbol("block") * BLOCK)),
        Let("count", E.index(dim_min(width - start, BLOCK))),
        *_computed(planes, scratch, Stretch(planes.inner, start, count), lanes),
        *_copied(planes, scratch, lanes),
    )
    axes = [*planes.outer, Axis("block", ceil_div(width, BLOCK))]
    cost = operations(item.store.value for item in planes.items) + 3 * len(planes.items)
    return replace(
        kernel,
        body=(Alloc(scratch), flat_loop(axes, body)),
        extent=product(a.extent for a in axes),
        work=16 + dim_min(width, BLOCK) * cost // (2 * lanes),
    )


def _computed(planes: Planes, scratch: Buffer, stretch: Stretch, lanes: int) -> Body:
    """Return loops that leave a block of every plane in scratch.

    The last vector of a run spills over what the next one writes, so runs go upwards.
    """
    names, name = Names(), stretch.axes[-1].name
    before, stretch = touched(stretch, names)
    pitch = scratch.shape[1]

    def run(base: Dim, first: Dim, stop: Dim) -> Body:
        place = base + symbol(name) - stretch.start

        def step(lanes: int, mask: Expr | None) -> Body:
            known: dict[Expr, Expr] = {}
            values = [vectorize(i.store.value, name, lanes, mask, known) for i in planes.items]
            return tuple(
                Store(scratch, E.index(place + k * pitch), _wide(value, lanes), (1,))
                for k, value in enumerate(values)
            )

        return vector_loop(name, first, stop, lanes, step, cost=_ALWAYS_MASKED)

    return (*before, *over_runs(stretch, names, run))


_ALWAYS_MASKED = 1 << 20
"""As the cost of a step: of code as long as this one copy is enough."""


def _wide(value: Expr, lanes: int) -> Expr:
    return value if value.tile else E.splat(value, (lanes,))


def _copied(planes: Planes, scratch: Buffer, lanes: int) -> Body:
    """Return the loops that copy a block of every plane to where it belongs."""
    plane, place = symbol("plane"), symbol("place")
    there = planes.first + plane * planes.apart + symbol("start") + place
    buffer = planes.items[0].store.buffer

    def step(lanes: int, mask: Expr | None) -> Body:
        value = E.load(scratch, E.index(plane * scratch.shape[1] + place), (lanes,), (1,))
        return (Store(buffer, E.index(there), value, (1,), mask),)

    copy = vector_loop("place", 0, symbol("count"), lanes, step)
    return (For("plane", E.index(0), E.index(len(planes.items)), copy),)
