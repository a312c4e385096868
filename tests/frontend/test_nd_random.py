"""Random arrays: one seed, the right distributions, MXNet's signatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc.random
from graphc import nd
from graphc.errors import ArgumentError, DTypeError
from graphc.frontend import sampling
from graphc.runtime import random as streams

COUNT = 4000


@pytest.fixture(autouse=True)
def _seed() -> None:
    nd.random.seed(11)


DRAWS: dict[str, Callable[[], Any]] = {
    "uniform": lambda: nd.random.uniform(shape=(3, 4)),
    "normal": lambda: nd.random.normal(shape=(3, 4)),
    "randn": lambda: nd.random.randn(3, 4),
    "randint": lambda: nd.random.randint(0, 1000, shape=(3, 4)),
    "bernoulli": lambda: nd.random.bernoulli(0.5, shape=(30,)),
    "exponential": lambda: nd.random.exponential(shape=(3, 4)),
    "permutation": lambda: nd.random.permutation(30),
    "shuffle": lambda: nd.random.shuffle(nd.arange(30)),
    "multinomial": lambda: nd.random.multinomial(nd.ones((4,)) / 4, shape=30),
    "uniform_like": lambda: nd.random.uniform_like(nd.zeros((3, 4))),
    "normal_like": lambda: nd.random.normal_like(nd.zeros((3, 4))),
    "random_uniform": lambda: nd.random_uniform(low=0, high=1, shape=(3, 4)),
    "random_normal": lambda: nd.random_normal(loc=0, scale=1, shape=(3, 4)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_seed_repeats_and_the_stream_goes_on(name: str) -> None:
    first, second = DRAWS[name]().asnumpy(), DRAWS[name]().asnumpy()
    assert not (first == second).all()
    graphc.random.seed(11)
    assert (DRAWS[name]().asnumpy() == first).all()
    assert (DRAWS[name]().asnumpy() == second).all()
    nd.random.seed(12, ctx="all")
    assert not (DRAWS[name]().asnumpy() == first).all()


@pytest.mark.parametrize("name", DRAWS)
def test_each_draw_takes_one_key(name: str) -> None:
    DRAWS[name]()
    assert streams.state() == (11, 1)


def test_uniform() -> None:
    x = nd.random.uniform(-2, 4, shape=COUNT).asnumpy()
    assert x.dtype == np.float32 and -2 <= x.min() < -1.9 and 3.9 < x.max() < 4
    assert abs(x.mean() - 1) < 0.15
    assert nd.random.uniform().shape == (1,)
    assert nd.random.uniform(shape=(2,), dtype="float64").dtype is np.float64


def test_normal() -> None:
    x = nd.random.normal(3, 2, shape=(COUNT,)).asnumpy()
    assert abs(x.mean() - 3) < 0.15 and abs(x.std() - 2) < 0.15
    assert nd.random.randn(2, 3, loc=5.0, scale=0.0).asnumpy().tolist() == [[5] * 3] * 2
    with pytest.raises(ArgumentError, match="scale >= 0"):
        nd.random.normal(0, -1)


def test_parameters_may_be_arrays() -> None:
    low, high = nd.array([0, 10]), nd.array([1, 20])
    x = nd.random.uniform(low, high, shape=500).asnumpy()
    assert x.shape == (2, 500)
    assert x[0].min() >= 0 and x[0].max() <= 1 and x[1].min() >= 10 and x[1].max() <= 20
    assert nd.random.normal(low, 1.0).shape == (2,)
    assert nd.random.normal(0.0, high, shape=(3, 4)).shape == (2, 3, 4)


def test_integers() -> None:
    x = nd.random.randint(-3, 4, shape=(COUNT,)).asnumpy()
    assert x.dtype == np.int32 and sorted(set(x.tolist())) == list(range(-3, 4))
    assert nd.random.randint(0, 2, dtype="int64").dtype is np.int64
    with pytest.raises(ArgumentError, match="low < high"):
        nd.random.randint(3, 3)


def test_bernoulli_and_exponential() -> None:
    assert abs(nd.random.bernoulli(0.3, shape=COUNT).asnumpy().mean() - 0.3) < 0.05
    x = nd.random.exponential(2.0, shape=COUNT).asnumpy()
    assert x.min() >= 0 and abs(x.mean() - 2) < 0.2
    by_scale = nd.random.exponential(nd.array([1.0, 100.0]), shape=500).asnumpy()
    assert by_scale.shape == (2, 500) and by_scale[1].mean() > 50 * by_scale[0].mean()


def test_permutations() -> None:
    assert sorted(nd.random.permutation(50).asnumpy().tolist()) == list(range(50))
    rows = nd.arange(20).reshape((10, 2))
    shuffled = nd.random.shuffle(rows).asnumpy()
    assert (shuffled[:, 1] == shuffled[:, 0] + 1).all()
    assert sorted(shuffled[:, 0].tolist()) == list(range(0, 20, 2))


def test_multinomial() -> None:
    p = nd.array([[0.1, 0.2, 0.7], [1.0, 0.0, 0.0]])
    drawn, logs = nd.random.multinomial(p, shape=COUNT, get_prob=True)
    shares = np.bincount(drawn.asnumpy()[0], minlength=3) / COUNT
    assert abs(shares - [0.1, 0.2, 0.7]).max() < 0.05
    assert (drawn.asnumpy()[1] == 0).all() and drawn.dtype is np.int32
    taken = np.take_along_axis(np.log(p.asnumpy()[:1]), drawn.asnumpy()[:1], 1)
    np.testing.assert_allclose(logs.asnumpy()[:1], taken, rtol=1e-6)
    assert nd.sample_multinomial(p).shape == (2,)
    one, log = nd.random.multinomial(p[1], get_prob=True)
    assert (int(one), float(log)) == (0, 0.0)


def test_out() -> None:
    out = nd.zeros((5,))
    assert nd.random.normal(loc=7.0, scale=0.0, out=out) is out
    assert out.asnumpy().tolist() == [7] * 5
    assert nd.random.exponential(out=out) is out
    assert len(set(out.asnumpy().tolist())) == 5


def test_nothing_is_0d() -> None:
    for draw in (nd.random.uniform, nd.random.normal, nd.random.exponential):
        assert draw(shape=()).shape == (1,)


def test_a_class_of_probability_0_is_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even by a uniform number of 0, which comes once in 2**24."""
    zeros = lambda seed, counter, sizes: nd.zeros(sizes)  # noqa: E731
    monkeypatch.setattr(sampling.core, "random_uniform", zeros)
    assert nd.random.multinomial(nd.array([[0.0, 1.0], [0.0, 0.5]])).asnumpy().tolist() == [1, 1]


def test_types_that_are_not_drawn() -> None:
    with pytest.raises(DTypeError, match="float32 or float64"):
        nd.random.uniform(dtype="int32")
    with pytest.raises(DTypeError, match=r"'flaot32'[\s\S]*'float32'"):
        nd.random.normal(dtype="flaot32")
