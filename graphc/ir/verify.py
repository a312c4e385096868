"""What every graph and every scheduled kernel must satisfy; checked between passes."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.errors import VerifyError
from graphc.ir import expr as E
from graphc.ir.dim import symbols
from graphc.ir.expr import Expr, Index, Load, Reduce, Use
from graphc.ir.graph import Graph, Node, input_name
from graphc.ir.loop import (
    BEGIN,
    END,
    Alloc,
    Assign,
    Barrier,
    Declare,
    Fail,
    For,
    If,
    Intrinsic,
    Kernel,
    Let,
    Prefetch,
    Python,
    Stmt,
    Store,
)
from graphc.ir.operations import OPERATIONS
from graphc.ir.types import TensorType, bool_


def verify(graph: Graph) -> None:
    """Check a graph.

    Raises
    ------
    VerifyError
        When an input is missing or named twice, a type is not what the op infers, or an update
        replaces something else than an input, or by a value of another type.
    """
    names = graph.input_names()
    if len(set(names)) != len(names):
        raise VerifyError(f"{graph.name}: two inputs have one name in {', '.join(names)}")
    declared = set(graph.inputs)
    for node in graph.nodes:
        _verify_node(graph, node)
        for value in node.inputs:
            if value.op_name == "input" and value not in declared:
                raise VerifyError(f"{graph.name}: {input_name(value)!r} is not among the inputs")
    for value in graph.results:
        if value.op_name == "input" and value not in declared:
            raise VerifyError(f"{graph.name}: {input_name(value)!r} is not among the inputs")
    for target, new in graph.updates:
        if target not in declared or target.type != new.type:
            raise VerifyError(f"{graph.name}: an update of {target.type} by {new.type}")


def _verify_node(graph: Graph, node: Node) -> None:
    body = node.attrs.get("body")
    if isinstance(body, Graph):
        verify(body)
    inferred = node.op.infer(*(v.type for v in node.inputs), **node.attrs)
    inferred = (inferred,) if isinstance(inferred, TensorType) else tuple(inferred)
    if inferred != node.types:
        raise VerifyError(
            f"{graph.name}: {node.op.name} is typed {_text(node.types)}, infers {_text(inferred)}",
            where=node.where,
            op=node.op.name,
            operands=[v.type for v in node.inputs],
        )


def _text(types: Iterable[TensorType]) -> str:
    return ", ".join(map(str, types))


def verify_kernel(kernel: Kernel) -> None:
    """Check a scheduled and expanded kernel.

    Raises
    ------
    VerifyError
        When a name is used where it is not defined, a reduction or mathematical function is left,
        a mask is not bool, or an unknown buffer is accessed.
    """
    names = {*kernel.sizes, BEGIN, END}
    _verify_body(kernel, kernel.body, names, {b.name for b in kernel.params})


def _verify_body(
    kernel: Kernel, body: tuple[Stmt, ...], names: set[str], buffers: set[str]
) -> None:
    names, buffers = set(names), set(buffers)
    for statement in body:
        match statement:
            case For():
                _verify_expr(kernel, statement.start, names, buffers)
                _verify_expr(kernel, statement.stop, names, buffers)
                _verify_body(kernel, statement.body, names | {statement.name}, buffers)
            case If():
                _verify_expr(kernel, statement.condition, names, buffers)
                _verify_body(kernel, statement.body, names, buffers)
                _verify_body(kernel, statement.otherwise, names, buffers)
            case Let() | Declare():
                _verify_expr(kernel, statement.value, names, buffers)
                names.add(statement.name)
            case Intrinsic():
                for argument in statement.args:
                    _verify_expr(kernel, argument, names, buffers)
                names.add(statement.name)
            case Barrier():
                pass
            case Assign():
                _verify_expr(kernel, statement.value, names, buffers)
                if statement.name not in names:
                    raise VerifyError(f"{kernel.name}: assigns undeclared {statement.name}")
            case Store():
                for expr in (statement.value, statement.offset, statement.mask):
                    if expr is not None:
                        _verify_expr(kernel, expr, names, buffers)
                if statement.value.dtype is not statement.buffer.dtype:
                    raise VerifyError(
                        f"{kernel.name}: stores {statement.value.dtype} to {statement.buffer}"
                    )
            case Prefetch():
                _verify_expr(kernel, statement.offset, names, buffers)
            case Alloc():
                buffers.add(statement.buffer.name)
            case Fail():
                for expr in statement.details:
                    _verify_expr(kernel, expr, names, buffers)
            case Python():
                for buffer in statement.buffers:
                    if buffer.name not in buffers:
                        raise VerifyError(f"{kernel.name}: calls Python on unknown {buffer}")


def _verify_expr(kernel: Kernel, root: Expr, names: set[str], buffers: set[str]) -> None:
    for expr in E.walk(root):
        problem = ""
        if isinstance(expr, Index) and not symbols(expr.dim) <= names:
            problem = f"uses undefined {', '.join(sorted(symbols(expr.dim) - names))}"
        elif isinstance(expr, Use) and expr.name not in names:
            problem = f"uses undefined {expr.name}"
        elif isinstance(expr, Reduce):
            problem = "has a reduction that is not scheduled"
        elif isinstance(expr, E.Apply) and not OPERATIONS[expr.op].machine:
            problem = f"has {expr.op}, which is not a machine operation"
        elif isinstance(expr, Load):
            if expr.buffer.name not in buffers:
                problem = f"reads unknown {expr.buffer.name}"
            elif expr.mask is not None and expr.mask.dtype is not bool_:
                problem = "has a mask that is not bool"
        if problem:
            raise VerifyError(f"{kernel.name} {problem}")
