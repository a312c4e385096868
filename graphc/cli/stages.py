"""The stages of a compilation, each as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from graphc.cli.target import Subject
from graphc.codegen import compiler
from graphc.codegen.cpu import host_target
from graphc.errors import ArgumentError, nearest
from graphc.ir.dim import symbols
from graphc.ir.graph import Graph, Node, Value, build, inline, rewrite
from graphc.ir.kernel_printer import print_kernel
from graphc.ir.operand import REGISTRY
from graphc.ir.plan import LaunchSpec, Plan
from graphc.ir.printer import print_graph, print_plan, size_names, value_names
from graphc.ir.target import Target
from graphc.passes.canonicalize import canonicalize
from graphc.passes.differentiate import gradients
from graphc.passes.fuse import Fusion, fuse_with_reasons
from graphc.passes.hoist import Hoisted, hoist
from graphc.passes.lower import lower
from graphc.passes.manager import compile_graph, nests_of

GRAPH_STAGES = ("trace", "grad", "canonical", "hoist", "fuse")
KERNEL_STAGES = ("lower", "kernel", "source", "llvm", "asm", "ptx")
STAGES = (*GRAPH_STAGES, "plan", *KERNEL_STAGES)
"""Every stage in the order a program goes through them."""
SUFFIX = {
    "plan": "txt", "lower": "txt", "kernel": "txt", "source": "py", "llvm": "ll", "asm": "s",
    "ptx": "ptx",
}  # fmt: skip
COMMENT = {"llvm": ";", "ptx": "//"}
MISSING = {
    "cpu": {"ptx": "it is CUDA's, with --target cuda:sm_90"},
    "cuda": {"asm": "the driver makes it from --stage ptx"},
}
"""By the target's name: the stages that it has not, and where to look instead."""


class Stages:
    """The stages of one program, each made when it is first asked for.

    Parameters
    ----------
    subject : Subject
    gradient : bool
        Whether the stages behind ``grad`` show the gradient graph.
    bindings : dict of str to int
        Sizes for the memory plan, beside those that the program was traced with.
    kernels : sequence of str
        Show only kernels of these names or labels, or that have these in them; none means all.
    target : Target, optional
        What to schedule and compile for; by default this machine.
    """

    def __init__(
        self,
        subject: Subject,
        gradient: bool,
        bindings: dict[str, int],
        kernels: Sequence[str] = (),
        target: Target | None = None,
    ) -> None:
        self.subject = subject
        self.target = target or host_target()
        self.gradient = gradient
        self.bindings = bindings
        self.kernels = kernels

    # -- what each stage makes ---------------------------------------------------------------

    @cached_property
    def grad(self) -> Graph:
        """The outputs, and the gradients of their sum by every parameter."""
        return gradient_graph(ungrouped(self.subject.graph), self.subject.captured)

    @cached_property
    def canonical(self) -> Graph:
        """The graph in plain form."""
        return canonicalize(self.grad if self.gradient else ungrouped(self.subject.graph))

    @cached_property
    def hoisted(self) -> Hoisted | None:
        """The graph cut in two where parameters alone decide a part of it, which runs once."""
        return None if self.gradient else hoist(self.canonical, self.subject.fixed)

    @cached_property
    def main(self) -> Graph:
        """What runs at each call."""
        return self.canonical if self.hoisted is None else self.hoisted.main

    @cached_property
    def fusion(self) -> Fusion:
        """The graph of kernels, and why what stayed apart did."""
        return fuse_with_reasons(self.main)

    @cached_property
    def plan(self) -> Plan:
        """Launches and memory."""
        return compile_graph(self.main, self.target)

    # -- as text -----------------------------------------------------------------------------

    def graph(self, stage: str) -> Graph:
        """Return the graph of one of `GRAPH_STAGES`."""
        if stage == "fuse":
            return self.fusion.graph
        return {
            "trace": lambda: self.subject.graph,
            "grad": lambda: self.grad,
            "canonical": lambda: self.canonical,
            "hoist": lambda: self.main,
        }[stage]()

    def text(self, stage: str) -> str:
        """Return the text of a stage, with a newline at its end."""
        if stage == "fuse":
            return print_graph(self.fusion.graph) + notes(self.main, self.fusion)
        if stage == "hoist" and self.hoisted is not None:
            once = "# runs once, until a parameter is written\n"
            return once + print_graph(self.hoisted.prepare) + "\n" + print_graph(self.main)
        if stage in GRAPH_STAGES:
            return print_graph(self.graph(stage))
        if stage == "plan":
            return print_plan(self.plan, self.sizes())
        return self._kernel_texts(stage)

    def sizes(self) -> dict[str, int]:
        """Return a value for every size variable.

        Raises
        ------
        ArgumentError
            For a size that has none, or a binding of a size that does not exist.
        """
        names = sorted({*size_names(self.plan.graph), *_inner_sizes(self.plan)})
        for name in self.bindings:
            if name not in names:
                raise ArgumentError(
                    f"the program has no size {name!r}.{nearest(name, names)}",
                    remedy=f"Its sizes are {', '.join(names)}." if names else "All are fixed.",
                )
        known = {**self.subject.sizes, **self.bindings}
        missing = [name for name in names if name not in known]
        if missing:
            raise ArgumentError(
                f"the memory plan needs a value for {', '.join(missing)}",
                remedy=f"Add --bind {','.join(f'{name}=64' for name in missing)}.",
            )
        return {name: known[name] for name in names}

    def chosen(self) -> list[LaunchSpec]:
        """Return the launches to show: by whole name or label if one is that, else by a part."""
        launches = list(self.plan.launches)
        if not self.kernels:
            return launches
        wanted = set(self.kernels)
        exact = [launch for launch in launches if wanted & {launch.kernel.name, launch.label}]
        titles = [f"{launch.kernel.name} {launch.label}" for launch in launches]
        return exact or [
            launch
            for launch, title in zip(launches, titles, strict=True)
            if any(text in title for text in wanted)
        ]

    def _kernel_texts(self, stage: str) -> str:
        write = _WRITERS[stage]
        first: dict[str, str] = {}
        parts = []
        sign = COMMENT.get(stage, "#")
        for launch in _groups(self.chosen()) if stage == "lower" else self.chosen():
            title = f"{launch.kernel.name} {launch.label}"
            code = compiler.text_of(launch.kernel, self.target)
            if code in first:
                parts.append(f"{sign} {title}: the same code as {first[code]}\n")
                continue
            first[code] = title
            head = "" if stage in ("lower", "kernel") else f"{sign} {title}\n"
            parts.append(head + write(launch, self.target))
        if not parts:
            names = [f"{launch.kernel.name} {launch.label}" for launch in self.plan.launches]
            raise ArgumentError(
                f"no kernel is called {', '.join(self.kernels) or 'anything'}",
                remedy=f"Kernels are {', '.join(names) or 'none: the program computes nothing'}.",
            )
        return "\n".join(parts)


def _lowered(launch: LaunchSpec, target: Target) -> str:
    lowered = lower(launch.node.attrs["body"], launch.kernel.name, nests_of(target))
    return print_kernel(lowered.kernel, launch.node.attrs["label"])


def _groups(launches: Sequence[LaunchSpec]) -> list[LaunchSpec]:
    """Return one launch of each group, as all grids of a group have one plain kernel."""
    return list({id(launch.node): launch for launch in reversed(launches)}.values())[::-1]


_WRITERS: dict[str, Callable[[LaunchSpec, Target], str]] = {
    "lower": _lowered,
    "kernel": lambda launch, target: print_kernel(launch.kernel, launch.label),
    "source": lambda launch, target: compiler.source_of(launch.kernel, target),
    "llvm": lambda launch, target: compiler.llvm_ir(launch.kernel, target),
    "asm": lambda launch, target: compiler.assembly(launch.kernel, target),
    "ptx": lambda launch, target: compiler.assembly(launch.kernel, target),
}


def _inner_sizes(plan: Plan) -> set[str]:
    return {
        name
        for node in plan.graph.nodes
        for kind in node.types
        for dim in kind.shape
        for name in symbols(dim)
    }


def ungrouped(graph: Graph) -> Graph:
    """Return a graph with the bodies of fusion groups in their place: a dumped one may have some.

    Parameters
    ----------
    graph : Graph
    """

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        return inline(node.attrs["body"], inputs) if node.op.name == "fused" else None

    return rewrite(graph, visit)


def gradient_graph(graph: Graph, captured: tuple[int, ...] | None) -> Graph:
    """Return the graph of the outputs and of the gradients of their sum.

    Parameters
    ----------
    graph : Graph
    captured : tuple of int or None
        The inputs to differentiate by: parameters; where there are none, all floating inputs.

    Raises
    ------
    ArgumentError
        When nothing can be differentiated.
    """
    floating = [i for i, v in enumerate(graph.inputs) if v.dtype.floating]
    chosen = [i for i in floating if i in (captured or ())] or floating
    ones = [_ones(v) if v.dtype.floating else None for v in graph.outputs]
    found = gradients(graph.outputs, ones, [graph.inputs[i] for i in chosen])
    grads = tuple(g for g in found if g is not None)
    if not grads:
        raise ArgumentError(
            f"{graph.name} has no gradient: no floating output depends on a floating input"
        )
    return Graph(
        f"{graph.name}_gradient",
        graph.inputs,
        graph.outputs + grads,
        graph.updates,
        graph.constraints,
    )


def _ones(value: Value) -> Value:
    attrs = {"shape": value.shape, "value": 1.0, "dtype": value.dtype}
    return build(REGISTRY["full"], (), attrs, value.node.where)[0]


def notes(graph: Graph, fusion: Fusion) -> str:
    """Return a line for every edge that was not fused, by the numbers of the graph before."""
    if not fusion.refusals:
        return ""
    names = value_names(graph)
    lines = ["# edges that were not fused, by the numbers of stage hoist:"]
    for refusal in fusion.refusals:
        here, there = (names[node.outputs[0]] for node in (refusal.producer, refusal.user))
        lines.append(
            f"# note {here} {refusal.producer.op.name} stays out of {there} "
            f"{refusal.user.op.name}: {refusal.reason}"
        )
    return "\n".join(lines) + "\n"
