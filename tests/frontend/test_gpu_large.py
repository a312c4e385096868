"""Arrays that indices of 32 bits do not reach, on an emulated GPU."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc import nd
from graphc.errors import BindError
from graphc.runtime import device_program

pytestmark = pytest.mark.usefixtures("emulated")
GPU = graphc.gpu(0)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let indices of 32 bits end where small arrays do."""
    monkeypatch.setattr(device_program, "MOST_COUNTED", 100)


@pytest.mark.usefixtures("narrow")
def test_large_arrays_are_refused_with_the_option_that_takes_them() -> None:
    x = nd.zeros((10, 10), ctx=GPU)
    assert (x + 1).sum().asscalar() == 100
    with pytest.raises(BindError, match=r"add.* counts 110 .*32 bits.*test_gpu_large.py(.|\n)*=64"):
        nd.zeros((11, 10), ctx=GPU) + 1


@pytest.mark.usefixtures("narrow")
def test_many_terms_of_small_arrays_are_refused() -> None:
    apart = graphc.compile(lambda x, y: nd.abs(x - y).sum())
    with pytest.raises(BindError, match="counts 400"):
        apart(nd.ones((20, 1), ctx=GPU), nd.ones((1, 20), ctx=GPU))


@pytest.mark.usefixtures("narrow")
def test_64_bits_take_them() -> None:
    with graphc.options(index_bits=64):
        x = nd.array(np.arange(240, dtype=np.float32).reshape(12, 20), ctx=GPU)
        found = nd.dot(x, x.T).softmax().argmax(axis=1)
    assert found.asnumpy().tolist() == [11] * 12
