"""A program that reads an element of an axis is not used where that axis is empty."""

from __future__ import annotations

import pytest

import graphc
from graphc import nd
from graphc.errors import IndexRangeError


@pytest.mark.parametrize("index", [0, -1])
def test_an_element_of_an_axis_that_becomes_empty(index: int) -> None:
    program = graphc.compile(lambda x: x[index] * 2)
    assert program(nd.ones((3, 4))).shape == (4,)
    assert program(nd.ones((5, 4))).shape == (4,)
    assert len(program.traces) == 1
    with pytest.raises(IndexRangeError, match="axis 0 of size 0"):
        program(nd.zeros((0, 4)))


def test_the_fact_holds_for_unified_sizes_too() -> None:
    program = graphc.compile(lambda x, y: (x + y)[0] + y[0])
    assert program(nd.ones((3, 4)), nd.ones((3, 4))).shape == (4,)
    with pytest.raises(IndexRangeError):
        program(nd.zeros((0, 4)), nd.zeros((0, 4)))
