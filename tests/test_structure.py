"""The rules of the house, read from the source: who imports whom, sizes, docstrings, plain text.

The tables are in `structure_tables`; each rule is a function from sources to violations, and is
shown to find a case that breaks it before it is believed about graphc.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from structure_tables import (
    AT_TOP,
    EAGER,
    LAZY,
    LOADED_LAZILY,
    LOADER,
    MACHINE_FOLDERS,
    MAX_COLUMNS,
    MAX_FILE_LINES,
    MAX_FUNCTION_LINES,
    MAY_IMPORT,
    ORDER,
    PUBLIC,
    REGISTRY_HOSTS,
)

# ---------------------------------------------------------------- reading sources

REPOSITORY = Path(__file__).resolve().parent.parent
HERE = "tests/test_structure.py"


@dataclass(frozen=True)
class Source:
    """One Python file; ``module`` is its dotted name, a package's own name for its __init__."""

    path: str
    text: str

    @property
    def module(self) -> str:
        parts = self.path.removesuffix(".py").split("/")
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    __hash__ = object.__hash__


@dataclass(frozen=True)
class Import:
    """One imported name: the module it comes from, and how the import stands in the file."""

    module: str
    name: str
    line: int
    in_function: bool
    for_types: bool


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def absolute(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = source.module.split(".")
    if not source.path.endswith("__init__.py"):
        package = package[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def imports(source: Source) -> Iterator[Import]:
    def visit(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, "", child.lineno, in_function, for_types)
            elif isinstance(child, ast.ImportFrom):
                base = absolute(source, child)
                for alias in child.names:
                    yield Import(base, alias.name, child.lineno, in_function, for_types)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from visit(
                    child, in_function or function, for_types or is_type_checking(child)
                )

    yield from visit(source.tree, False, False)


def target(use: Import, modules: frozenset[str]) -> str:
    """Return the module an import reaches: ``from graphc import nd`` reaches ``graphc.nd``."""
    inner = f"{use.module}.{use.name}"
    return inner if inner in modules else use.module


def place(module: str) -> tuple[str, int] | None:
    """Return a module's room and its position there, or None where no table lists it."""
    _, _, rest = module.partition(".")
    top, *below = rest.split(".")
    if top in PUBLIC:
        return "public", 0
    for room, files in ORDER.items():
        order = files.split()
        if room in AT_TOP:
            if top in order:
                return room, order.index(top)
        elif room == top:
            if not below:
                return room, len(order)
            return (room, order.index(below[0])) if below[0] in order else None
    return None


# ---------------------------------------------------------------- rules on imports


Sources = list[Source]
Violations = Iterator[str]


def unlisted_files(sources: Sources) -> Violations:
    for source in sources:
        if place(source.module) is None:
            yield f"{source.path}: list it in ORDER (or PUBLIC) of {HERE}, after what it imports"


def imports_from_below(sources: Sources) -> Violations:
    modules = frozenset(source.module for source in sources)
    for source in sources:
        home = place(source.module)
        for use in imports(source):
            if use.module.split(".")[0] != "graphc" or home is None:
                continue
            if source.module == LOADER and use.in_function:
                continue
            reached = target(use, modules)
            there = place(reached)
            where = f"{source.path}:{use.line}: imports {reached}"
            if there is None:
                yield f"{where}, which ORDER of {HERE} does not list"
            elif there[0] == home[0] and there[1] > home[1]:
                yield f"{where}, which comes later in room {home[0]}"
            elif there[0] != home[0] and there[0] not in MAY_IMPORT[home[0]]:
                yield f"{where} of room {there[0]}, which room {home[0]} may not import"


def import_circles(sources: Sources) -> Violations:
    modules = frozenset(source.module for source in sources)
    edges = {
        source.module: {
            target(use, modules)
            for use in imports(source)
            if not use.in_function and not use.for_types
        }
        & modules
        for source in sources
    }
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        yield "modules import each other in a circle: " + " <- ".join(error.args[1])


def imports_inside_functions(sources: Sources) -> Violations:
    for source in sources:
        if source.module == LOADER:
            continue
        for use in imports(source):
            if use.in_function and use.module.split(".")[0] not in sys.stdlib_module_names:
                yield f"{source.path}:{use.line}: imports {use.module} inside a function"
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called.rpartition(".")[2] in ("import_module", "__import__"):
                    yield f"{source.path}:{node.lineno}: {called} outside {LOADER}"


def third_party_imports(sources: Sources) -> Violations:
    for source in sources:
        home = place(source.module)
        for use in imports(source):
            package = use.module.split(".")[0]
            if package in sys.stdlib_module_names or package == "graphc" or home is None:
                continue
            if source.module == LOADER and use.in_function and package in LAZY:
                continue
            where = f"{source.path}:{use.line}: imports {package}"
            rooms = EAGER.get(package) or LAZY.get(package)
            if rooms is None:
                yield f"{where}, which neither EAGER nor LAZY of {HERE} lists"
            elif home[0] not in rooms:
                yield f"{where}, which only {', '.join(rooms)} may use"
            elif package in LAZY and not use.for_types and source.module not in LOADED_LAZILY:
                yield f"{where} at the top; {LOADER} loads it when it is first needed"


def loader_names(source: Source) -> Iterator[tuple[str, int]]:
    """Yield each name of the loader that a file uses, and its line."""
    aliases = set()
    for use in imports(source):
        if use.module == LOADER and use.name:
            yield use.name, use.line
        elif LOADER in (use.module, f"{use.module}.{use.name}"):
            aliases |= {LOADER, "lazy"}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in aliases:
            yield node.attr, node.lineno


def lazy_packages(sources: Sources) -> Violations:
    for source in sources:
        home = place(source.module)
        for name, line in loader_names(source):
            if name == "exports":
                continue
            package = next((package for package in LAZY if name.startswith(package)), None)
            if package is None:
                yield f"{source.path}:{line}: lazy.{name} begins with no package of LAZY in {HERE}"
            elif home is not None and home[0] not in LAZY[package]:
                rooms = ", ".join(LAZY[package])
                yield f"{source.path}:{line}: lazy.{name}, which only {rooms} may use"


# ---------------------------------------------------------------- rules on form


# How a package re-exports names that are imported when they are first used.
LAZY_EXPORTS = "__getattr__, __dir__ = exports(__name__, __file__)"
# How a module lets a misspelt name be answered with the nearest.
SUGGESTIONS = "_suggest_attributes(__name__)"


def is_reexport(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    known = [ast.dump(ast.parse(line).body[0]) for line in (LAZY_EXPORTS, SUGGESTIONS)]
    if ast.dump(node) in known:
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, ast.Assign):
        names = [getattr(name, "id", "") for name in node.targets]
        if all(re.fullmatch(r"__\w+__", name) for name in names):
            return isinstance(node.value, ast.Constant | ast.List | ast.Tuple)
        return isinstance(node.value, ast.Name | ast.Attribute)
    return False


def logic_in_public_modules(sources: Sources) -> Violations:
    for source in sources:
        if place(source.module) == ("public", 0):
            for node in source.tree.body:
                if not is_reexport(node):
                    kind = type(node).__name__
                    yield f"{source.path}:{node.lineno}: {kind} in a module that only re-exports"


def missing_docstrings(sources: Sources) -> Violations:
    for source in sources:
        for node in source.tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            overload = any(ast.unparse(d).endswith("overload") for d in node.decorator_list)
            if not node.name.startswith("_") and not overload and not ast.get_docstring(node):
                yield f"{source.path}:{node.lineno}: {node.name} has no docstring"


def sizes(sources: Sources) -> Violations:
    for source in sources:
        lines = source.text.splitlines()
        if len(lines) > MAX_FILE_LINES:
            yield f"{source.path}: {len(lines)} lines, {MAX_FILE_LINES} are the limit"
        for number, line in enumerate(lines, 1):
            if len(line) > MAX_COLUMNS:
                yield f"{source.path}:{number}: {len(line)} columns, {MAX_COLUMNS} are the limit"
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > MAX_FUNCTION_LINES:
                    yield f"{source.path}:{node.lineno}: {node.name} has {count} lines"


def drawers(sources: Sources) -> Violations:
    for source in sources:
        if source.path.rpartition("/")[2] == "utils.py" and source.module != "graphc.gluon.utils":
            yield f"{source.path}: a name that says nothing; name the file after what it holds"


def leftovers(sources: Sources) -> Violations:
    for source in sources:
        if source.path.endswith((".orig", ".rej", ".bak", "~")):
            yield f"{source.path}: what a merge or an editor left"


def machine_text(sources: Sources) -> Violations:
    folders = re.compile(rf"(?<![\w.~-])/({'|'.join(MACHINE_FOLDERS)})/")
    hosts = re.compile("|".join(map(re.escape, REGISTRY_HOSTS)))
    for source in sources:
        for number, line in enumerate(source.text.splitlines(), 1):
            if found := folders.search(line) or hosts.search(line):
                yield f"{source.path}:{number}: {found[0]} belongs to one machine"


# ---------------------------------------------------------------- the files of this repository


@functools.cache
def repository_files() -> tuple[str, ...]:
    """Return the files that are, or are about to be, under version control."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True, text=True)
        names = listed.stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):  # an unpacked sdist is no repository
        folders = ("graphc", "tests", "docs", "examples", "benchmarks")
        found = (path for folder in folders for path in (REPOSITORY / folder).rglob("*"))
        names = [path.relative_to(REPOSITORY).as_posix() for path in found]
    return tuple(sorted(name for name in set(names) if name and (REPOSITORY / name).is_file()))


@functools.cache
def repository_sources(kind: str) -> tuple[Source, ...]:
    """Return graphc's own files (``package``), all Python (``python``) or all text (``text``)."""
    found = []
    for name in repository_files():
        python = name.endswith(".py")
        if kind == "package" and not (python and name.startswith("graphc/")):
            continue
        if kind == "python" and not python:
            continue
        raw = (REPOSITORY / name).read_bytes()
        if b"\0" in raw:
            continue
        try:
            found.append(Source(name, raw.decode()))
        except UnicodeDecodeError:  # a data set or a picture
            continue
    return tuple(found)


# Rule, the files it reads, and a case that breaks it: path -> text.
Rule = Callable[[Sources], Violations]
RULES: list[tuple[Rule, str, dict[str, str]]] = [
    (unlisted_files, "package", {"graphc/ir/stray.py": ""}),
    (unlisted_files, "package", {"graphc/stray.py": ""}),
    (imports_from_below, "package", {"graphc/ir/types.py": "from graphc.passes.fuse import fuse"}),
    (imports_from_below, "package", {"graphc/ir/types.py": "from ..passes import fuse"}),
    (imports_from_below, "package", {"graphc/ir/types.py": "from graphc.ir.graph import Node"}),
    (imports_from_below, "package", {"graphc/ir/types.py": "from graphc.ir import Node"}),
    (imports_from_below, "package", {"graphc/runtime/program.py": "import graphc.passes.memory"}),
    (imports_from_below, "package", {"graphc/frontend/jit.py": "from graphc import options"}),
    (imports_from_below, "package", {"graphc/config.py": "from graphc.ir.stray import Node"}),
    (
        import_circles,
        "package",
        {"graphc/ir/ops/a.py": "from . import b", "graphc/ir/ops/b.py": "from .a import x"},
    ),
    (imports_inside_functions, "package", {"graphc/cli.py": "def f():\n  import numpy"}),
    (imports_inside_functions, "package", {"graphc/cli.py": "lib.import_module('numba')"}),
    (third_party_imports, "package", {"graphc/errors.py": "import numpy as np"}),
    (third_party_imports, "package", {"graphc/ir/types.py": "import scipy"}),
    (third_party_imports, "package", {"graphc/codegen/cpu.py": "import numba"}),
    (third_party_imports, "package", {"graphc/codegen/cpu.py": "from networkx import DiGraph"}),
    (lazy_packages, "package", {"graphc/passes/fuse.py": "from graphc import lazy\nlazy.numba()"}),
    (lazy_packages, "package", {"graphc/ir/op.py": "from graphc.lazy import llvmlite_binding"}),
    (lazy_packages, "package", {"graphc/cli.py": "import graphc.lazy\ngraphc.lazy.load('numba')"}),
    (logic_in_public_modules, "package", {"graphc/nd.py": "def f(): pass"}),
    (logic_in_public_modules, "package", {"graphc/gluon/nn.py": "x = f()"}),
    (missing_docstrings, "package", {"graphc/config.py": "class Config: pass"}),
    (drawers, "package", {"graphc/ir/ops/utils.py": ""}),
    (sizes, "python", {"tests/a.py": "\n" * 501}),
    (sizes, "python", {"tests/a.py": "x = '" + 95 * "x" + "'"}),
    (sizes, "python", {"tests/a.py": "def f():\n" + "    x\n" * 80}),
    (leftovers, "text", {"graphc/nd.py.orig": ""}),
    (machine_text, "text", {"a.md": "see /" + "tmp/a.txt"}),
    (machine_text, "text", {"a.md": "from https://" + "pypi" + ".org/simple"}),
]


def case_name(part: Rule | dict[str, str] | str) -> str:
    if isinstance(part, str):
        return part
    return " ".join(part) if isinstance(part, dict) else part.__name__


@pytest.mark.parametrize(
    ("rule", "broken"), [(rule, broken) for rule, _, broken in RULES], ids=case_name
)
def test_rule_finds_a_case_that_breaks_it(rule: Rule, broken: dict[str, str]) -> None:
    assert list(rule([Source(path, text) for path, text in broken.items()]))


@pytest.mark.parametrize(
    ("rule", "kind"), dict.fromkeys((rule, kind) for rule, kind, _ in RULES), ids=case_name
)
def test_rule_holds(rule: Rule, kind: str) -> None:
    found = dict.fromkeys(rule(list(repository_sources(kind))))
    assert not found, "\n" + "\n".join(found)


def test_rules_allow_what_they_should() -> None:
    allowed = [
        Source("graphc/lazy.py", "def numba():\n    'Load it.'\n    import numba"),
        Source("graphc/ir/dim.py", "import numpy as np"),
        Source("graphc/ir/types.py", "from graphc.errors import ShapeError\nfrom .dim import Dim"),
        Source("graphc/ir/ops/math.py", "from graphc.ir.op import OpDef"),
        Source("graphc/ir/ops/nn.py", "from graphc.ir.ops.math import exp"),
        Source("graphc/ir/ops/__init__.py", "from graphc.ir.ops import math, nn"),
        Source("graphc/passes/memory.py", "from graphc import lazy\nlazy.networkx()"),
        Source("graphc/codegen/llvm_engine.py", "from graphc.lazy import llvmlite_binding"),
        Source("graphc/frontend/jit.py", "from graphc.passes import memory"),
        Source("graphc/nd.py", '"""Arrays."""\nfrom graphc.ir.ops import exp\n__all__ = ["exp"]'),
        Source("graphc/__init__.py", 'from graphc import nd\n__version__ = "0.1.0"\nmx = nd.exp'),
        Source("graphc/cli.py", "import graphc\nfrom graphc.runtime import program"),
    ]
    found = [text for rule, _, _ in RULES for text in rule(allowed)]
    assert not found, "\n" + "\n".join(found)


def test_every_part_of_graphc_is_read() -> None:
    rooms = {place(source.module) for source in repository_sources("package")}
    assert {"base", "ir", "public"} <= {found[0] for found in rooms if found}


def test_quick_start_is_two_commands_of_one_line() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## Quick start\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)
    assert section, "README.md has no section Quick start"
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section[1], re.DOTALL | re.MULTILINE)
    assert [language for language, _ in blocks] == ["sh", "sh"]
    assert all(body.count("\n") == 1 and body.strip() for _, body in blocks)
