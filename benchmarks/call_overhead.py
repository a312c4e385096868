"""Cost of calling a compiled program from Python: one trivial kernel on four elements.

Run ``python benchmarks/call_overhead.py``; prints microseconds a call, the best of several rounds,
beside NumPy's own add. The goal is less than 5 us more than NumPy.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable

import numpy as np

import graphc.ir.ops  # noqa: F401
from graphc.codegen.cpu import host_target
from graphc.frontend.trace import trace
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, float32
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program

GOAL_US = 5.0


def best_us(call: Callable[[], object], calls: int, rounds: int = 7) -> float:
    """Return the time of one call in the fastest round, in microseconds."""
    return min(timeit.repeat(call, number=calls, repeat=rounds)) / calls * 1e6


def programs() -> tuple[Program, Program]:
    """Return ``x + 1``, and ``w <- w - g`` in place."""
    kind = TensorType(float32, (4,))
    plus_one = trace(lambda x: x + 1.0, [kind], "plus_one")
    pair = trace(lambda w, g: (w - g,), [kind, kind], "update")
    update = Graph("update", pair.inputs, (), ((pair.inputs[0], pair.outputs[0]),))
    first, second = (Program(compile_graph(g, host_target())) for g in (plus_one, update))
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=50_000, help="calls in a round")
    calls = parser.parse_args().calls
    x, one, w = np.arange(4, dtype=np.float32), np.float32(1), np.zeros(4, np.float32)
    plus_one, update = programs()
    arguments, pair = [x], [w, x]
    numpy_us = best_us(lambda: np.add(x, one), calls)
    rows = {
        "numpy.add(x, 1)": numpy_us,
        "program x + 1": best_us(lambda: plus_one(arguments), calls),
        "program w -= g": best_us(lambda: update(pair), calls),
    }
    for name, us in rows.items():
        print(f"{name:18} {us:6.2f} us   {us - numpy_us:+6.2f}")
    extra_us = rows["program x + 1"] - numpy_us
    verdict = "met" if extra_us < GOAL_US else "missed"
    print(f"goal: less than {GOAL_US:.0f} us more than NumPy: {verdict}")


if __name__ == "__main__":
    main()
