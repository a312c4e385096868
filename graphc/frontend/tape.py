"""Going back over the tape: the vjps of the records, run on arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc.errors import AutogradError, located, user_location
from graphc.frontend.array import Array, Entry, Storage, mode
from graphc.frontend.memory import filled
from graphc.ir.op import Kind, OpDef
from graphc.ir.ops.contraction import sum_to_shape


class Leaf:
    """Marks an array that gradients are asked for.

    Attributes
    ----------
    owner : object
        The handle that `attach_grad` was called on; None for a leaf that only ``grad`` asked for.
    """

    __slots__ = ("owner",)

    def __init__(self, owner: Any = None) -> None:
        self.owner = owner


@contextmanager
def recording(flag: bool) -> Iterator[None]:
    """Set whether operations are recorded while the body runs."""
    previous, mode.recording = mode.recording, flag
    try:
        yield
    finally:
        mode.recording = previous


Key = Leaf | tuple[int, int]


def key_of(array: Array) -> Key | None:
    """Return what identifies an array on the tape: its leaf, or its entry and output number."""
    if array._leaf is not None:
        leaf: Leaf = array._leaf
        return leaf
    return None if array._entry is None else (id(array._entry), array._index)


def pull_back(
    heads: Sequence[Array],
    cotangents: Sequence[Array],
    *,
    retain: bool,
    create_graph: bool = False,
    stops: frozenset[Key] = frozenset(),
    write: bool = False,
) -> dict[Key, Array]:
    """Return the gradient of ``sum(head * cotangent)`` for every leaf and stop it depends on.

    Parameters
    ----------
    heads, cotangents : sequence of Array
    retain : bool
        Keep the tape for another pass.
    create_graph : bool
        Record the gradient computation itself.
    stops : frozenset of Key
        Intermediate arrays to stop at, beside the leaves.
    write : bool
        What nothing can fail after may be computed where its leaf keeps its gradient.

    Raises
    ------
    AutogradError
        When the tape was already used up, or a head was not computed under ``record``.
    """
    arriving: dict[Key, Array] = {}
    for head, cotangent in zip(heads, cotangents, strict=True):
        if not head.on_tape:
            raise AutogradError(
                "there is no gradient to go back along: this array was not computed inside "
                "autograd.record() from one that has attach_grad()",
                remedy="Compute it inside `with autograd.record():`.",
                where=user_location(),
            )
        _deliver(head, cotangent, arriving)
    with recording(create_graph):
        order = _topological(heads, stops)
        for entry in reversed(order):
            keys = [(id(entry), i) for i in range(len(entry.outputs))]
            grads = [None if k in stops else arriving.pop(k, None) for k in keys]
            if any(g is not None for g in grads):
                with located(entry.where):
                    last = write and entry is order[0]
                    results = _vjp(entry, grads, _kept_gradients(entry, arriving) if last else {})
                for operand, gradient in zip(entry.operands, results, strict=True):
                    if gradient is not None and operand.on_tape and operand.dtype.floating:
                        _deliver(operand, gradient, arriving)
            if not retain:
                entry.free()
    return arriving


def _deliver(target: Array, gradient: Array, arriving: dict[Key, Array]) -> None:
    key = key_of(target)
    assert key is not None
    arriving[key] = arriving[key] + gradient if key in arriving else gradient


def _topological(heads: Sequence[Array], stops: frozenset[Key]) -> list[Entry]:
    """Return the entries behind the heads, operands first, no further than leaves and stops."""
    order: list[Entry] = []
    done: set[int] = set()
    stack = [(h._entry, 0) for h in heads if isinstance(key_of(h), tuple)]
    while stack:
        entry, position = stack.pop()
        assert entry is not None
        if id(entry) in done:
            continue
        if entry.freed:
            raise AutogradError(
                "backward was already called on this computation, which freed it",
                remedy="Call backward(retain_graph=True) the first time.",
                where=user_location(),
            )
        if position == len(entry.operands):
            done.add(id(entry))
            order.append(entry)
            continue
        stack.append((entry, position + 1))
        key = key_of(entry.operands[position])
        if isinstance(key, tuple) and key not in stops and key[0] not in done:
            stack.append((entry.operands[position]._entry, 0))
    return order


def _kept_gradients(entry: Entry, arriving: dict[Key, Array]) -> dict[int, np.ndarray]:
    """Return where the gradient of an operand is kept, if this entry is all there is to it."""
    keys = [key_of(operand) for operand in entry.operands]
    return {
        position: key.owner._grad._array
        for position, key in enumerate(keys)
        if isinstance(key, Leaf)
        and getattr(key.owner, "_grad", None) is not None
        and key.owner._grad_req == "write"
        and key not in arriving
        and keys.count(key) == 1
    }


def _vjp(
    entry: Entry, grads: Sequence[Array | None], kept: dict[int, np.ndarray]
) -> Sequence[Array | None]:
    op = entry.op
    if type(op).vjp is OpDef.vjp and op.decomposes:
        return _through_parts(entry, grads)
    single = len(entry.outputs) == 1
    g = grads[0] if single else tuple(grads)
    y = entry.outputs[0] if single else entry.outputs
    if kept and hasattr(op, "vjp_into"):
        found: Sequence[Array | None] = op.vjp_into(kept, g, y, *entry.operands, **entry.attrs)
        return found
    result: Sequence[Array | None] = op.vjp(g, y, *entry.operands, **entry.attrs)
    if op.kind is not Kind.POINTWISE:
        return result
    return [
        None if part is None else sum_to_shape(part, operand.shape)
        for part, operand in zip(result, entry.operands, strict=True)
    ]


def _through_parts(entry: Entry, grads: Sequence[Array | None]) -> Sequence[Array | None]:
    """Differentiate a composition by running its parts on the tape and going back over them."""
    create_graph = mode.recording
    with recording(True):
        parts = entry.op.decompose(*entry.operands, **entry.attrs)
    parts = parts if isinstance(parts, tuple) else (parts,)
    pairs = [(p, g) for p, g in zip(parts, grads, strict=True) if g is not None and p.on_tape]
    keys = [key_of(operand) for operand in entry.operands]
    found = pull_back(
        [p for p, _ in pairs],
        [g for _, g in pairs],
        retain=create_graph,
        create_graph=create_graph,
        stops=frozenset(k for k in keys if k is not None),
    )
    # An operand that appears twice gets its whole gradient once.
    return [None if k is None else found.pop(k, None) for k in keys]


def ones_like(array: Array) -> Array:
    """Return the default head gradient."""
    context = array._storage.context
    return Array(filled(array.shape, 1, array._array.dtype, context), Storage.on(context))
