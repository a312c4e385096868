"""Random symbolic sizes against plain integer arithmetic."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from graphc.ir.dim import (
    Dim,
    bounds,
    dim_max,
    dim_min,
    evaluate,
    floor_div,
    linear,
    modulo,
    parse_dim,
    simplify,
    solve,
    substitute,
    symbol,
    symbols,
)

H, W, N = symbol("H"), symbol("W"), symbol("N")
i, j, k = (symbol(name) for name in ["i", "j", "k"])

SIZES, AXES = ("H", "W"), ("i", "j", "k")
SEEDS = range(40)


# Random expressions: the same tree read as a Dim and as Python integers.


@dataclass(frozen=True)
class Tree:
    """An operation on subtrees; a leaf holds a name or an integer in ``operation``."""

    operation: str | int
    inputs: tuple[Tree, ...] = ()


BUILD = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": floor_div,
    "%": modulo,
    "min": dim_min,
    "max": dim_max,
}
PLAIN = BUILD | {
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "min": min,
    "max": max,
}


def random_tree(rng: random.Random, depth: int) -> Tree:
    if depth == 0 or rng.random() < 0.1:
        leaf = rng.choice([*AXES, *SIZES, rng.randint(-6, 12), rng.choice([1, 2, 4, 7])])
        return Tree(leaf)
    operation = rng.choice(["+", "+", "-", "*", "*", "//", "//", "%", "%", "min", "max"])
    left = random_tree(rng, depth - 1)
    right = random_divisor(rng) if operation in ("//", "%") else random_tree(rng, depth - 1)
    return Tree(operation, (left, right))


def random_divisor(rng: random.Random) -> Tree:
    size, other = Tree(rng.choice(SIZES)), Tree(rng.choice(SIZES))
    number = Tree(rng.choice([1, 2, 3, 4, 6, 7, 12]))
    return rng.choice(
        [
            number,
            number,
            size,
            Tree("*", (size, number)),
            Tree("*", (size, other)),
            Tree("+", (size, number)),
            Tree("+", (Tree("//", (size, number)), Tree(1))),
        ]
    )


def build(tree: Tree) -> Dim:
    if isinstance(tree.operation, int):
        return tree.operation
    if not tree.inputs:
        return symbol(tree.operation)
    return BUILD[tree.operation](*map(build, tree.inputs))


def plain(tree: Tree, bindings: Mapping[str, int]) -> int:
    if isinstance(tree.operation, int):
        return tree.operation
    if not tree.inputs:
        return bindings[tree.operation]
    return PLAIN[tree.operation](*(plain(each, bindings) for each in tree.inputs))


def random_bindings(rng: random.Random) -> dict[str, int]:
    sizes = {name: rng.randint(1, 30) for name in SIZES}
    return sizes | {name: rng.randint(0, 20) for name in AXES}


def cases(seed: int, count: int = 30) -> Iterator[tuple[random.Random, Tree, Dim]]:
    rng = random.Random(seed)
    for _ in range(count):
        tree = random_tree(rng, rng.randint(1, 4))
        yield rng, tree, build(tree)


@pytest.mark.parametrize("seed", SEEDS)
def test_evaluates_as_python_integers(seed: int) -> None:
    for rng, tree, dim in cases(seed):
        for _ in range(8):
            bindings = random_bindings(rng)
            assert evaluate(dim, bindings) == plain(tree, bindings), (str(dim), bindings)


@pytest.mark.parametrize("seed", SEEDS)
def test_text_round_trip_and_python_agree(seed: int) -> None:
    for rng, tree, dim in cases(seed):
        again = parse_dim(str(dim))
        assert again == dim and hash(again) == hash(dim) and str(again) == str(dim)
        bindings = random_bindings(rng)
        # Python itself is the judge of precedence; the text is this test's own.
        assert eval(str(dim), {"min": min, "max": max}, bindings) == plain(tree, bindings)


@pytest.mark.parametrize("seed", SEEDS)
def test_substitution_commutes_with_evaluation(seed: int) -> None:
    replacements = {"i": W * 2 + j, "j": i // 3, "H": W + 1, "k": 5}
    for rng, _, dim in cases(seed):
        bindings = random_bindings(rng)
        inner = bindings | {n: evaluate(d, bindings) for n, d in replacements.items()}
        replaced = substitute(dim, replacements)
        assert evaluate(replaced, bindings) == evaluate(dim, inner), str(dim)


@pytest.mark.parametrize("seed", SEEDS)
def test_full_substitution_is_an_integer(seed: int) -> None:
    for rng, tree, dim in cases(seed):
        bindings = random_bindings(rng)
        value = substitute(dim, bindings)
        assert type(value) is int and value == plain(tree, bindings)


@pytest.mark.parametrize("seed", SEEDS)
def test_linear_splits_exactly(seed: int) -> None:
    for rng, _, dim in cases(seed):
        for name in AXES:
            affine = linear(dim, name)
            if affine is not None:
                coefficient, rest = affine
                assert name not in symbols(coefficient) | symbols(rest)
                bindings = random_bindings(rng)
                joined = evaluate(coefficient, bindings) * bindings[name]
                assert joined + evaluate(rest, bindings) == evaluate(dim, bindings)


@pytest.mark.parametrize("seed", SEEDS)
def test_solution_makes_both_sides_equal(seed: int) -> None:
    solved = 0
    for (rng, _, left), (_, _, right) in zip(cases(seed), cases(seed + 1000), strict=True):
        found = solve(left, right)
        if found is None:
            continue
        name, value = found
        bindings = random_bindings(rng)
        number = evaluate(value, bindings)
        if number >= 1:
            bindings[name] = number
            assert evaluate(left, bindings) == evaluate(right, bindings)
            solved += 1
        assert name not in symbols(value)
    assert solved


LIMITS: list[dict[str, Dim]] = [
    {"i": 3, "j": 7, "k": 4},
    {"i": 2, "j": W, "k": H},
    {"i": H, "j": W, "k": 1},
    {"i": 5, "j": H * 2, "k": W // 2 + 1},
    {"i": 4, "j": i + 1, "k": W},
    {"j": 4},
]


def assignments(upper: Mapping[str, Dim]) -> Iterator[dict[str, int]]:
    """Yield every assignment of the bounded axes within bounds for a few sizes."""
    for height, width in itertools.product((1, 2, 5), (1, 3, 4)):
        pending = [{"H": height, "W": width, "i": 6, "j": 9, "k": 2}]
        for name, limit in upper.items():
            pending = [
                bindings | {name: value}
                for bindings in pending
                for value in range(evaluate(limit, bindings))
            ]
        yield from pending


@pytest.mark.parametrize("upper", LIMITS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_simplify_and_bounds_hold_for_all_assignments(seed: int, upper: dict[str, Dim]) -> None:
    everything = list(assignments(upper))
    for rng, _, dim in cases(seed, 25):
        simpler = simplify(dim, upper)
        low, high = bounds(dim, upper)
        for bindings in rng.sample(everything, min(len(everything), 60)):
            value = evaluate(dim, bindings)
            assert evaluate(simpler, bindings) == value, (str(dim), str(simpler), bindings)
            assert (low is None or low <= value) and (high is None or value <= high)


def random_row_major(rng: random.Random) -> tuple[Dim, dict[str, Dim], list[Dim]]:
    extents: list[Dim] = [rng.choice([2, 3, 7, H, W, (H - 5) // 2 + 1, W * 2]) for _ in AXES]
    flat: Dim = 0
    for name, extent in zip(AXES, extents, strict=True):
        flat = flat * extent + symbol(name)
    return flat, dict(zip(AXES, extents, strict=True)), extents


@pytest.mark.parametrize("seed", SEEDS)
def test_row_major_index_unflattens(seed: int) -> None:
    flat, upper, (_, rows, columns) = random_row_major(random.Random(seed))
    assert simplify(flat % columns, upper) == k
    assert simplify(flat // columns % rows, upper) == j
    assert simplify(flat // (columns * rows), upper) == i
    assert simplify(flat // columns // rows, upper) == i


@pytest.mark.parametrize("seed", SEEDS)
def test_flatten_undoes_unflatten_without_bounds(seed: int) -> None:
    _, _, (_, rows, columns) = random_row_major(random.Random(seed))
    first, second, third = N // (rows * columns), N // columns % rows, N % columns
    assert (first * rows + second) * columns + third == N
