"""Statements of the loop IR: those inside others, what each reads, and rewriting it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from graphc.ir.dim import symbols
from graphc.ir.expr import Expr, Index, Load, Use
from graphc.ir.loop import (
    Assign,
    Declare,
    Fail,
    For,
    If,
    Intrinsic,
    Let,
    Prefetch,
    Stmt,
    Store,
)


def statements(stmts: Sequence[Stmt]) -> Iterator[Stmt]:
    """Yield every statement, nested ones after the one that holds them."""
    for stmt in stmts:
        yield stmt
        match stmt:
            case For():
                yield from statements(stmt.body)
            case If():
                yield from statements(stmt.body)
                yield from statements(stmt.otherwise)


def expressions(stmt: Stmt) -> tuple[Expr, ...]:
    """Return the expressions a statement itself evaluates."""
    match stmt:
        case For():
            return stmt.start, stmt.stop
        case If():
            return (stmt.condition,)
        case Let() | Declare() | Assign():
            return (stmt.value,)
        case Store():
            masks = () if stmt.mask is None else (stmt.mask,)
            return (stmt.offset, stmt.value, *masks)
        case Prefetch():
            return (stmt.offset,)
        case Intrinsic():
            return stmt.args
        case Fail():
            return stmt.details
    return ()


def with_expressions(stmt: Stmt, change: Callable[[Expr], Expr]) -> Stmt:
    """Return a statement with the expressions that it evaluates itself changed."""
    own = expressions(stmt)
    new = [change(expr) for expr in own]
    if all(a is b for a, b in zip(own, new, strict=True)):
        return stmt
    match stmt:
        case For():
            return replace(stmt, start=new[0], stop=new[1])
        case If():
            return replace(stmt, condition=new[0])
        case Let() | Declare() | Assign():
            return replace(stmt, value=new[0])
        case Store():
            return replace(stmt, offset=new[0], value=new[1], mask=new[2] if new[2:] else None)
        case Prefetch():
            return replace(stmt, offset=new[0])
        case Intrinsic():
            return replace(stmt, args=tuple(new))
        case Fail():
            return replace(stmt, details=tuple(new))
    return stmt


def mapped(
    stmts: Sequence[Stmt], change: Callable[[Stmt], tuple[Stmt, ...]]
) -> tuple[Stmt, ...]:
    """Return statements with each replaced by what ``change`` makes of it, nested ones first."""
    found: list[Stmt] = []
    for stmt in stmts:
        match stmt:
            case For():
                stmt = replace(stmt, body=mapped(stmt.body, change))
            case If():
                yes, no = mapped(stmt.body, change), mapped(stmt.otherwise, change)
                stmt = replace(stmt, body=yes, otherwise=no)
        found += change(stmt)
    return tuple(found)


def names_in(expr: Expr) -> Iterator[str]:
    """Yield the names that an expression itself reads, those of its operands left out."""
    match expr:
        case Index():
            yield from symbols(expr.dim)
        case Use():
            yield expr.name
        case Load():
            yield expr.buffer.name
            for stride in expr.strides:
                yield from symbols(stride)


def register_tiles(body: Sequence[Stmt]) -> dict[str, tuple[int, ...]]:
    """Return the tile of each declared register: what all values assigned to it broadcast to."""
    tiles: dict[str, tuple[int, ...]] = {}
    for stmt in statements(body):
        if isinstance(stmt, Declare):
            tiles[stmt.name] = stmt.value.tile
        elif isinstance(stmt, Assign):
            known = tiles.get(stmt.name, ())
            tiles[stmt.name] = np.broadcast_shapes(known, stmt.value.tile)
    return tiles
