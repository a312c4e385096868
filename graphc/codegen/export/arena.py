"""The memory plan in exported libraries: offsets in the arena, found at the sizes of a call.

The same as `graphc.ir.plan.arrange`: large values come first, each at the lowest offset that is
free while it lives.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from graphc.codegen.llvm_builder import Constant, Function, Row
from graphc.codegen.native.function import NativeFunction
from graphc.codegen.native.module import NativeModule
from graphc.ir.plan import Life

_UNPLACED = -1


def spans(lives: Sequence[Life]) -> list[tuple[int, int]]:
    """Return first and last launch of each owner's memory, with those that take it over."""
    merged: dict[Hashable, tuple[int, int]] = {}
    for life in lives:
        first, last = merged.get(life.owner, (life.first, life.last))
        merged[life.owner] = min(first, life.first), max(last, life.last)
    return [merged[life.value] for life in lives if life.owner == life.value]


def arrange(module: NativeModule, lives: Sequence[Life]) -> Function:
    """``i64 arrange(i64 *needs, i64 *offsets, i64 *order)``: place all values; return all bytes.

    Parameters
    ----------
    module : NativeModule
    lives : sequence of Life
        ``needs`` and the others are indexed by those that own memory; needs are multiples of the
        alignment.
    """
    times = spans(lives)
    firsts = module.numbers("arena_firsts", [first for first, _ in times])
    lasts = module.numbers("arena_lasts", [last for _, last in times])
    largest, fit = _largest(module, firsts), _fit(module, firsts, lasts)
    body = NativeFunction(module, "arena_arrange", "q", "ppp")
    builder, (needs, offsets, order) = body.builder, body.arguments
    count, total = body.constant(len(times)), body.variable(body.constant(0))
    with body.count(count) as index:
        body.put_word(body.constant(_UNPLACED), offsets, index)
    with body.count(count) as placed:
        chosen = builder.call(largest, [needs, offsets, count])
        offset = builder.call(fit, [needs, offsets, order, chosen, placed])
        body.put_word(offset, offsets, chosen)
        _insert(body, offsets, order, chosen, placed)
        end = builder.add(offset, body.get_word(needs, chosen))
        longer = builder.icmp_signed(">", end, body.get(total))
        builder.store(builder.select(longer, end, body.get(total)), total)
    return body.returns(body.get(total))


def _largest(module: NativeModule, firsts: Row) -> Function:
    """``i64 largest(needs, offsets, count)``: what needs most, and of these what lives first."""
    body = NativeFunction(module, "arena_largest", "q", "ppq")
    builder, (needs, offsets, count) = body.builder, body.arguments
    best, most, first = (body.variable(body.constant(-1)) for _ in range(3))
    with body.count(count) as index:
        need, begin = body.get_word(needs, index), body.get_word(firsts, index)
        placed = builder.icmp_signed("!=", body.get_word(offsets, index), body.constant(_UNPLACED))
        equal = builder.icmp_signed("==", need, body.get(most))
        earlier = builder.and_(equal, builder.icmp_signed("<", begin, body.get(first)))
        better = builder.or_(builder.icmp_signed(">", need, body.get(most)), earlier)
        with builder.if_then(builder.and_(better, builder.xor(placed, Constant(placed.type, 1)))):
            for value, slot in ((index, best), (need, most), (begin, first)):
                builder.store(value, slot)
    return body.returns(body.get(best))


def _fit(module: NativeModule, firsts: Row, lasts: Row) -> Function:
    """``i64 fit(needs, offsets, order, chosen, placed)``: the lowest offset that is free."""
    body = NativeFunction(module, "arena_fit", "q", "pppqq")
    builder, (needs, offsets, order, chosen, placed) = body.builder, body.arguments
    offset = body.variable(body.constant(0))
    need, first, last = (body.get_word(words, chosen) for words in (needs, firsts, lasts))
    found = body.block("found")
    with body.count(placed) as position:
        other = body.get_word(order, position)
        begins = builder.icmp_signed("<=", body.get_word(firsts, other), last)
        ends = builder.icmp_signed(">=", body.get_word(lasts, other), first)
        with builder.if_then(builder.and_(begins, ends)):
            begin = body.get_word(offsets, other)
            end = builder.add(body.get(offset), need)
            body.go_if(builder.icmp_signed("<=", end, begin), found)
            behind = builder.add(begin, body.get_word(needs, other))
            further = builder.icmp_signed(">", behind, body.get(offset))
            builder.store(builder.select(further, behind, body.get(offset)), offset)
    builder.branch(found)
    body.go_on(found)
    return body.returns(body.get(offset))


def _insert(body: NativeFunction, offsets: Row, order: Row, chosen: Row, placed: Row) -> None:
    """Put what was placed where it belongs by its offset."""
    builder, offset = body.builder, body.get_word(offsets, chosen)
    slot, one = body.variable(placed), body.constant(1)
    with body.loop() as (_, leave):
        position = body.get(slot)
        body.go_if(body.is_zero(position), leave)
        before = builder.sub(position, one)
        other = body.get_word(order, before)
        lower = builder.icmp_signed("<=", body.get_word(offsets, other), offset)
        body.go_if(lower, leave)
        body.put_word(other, order, position)
        builder.store(before, slot)
    body.put_word(chosen, order, body.get(slot))


