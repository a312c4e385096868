"""``graphc dump``: every stage of a compilation, as text."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from graphc import config
from graphc.cli import paint
from graphc.cli.dot import print_dot
from graphc.cli.shapes import parse_bindings
from graphc.cli.stages import COMMENT, GRAPH_STAGES, MISSING, STAGES, SUFFIX, Stages
from graphc.cli.target import load
from graphc.codegen.targets import named_target
from graphc.errors import ArgumentError, nearest
from graphc.ir.target import Target

DEFAULT_STAGES = "fuse,plan"
EVERY_PASS = "passes"


class UsageError(Exception):
    """An argument that the command does not take; exit status 2."""


def dump(options: argparse.Namespace) -> None:
    """Print, or write to a folder, the stages that were asked for."""
    with config.options(engine=options.engine):
        _dump(options)


def _dump(options: argparse.Namespace) -> None:
    target = named_target(options.processor)
    stages = stage_names(options.stage, target)
    pairs = diff_pairs(options.diff, stages, target)
    if options.dot and (pairs or not set(stages) <= set(GRAPH_STAGES)):
        raise UsageError(f"--dot draws graphs: use it with --stage {','.join(GRAPH_STAGES)}")
    subject = load(options.target, options.shape, options.train)
    gradient = options.grad or "grad" in stages or any("grad" in pair for pair in pairs)
    bindings = parse_bindings(options.bind)
    made = Stages(subject, gradient, bindings, options.kernel, target)
    texts: dict[str, str] = {}
    if pairs:
        for before, after in pairs:
            texts[f"{before}-{after}.diff"] = difference(made, before, after)
    else:
        for stage in stages:
            suffix = "dot" if options.dot else SUFFIX.get(stage, "graph")
            text = print_dot(made.graph(stage)) if options.dot else made.text(stage)
            texts[f"{stage}.{suffix}"] = text
    if options.output is None:
        _show(texts, options.dot)
    else:
        _write(texts, Path(options.output), subject.graph.name)


def stage_names(text: str, target: Target) -> list[str]:
    """Return the stages of a list such as ``fuse,plan``, in the order programs go through them."""
    missing = MISSING[target.name]
    names = [name.strip() for name in text.split(",") if name.strip()]
    if "all" in names:
        return [stage for stage in STAGES if stage not in missing]
    for name in names:
        if name not in STAGES:
            known = f"Stages are {', '.join(STAGES)}."
            raise UsageError(f"there is no stage {name!r}.{nearest(name, STAGES)} {known}")
        if name in missing:
            raise UsageError(f"there is no stage {name!r} for this target: {missing[name]}")
    if not names:
        raise UsageError(f"--stage names no stage. Stages are {', '.join(STAGES)}.")
    return [stage for stage in STAGES if stage in names]


def diff_pairs(
    text: str | None, stages: list[str], target: Target
) -> list[tuple[str, str]]:
    """Return the pairs of stages that ``--diff`` compares."""
    if text is None:
        return []
    if text == EVERY_PASS:
        path = [stage for stage in GRAPH_STAGES if stage != "grad" or "grad" in stages]
        return list(zip(path, path[1:], strict=False))
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2:
        raise UsageError("--diff takes two stages, as in --diff trace,canonical, or none")
    for name in names:
        stage_names(name, target)
    return [(names[0], names[1])]


def difference(made: Stages, before: str, after: str) -> str:
    """Return a unified diff of the texts of two stages."""
    old, new = (made.text(stage).splitlines(keepends=True) for stage in (before, after))
    lines = list(difflib.unified_diff(old, new, before, after))
    return "".join(lines) or f"--- {before}\n+++ {after}\n"


def _show(texts: dict[str, str], dot: bool) -> None:
    colour = paint.wanted(sys.stdout)
    for number, (name, text) in enumerate(texts.items()):
        stage, _, suffix = name.rpartition(".")
        if len(texts) > 1 and not dot and suffix != "diff":
            rule = f"{COMMENT.get(stage, '#')} ---- {stage} ".ljust(80, "-")
            sys.stdout.write(("\n" if number else "") + rule + "\n")
        if colour:
            text = paint.paint_diff(text) if suffix == "diff" else paint.paint(text)
        sys.stdout.write(text)


def _write(texts: dict[str, str], folder: Path, program: str) -> None:
    safe = "".join(c if c.isalnum() or c in "_-" else "_" for c in program)[:60] or "program"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = folder / f"{safe}.{name}"
            path.write_text(text, encoding="utf-8", newline="\n")
            print(path)
    except OSError as error:
        raise ArgumentError(f"cannot write to {folder}: {error.strerror or error}") from None
