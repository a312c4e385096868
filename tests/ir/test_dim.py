"""Identities of symbolic sizes that shapes and loops rely on, their text and their errors."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest

from graphc.ir.dim import (
    Dim,
    FloorDiv,
    Maximum,
    Minimum,
    Modulo,
    SizeExpr,
    UnboundSizeError,
    Var,
    bounds,
    ceil_div,
    dim_max,
    dim_min,
    evaluate,
    floor_div,
    linear,
    modulo,
    parse_dim,
    product,
    provably_equal,
    simplify,
    solve,
    symbol,
    symbols,
    terms,
)

B, C, H, W, N, X = (symbol(name) for name in ["B", "C", "H", "W", "N", "X"])
i, j, k = (symbol(name) for name in ["i", "j", "k"])


# Identities.


@pytest.mark.parametrize(
    ("dim", "expected"),
    [
        ((B * 2450) // 2450, B),
        ((H * W * C) // (W * C), H),
        ((i * 7 + j) // 7, i + j // 7),
        ((i * 7 + j) % 7, j % 7),
        ((i * W + j) // W, i + j // W),
        ((i * W + j) % W, j % W),
        ((B * H + B) // (H + 1), B),
        (((W - 4) * i + j) // (W - 4), i + j // (W - 4)),
        (X // 1, X),
        (X % 1, 0),
        (0 // X, 0),
        (0 % X, 0),
        (X // X, 1),
        (X // 3 // 4, X // 12),
        (X // B // H, X // (B * H)),
        ((X * 4) // 6, (X * 2) // 3),
        ((X * 4) % 6, (X * 2) % 3 * 2),
        ((B * H) // (B * W), H // W),
        (X % 12 % 4, X % 4),
        ((X % 12 + j) % 4, (X + j) % 4),
        (X % 12 // 4, X // 4 % 3),
        (W // 3 % W, W // 3),
        ((W // 3 % W + i) % W, (W // 3 + i) % W),
        ((X // 7) * 7 + X % 7, X),
        ((X // 7) * 7 * B + X % 7 * B, X * B),
        (((X + 1) // W) * W + (X + 1) % W, X + 1),
        (X // -3, -X // 3),
        (X % -3, -(-X % 3)),
        (dim_min(X, X), X),
        (dim_min(X + 1, X + 3), X + 1),
        (dim_max(X + 1, X + 3), X + 3),
        (dim_max(X, 0), X),
        (dim_min(dim_min(B, 4), dim_min(N, 3)), dim_min(3, dim_min(N, B))),
        (dim_max(dim_min(B, 3), 0), dim_min(3, B)),
        (dim_min(dim_max(B - 1, 0), B), dim_max(B - 1, 0)),
        (dim_max(dim_min(B, 4) + 1, dim_min(B, 4)), dim_min(B, 4) + 1),
        (dim_min(dim_max(B, N) * 2, B), B),
        (ceil_div(B * 4, 4), B),
        (ceil_div(B, 4), (B + 3) // 4),
        (product([B, 2, H]), B * H * 2),
        (product([]), 1),
        (B - B, 0),
        (B * 0, 0),
        (3 - (B + 3), -B),
        ((B + 1) * (B - 1), B * B - 1),
        (B + np.int64(2), B + 2),
        (np.int64(2) * B, B * 2),
        (np.int64(7) // B, 7 // B),
    ],
)
def test_canonical_form(dim: Dim, expected: Dim) -> None:
    assert dim == expected and hash(dim) == hash(expected)


@pytest.mark.parametrize("dim", [B - B + 3, (B * 6) // (B * 2), X % 1, dim_min(B, 0)])
def test_constants_are_plain_integers(dim: Dim) -> None:
    assert type(dim) is int


@pytest.mark.parametrize(
    ("dim", "upper", "expected"),
    [
        ((i * 7 + j) // 7, {"j": 7}, i),
        ((i * 7 + j) % 7, {"j": 7}, j),
        ((i * W + j) // W, {"j": W}, i),
        ((i * W + j) % W, {"j": W}, j),
        ((i * 4 + j) // 8, {"j": 4}, i // 2),
        ((i * 4 + j) % 8, {"j": 4}, i % 2 * 4 + j),
        ((i * W + j) // (W * 2), {"j": W}, i // 2),
        ((i * 7 + j + 6) // 7, {"j": 1}, i),
        ((j + 9) // 7, {"j": 5}, 1),
        ((j - 3) // 2, {"j": 9}, (j + 1) // 2 - 2),
        (dim_min(i, B - 1), {"i": B}, i),
        (dim_max(i - 4, 0), {"i": 5}, 0),
        (dim_min(i * 4 + j, B * 4), {"i": B, "j": 4}, i * 4 + j),
        ((dim_min(i, 6) * 2 + j) // 2, {"i": 5, "j": 2}, i),
        (i + j, {"i": 1}, j),
        ((H - 5) // 2 + 1, {"i": 4}, (H - 5) // 2 + 1),
        ((i * 7 + j) // 7, {}, i + j // 7),
    ],
)
def test_simplify(dim: Dim, upper: dict[str, Dim], expected: Dim) -> None:
    assert simplify(dim, upper) == expected


@pytest.mark.parametrize(
    ("dim", "upper", "expected"),
    [
        (7, {}, (7, 7)),
        (i * 7 + j, {"i": 3, "j": 7}, (0, 20)),
        (i * 7 + j - N, {"i": 3, "j": 7}, (None, 20)),
        (5 - i, {"i": 3}, (3, 5)),
        (i // 2 + N, {"i": 9}, (0, None)),
        (N % 4, {}, (0, 3)),
        (dim_min(N, 4) * 2, {}, (0, 8)),
        (dim_max(N, 4), {}, (4, None)),
        (j, {"i": 4, "j": i + 1}, (0, 3)),
        (i * j, {"i": 3}, (0, None)),
        ((i - 3) * (j - 3), {"i": 3, "j": 3}, (-3, 13)),
        (7 // (N + 2), {}, (0, 3)),
    ],
)
def test_bounds(dim: Dim, upper: dict[str, Dim], expected: tuple[int | None, int | None]) -> None:
    assert bounds(dim, upper) == expected


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (B, N * 2, ("B", N * 2)),
        (N * 2, B, ("B", N * 2)),
        (B, N, ("B", N)),
        (B + 5, N, ("N", B + 5)),
        (B * 2, N * 4 + 2, ("B", N * 2 + 1)),
        (B * 2, 10, ("B", 5)),
        (B + 1, B * 2 - 3, ("B", 4)),
        (B * H, B * 3, ("H", 3)),
        (B * H, N * H, ("B", N)),
        (B * H, 0, None),
        (B, (B + N) // 2, None),
        (B * 2, 5, None),
        (B + 5, 3, None),
        (B * B, 4, None),
        (B, B, None),
        (B, B + 1, None),
        (3, 3, None),
    ],
)
def test_solve(left: Dim, right: Dim, expected: tuple[str, Dim] | None) -> None:
    assert solve(left, right) == expected


def test_linear() -> None:
    assert linear(i * W + j * 2 + 3, "i") == (W, j * 2 + 3)
    assert linear(j, "i") == (0, j)
    assert linear(4, "i") == (0, 4)
    assert linear(i * i, "i") is None
    assert linear(i // 2 + i, "i") is None
    assert linear(i * dim_min(i, j), "i") is None


def test_provably_equal_sees_through_constants_under_division() -> None:
    assert provably_equal((H - 1) // 2 + 1, (H + 1) // 2)
    assert provably_equal(H % 4, H - H // 4 * 4)
    assert provably_equal(3, 3)
    assert not provably_equal((H - 1) // 2 + 1, H // 2)
    assert not provably_equal(H, 3)


# Text.


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (50 * B, "B*50"),
        (1 + B, "B + 1"),
        (1 + (H - 5) // 2, "(H - 5)//2 + 1"),
        (dim_min(16, N), "min(N, 16)"),
        (dim_max(dim_max(N - 5, 3), B - 5), "max(B - 5, N - 5, 3)"),
        (-B, "-B"),
        (1 - B, "1 - B"),
        (-(H // 2), "-(H//2)"),
        (N - H // 2, "N - H//2"),
        (H // 2 * 3, "(H//2)*3"),
        ((-7) // B, "(-7)//B"),
        (B * B * H - B % 4, "B*B*H - B%4"),
        (i * 7 + j, "i*7 + j"),
    ],
)
def test_text(dim: Dim, text: str) -> None:
    assert str(dim) == text


def test_text_does_not_depend_on_the_order_of_building() -> None:
    parts = [B * H, B * 3, -(H // 2), H % 3, dim_min(B, N), 7]
    texts = set()
    for order in itertools.permutations(parts):
        texts.add(str(sum(order)))
    assert texts == {"B*H + B*3 + H%3 - H//2 + min(B, N) + 7"}


@pytest.mark.parametrize("name", ["B", "_x", "i.0", "batch.size_2"])
def test_names_round_trip(name: str) -> None:
    assert parse_dim(name) == symbol(name)


@pytest.mark.parametrize("name", ["", "2B", "a b", "a-b", "min", "max", ".x", "é", "B\n"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="invalid size variable"):
        symbol(name)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 0),
        ("B +", 3),
        ("B + * 2", 4),
        ("(B", 2),
        ("B 2", 2),
        ("B ? 2", 2),
        ("min(B)", 5),
        ("min B", 4),
        ("B / 2", 2),
        ("B // 0", 5),
        ("B % (2 - 2)", 4),
        ("B ** 2", 3),
        ("(" * 5000, 100),
    ],
)
def test_bad_text_names_the_position(text: str, position: int) -> None:
    with pytest.raises(ValueError, match=f"at position {position}, found"):
        parse_dim(text)


# The object.


def test_terms_show_atoms() -> None:
    assert terms(B * B * 3 + H // 2 - 4) == (
        (3, ((Var("B"), 2),)),
        (1, ((FloorDiv(H, 2), 1),)),
        (-4, ()),
    )
    assert terms(5) == ((5, ()),) and terms(0) == ()
    ((_, ((low, _),)),) = terms(dim_min(B, 4))
    ((_, ((high, _),)),) = terms(dim_max(B, 4))
    ((_, ((rest, _),)),) = terms(B % 4)
    assert (low, high, rest) == (Minimum(B, 4), Maximum(B, 4), Modulo(B, 4))


def test_symbols_include_those_inside_atoms() -> None:
    assert symbols(B + dim_min((H - 1) // W, 4)) == {"B", "H", "W"}
    assert symbols(4) == frozenset()


def test_equality_is_structural() -> None:
    assert symbol("B") == B and len({B + 1, 1 + symbol("B"), B + 2}) == 2
    assert B != 1 and B != "B" and B != H and FloorDiv(B, 2) != Modulo(B, 2)
    assert provably_equal(B + H, H + B) and not provably_equal(B, 1) and not provably_equal(B, H)


@pytest.mark.parametrize("dim", [B, (H - 5) // 2 + 1, B * dim_min(H, 3) - X % W])
def test_copies_are_equal(dim: Dim) -> None:
    for again in (copy.deepcopy(dim), pickle.loads(pickle.dumps(dim))):
        assert again == dim and hash(again) == hash(dim) and terms(again) == terms(dim)


@pytest.mark.parametrize(
    "use",
    [
        lambda: B < 3,
        lambda: H <= B,
        lambda: B > B,
        lambda: B >= 1,
        lambda: bool(B),
        lambda: int(B),
        lambda: range(B),
        lambda: B + "x",
        lambda: B // 2.0,
        lambda: 2.0 - B,
        SizeExpr,
    ],
)
def test_undefined_uses_are_type_errors(use) -> None:
    with pytest.raises(TypeError):
        use()


def test_errors_of_evaluate_say_what_is_missing() -> None:
    with pytest.raises(
        UnboundSizeError, match="variable H has no value; bound are: B, N"
    ) as caught:
        evaluate(B + H, {"N": 1, "B": 2})
    assert isinstance(caught.value, KeyError)
    with pytest.raises(ZeroDivisionError, match="B//H divides by zero: H is 0"):
        evaluate(B // H, {"B": 1, "H": 0})


@pytest.mark.parametrize("divide", [floor_div, modulo])
def test_division_by_zero(divide) -> None:
    with pytest.raises(ZeroDivisionError):
        divide(B, 0)
