"""Graph text back to graphs: a hand-written parser of what `graphc.ir.printer` prints.

Nothing of the text is ever evaluated or looked up as Python. Depth and lengths are bounded, and
whatever is wrong is a `ParseError` with line, column and what was expected there.
"""

from __future__ import annotations

import inspect
from typing import Any

import graphc.ir.ops  # noqa: F401  (registers the records that a text may name)
from graphc.errors import GraphcError, nearest
from graphc.ir.graph import Graph, Node, Value, placeholder
from graphc.ir.op import Pointwise
from graphc.ir.operand import REGISTRY
from graphc.ir.scanner import Scanner, shown
from graphc.ir.signature import DTYPE_OF, scan_shape, scan_type
from graphc.ir.sizes import Constraint
from graphc.ir.types import DType, TensorType

MAX_GRAPH_DEPTH = 16
MAX_TUPLE_DEPTH = 32
_WORDS = {"None": None, "True": True, "False": False, "inf": float("inf"), "nan": float("nan")}


def parse_graph(text: str, source: str = "") -> Graph:
    """Return the graph that a text describes.

    Parameters
    ----------
    text : str
        As `print_graph` writes it; spaces, line breaks and comments are free. A comment
        ``# file:line scope`` behind a statement is its location.
    source : str
        Name of the file, for messages.

    Returns
    -------
    Graph

    Raises
    ------
    ParseError
        With line and column of the first fault, and what was expected.
    """
    scanner = Scanner(text, source)
    graph = _GraphParser(scanner, 0).graph()
    scanner.skip()
    if not scanner.at_end():
        raise scanner.expected("the end of the text")
    return graph


class _GraphParser:
    """Parses one graph; graphs in attributes get a parser of their own."""

    def __init__(self, scanner: Scanner, depth: int) -> None:
        self.scan = scanner
        self.depth = depth
        self.values: dict[str, Value] = {}
        self.inputs: dict[str, Value] = {}

    def graph(self) -> Graph:
        scan = self.scan
        scan.word("graph")
        scan.take("@")
        name = scan.name("a name for the graph")
        self.header()
        constraints = []
        while scan.looking_at_word("where"):
            constraints.append(self.constraint())
        while scan.looking_at("%"):
            self.statement()
        updates = []
        while scan.looking_at_word("update"):
            updates.append(self.update())
        outputs = self.results()
        inputs = tuple(self.inputs.values())
        return Graph(name, inputs, outputs, tuple(updates), tuple(constraints))

    def header(self) -> None:
        scan = self.scan
        scan.take("(")
        while not scan.looking_at(")"):
            scan.skip()
            start = scan.position
            scan.take("%")
            name = scan.name("the name of an input")
            scan.take(":")
            value = placeholder(name, scan_type(self.scan))
            if name in self.inputs:
                raise scan.error(f"two inputs are called {shown(name)}", start)
            self.inputs[name] = value
            if not scan.accept(","):
                break
        scan.take(")", "',' or ')'")
        scan.comment()

    def constraint(self) -> Constraint:
        scan = self.scan
        scan.word("where")
        left = scan.dim("=")
        scan.take("==")
        right = scan.dim("\n#")
        return Constraint(left, right, scan.location())

    # -- statements --------------------------------------------------------------------------

    def statement(self) -> None:
        """Parse ``%0, %1 = op operands {attributes} : types  # location`` and nested graphs."""
        scan = self.scan
        scan.skip()
        start = scan.position
        names = [self.result_name()]
        while scan.accept(","):
            names.append(self.result_name())
        scan.take("=")
        op = self.op()
        operands = tuple(self.operands())
        attrs = self.attributes() if scan.looking_at("{") else {}
        scan.take(":")
        types = [scan_type(self.scan)]
        while scan.accept(","):
            types.append(scan_type(self.scan))
        where = scan.location()
        while (key := scan.nested_key()) is not None:
            attrs[key] = self.nested()
        if len(types) != len(names):
            raise scan.error(f"{len(names)} results have {len(types)} types", start)
        node = Node(op, operands, attrs, tuple(types), where)
        self.check(node, start)
        self.values.update(zip(names, node.outputs, strict=True))

    def result_name(self) -> str:
        scan = self.scan
        scan.take("%")
        number = str(len(self.values))
        start = scan.position
        name = scan.digits("the number of a result")
        if name in self.values:
            raise scan.error(f"%{shown(name)} is already defined; the next is %{number}", start)
        return name

    def op(self) -> Any:
        scan = self.scan
        scan.skip()
        start = scan.position
        name = scan.identifier("the name of an op")
        if name == "input":
            raise scan.error("inputs are declared in the first line", start)
        if name not in REGISTRY:
            raise scan.error(f"there is no op {shown(name)}.{nearest(name, REGISTRY)}", start)
        return REGISTRY[name]

    def operands(self) -> list[Value]:
        if not self.scan.looking_at("%"):
            return []
        found = [self.reference()]
        while self.scan.accept(","):
            found.append(self.reference())
        return found

    def reference(self) -> Value:
        scan = self.scan
        scan.skip()
        start = scan.position
        scan.take("%", "a value (%name)")
        quoted = scan.here('"')
        name = scan.name("the name of a value")
        is_number = not quoted and name.isdigit()
        found = self.values.get(name) if is_number else self.inputs.get(name)
        if found is None:
            known = self.values if is_number else self.inputs
            what = "a result before this line" if is_number else "an input"
            raise scan.error(f"%{shown(name)} is not {what}.{nearest(name, known)}", start)
        return found

    def nested(self) -> Graph:
        if self.depth + 1 > MAX_GRAPH_DEPTH:
            raise self.scan.error(f"graphs are nested deeper than {MAX_GRAPH_DEPTH}")
        return _GraphParser(self.scan, self.depth + 1).graph()

    def update(self) -> tuple[Value, Value]:
        scan = self.scan
        scan.word("update")
        scan.skip()
        start = scan.position
        target = self.reference()
        scan.take("=")
        new = self.reference()
        if target.op_name != "input":
            raise scan.error("an update replaces an input", start)
        if target.type != new.type:
            raise scan.error(f"an update of {target.type} by {new.type}", start)
        return target, new

    def results(self) -> tuple[Value, ...]:
        scan = self.scan
        scan.word("return", "a statement (%0 = ...), 'update' or 'return'")
        if scan.accept("("):
            scan.take(")")
            return ()
        found = [self.reference()]
        while scan.accept(","):
            found.append(self.reference())
        return tuple(found)

    def check(self, node: Node, start: int) -> None:
        """Compare the types that are written with those that the op infers."""
        problem = _misfit(node)
        if problem:
            raise self.scan.error(problem, start)
        try:
            inferred = node.op.infer(*(v.type for v in node.inputs), **node.attrs)
        except GraphcError as error:
            raise self.scan.error(f"{node.op.name}: {error.message}", start) from None
        except Exception as error:
            # Records take attributes of the kinds that traced programs have; a text has any.
            raise self.scan.error(
                f"{node.op.name} does not take these operands and attributes ({error})"[:300],
                start,
            ) from None
        types = (inferred,) if isinstance(inferred, TensorType) else tuple(inferred)
        if not all(isinstance(kind.dtype, DType) for kind in types):
            raise self.scan.error(f"{node.op.name} has no such dtype in its attributes", start)
        if types != node.types:
            raise self.scan.error(
                f"{node.op.name} gives {', '.join(map(str, types))}, the text says "
                f"{', '.join(map(str, node.types))}"[:300],
                start,
            )

    # -- attributes --------------------------------------------------------------------------

    def attributes(self) -> dict[str, Any]:
        scan = self.scan
        scan.take("{")
        found: dict[str, Any] = {}
        while not scan.looking_at("}"):
            scan.skip()
            start = scan.position
            key = scan.identifier("the name of an attribute")
            if key in found:
                raise scan.error(f"attribute {shown(key)} is given twice", start)
            scan.take("=")
            found[key] = self.attribute(0)
            if not scan.accept(","):
                break
        scan.take("}", "',' or '}'")
        return found

    def attribute(self, depth: int) -> Any:
        scan = self.scan
        if depth > MAX_TUPLE_DEPTH:
            raise scan.error(f"attributes are nested deeper than {MAX_TUPLE_DEPTH}")
        if scan.looking_at('"'):
            return scan.string()
        for opening, closing in ("()", "[]"):
            if scan.accept(opening):
                items = self.items(closing, depth)
                return tuple(items) if opening == "(" else items
        return self.scalar()

    def items(self, closing: str, depth: int) -> list[Any]:
        scan = self.scan
        found: list[Any] = []
        while not scan.looking_at(closing):
            found.append(self.attribute(depth + 1))
            if not scan.accept(","):
                break
        scan.take(closing, f"',' or {closing!r}")
        return found

    def scalar(self) -> Any:
        scan = self.scan
        number = scan.float_literal()
        if number is not None:
            return number
        word = scan.whole_word()
        if word in _WORDS:
            return _WORDS[word]
        if word in DTYPE_OF:
            dtype: DType = DTYPE_OF[word]
            return TensorType(dtype, scan_shape(self.scan)) if scan.here("[") else dtype
        if word == "size" and scan.accept("("):
            dim = scan.dim(")")
            scan.take(")")
            return dim
        if word:
            scan.position -= len(word)
        return scan.dim(",)]}", "a number, a string, a size, a dtype or a tuple")


def _misfit(node: Node) -> str:
    """Return why operands do not fit an op, beside what its inference says, or ''."""
    op, types = node.op, tuple(value.type for value in node.inputs)
    if isinstance(op, Pointwise):
        # Inference broadcasts any number of operands; the scalar function has its own.
        try:
            inspect.signature(op._lower).bind(None, *node.inputs, **node.attrs)
        except TypeError as error:
            return f"{op.name} does not take these operands and attributes ({error})"[:300]
    if not types:
        return ""
    wanted = op.operand_dtypes(types)
    if wanted is not None and wanted != tuple(kind.dtype for kind in types):
        dtypes = " and ".join(map(str, wanted))
        return f"{op.name} takes {dtypes} here, and the graph has no cast"
    return ""
