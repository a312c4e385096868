"""The documentation is true: listings are what graphc prints now, examples run, links lead on."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from graphc.cli.stages import STAGES
from graphc.config import Config

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
PACKAGE = sorted((ROOT / "graphc").rglob("*.py"))

_DUMP = re.compile(
    r"(<!-- dump (?P<arguments>[^\n]*?) -->\n```text\n)(?P<listing>.*?)(```\n)", re.DOTALL
)
_BLOCK = re.compile(r"(?P<before>[^\n]*)\n```python\n(?P<code>.*?)^```$", re.S | re.M)
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
NO_RUN = "<!-- no-run -->"


def identity(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def run(arguments: list[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=600,
    )


# -- listings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", [p for p in PAGES if _DUMP.search(p.read_text(encoding="utf-8"))], ids=identity
)
def test_listings_are_what_graphc_prints(page: Path, request: pytest.FixtureRequest) -> None:
    text = page.read_text(encoding="utf-8")

    def fresh(found: re.Match[str]) -> str:
        done = run(["-m", "graphc", "dump", *shlex.split(found["arguments"])])
        assert done.returncode == 0, done.stderr
        return found[1] + done.stdout + found[4]

    now = _DUMP.sub(fresh, text)
    if request.config.getoption("--update-golden"):
        page.write_text(now, encoding="utf-8", newline="\n")
        return
    assert now == text, "run pytest tests/test_docs.py --update-golden, then read the difference"


def test_the_tour_shows_every_stage() -> None:
    shown = " ".join(m["arguments"] for m in _DUMP.finditer((DOCS / "tour.md").read_text()))
    for stage in ("trace", "grad", "canonical", "fuse", "plan", "lower", "kernel", "source"):
        assert stage in shown, stage


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_stages_that_pages_name_exist(page: Path) -> None:
    named = re.findall(r"--stage ([\w,]+)", page.read_text(encoding="utf-8"))
    assert {stage for words in named for stage in words.split(",")} <= {*STAGES, "all"}


def test_ops_reference_is_current(request: pytest.FixtureRequest) -> None:
    source = DOCS / "generate_ops.py"
    if request.config.getoption("--update-golden"):
        assert run([str(source)]).returncode == 0
    spec = importlib.util.spec_from_file_location("generate_ops", source)
    assert spec is not None and spec.loader is not None
    # Other tests may have registered ops of their own, so the page comes from a fresh process.
    code = f"import runpy; print(runpy.run_path({str(source)!r})['page'](), end='')"
    done = run(["-c", code])
    assert done.returncode == 0, done.stderr
    assert done.stdout == (DOCS / "ops.md").read_text(encoding="utf-8"), "run docs/generate_ops.py"


def test_readme_states_the_figures_that_were_measured() -> None:
    page = runpy.run_path(str(DOCS / "generate_figures.py"))["page"]
    now = page()
    assert now == (ROOT / "README.md").read_text(encoding="utf-8"), "run docs/generate_figures.py"


# -- examples --------------------------------------------------------------------------------


def blocks(page: Path) -> list[str]:
    """Return a page's Python blocks, but those that say they cannot run."""
    text = page.read_text(encoding="utf-8")
    return [m["code"] for m in _BLOCK.finditer(text) if m["before"].strip() != NO_RUN]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=identity)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    # One process for a page: blocks build on those before, and may register ops.
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(blocks(page)), encoding="utf-8")
    done = run([str(script)], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=identity)
def test_python_blocks_use_what_they_import(page: Path) -> None:
    code = "\n\n".join(blocks(page))
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    assert imported <= used, f"{identity(page)} imports {imported - used} and does not use it"


def commands(page: Path) -> list[str]:
    """Return the ``graphc`` commands that a page shows, without their prompt."""
    return re.findall(r"^\$ graphc (.+)$", page.read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=identity)
def test_commands_run(page: Path) -> None:
    for command in commands(page):
        done = run(["-m", "graphc", *shlex.split(command)])
        assert done.returncode == 0 and done.stdout, done.stderr


def test_every_option_is_described() -> None:
    text = (DOCS / "jit.md").read_text(encoding="utf-8")
    described = re.findall(r"^\| `(\w+)` \|", text, re.M)
    assert described == [field.name for field in dataclasses.fields(Config)]


def test_only_what_cannot_run_is_skipped() -> None:
    marked = [identity(p) for p in PAGES if NO_RUN in p.read_text(encoding="utf-8")]
    assert marked == []


@pytest.mark.parametrize(
    "module", [p for p in PACKAGE if ">>>" in p.read_text(encoding="utf-8")], ids=identity
)
def test_doctests(module: Path, tmp_path: Path) -> None:
    name = ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    code = (
        "import doctest, importlib, sys\n"
        f"module = importlib.import_module({name!r})\n"
        # `graphc.metric` may be a module that only re-exports; its examples stand elsewhere.
        f"module = sys.modules[{name!r}]\n"
        "failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)\n"
        "sys.exit(1 if failed or not tried else 0)\n"
    )
    done = run(["-c", code], cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


# -- links -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_links_lead_to_files(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for link in _LINK.findall(prose):
        assert (page.parent / link).exists(), f"{identity(page)} links to {link}"


@pytest.mark.parametrize("name", ["architecture.md", "adding-an-op.md", "adding-a-pass.md"])
def test_files_that_pages_name_exist(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:graphc|tests|docs)/[\w./]+\.\w+)`", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`((?:ir|passes|codegen|runtime|frontend|cli)/[\w./]+\.py)`", text):
        assert (ROOT / "graphc" / path).exists(), path
