"""Parameters and their initializers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import gluon, init, nd
from graphc.errors import (
    ArgumentError,
    AutogradError,
    DeferredInitializationError,
    ShapeError,
    UninitializedError,
    UnknownNameError,
)


def made(shape: Any = (2, 3), name: str = "weight", how: Any = None, **kwargs: Any) -> Any:
    parameter = gluon.Parameter(name, shape=shape, **kwargs)
    parameter.initialize(default_init=how)
    return parameter


def test_reading_too_early() -> None:
    with pytest.raises(UninitializedError, match="weight has not been initialized"):
        gluon.Parameter("weight", shape=(2,)).data()
    with pytest.raises(DeferredInitializationError, match=r"\(2, 0\)"):
        made((2, -1), allow_deferred_init=True).data()
    with pytest.raises(ArgumentError, match="cannot be initialized"):
        made((2, 0))


def test_shape_is_completed_but_not_changed() -> None:
    parameter = made((2, 0), allow_deferred_init=True)
    parameter.shape = (2, 5)
    parameter.finish_deferred()
    assert parameter.data().shape == (2, 5)
    with pytest.raises(ShapeError, match=r"\(2, 5\).*\(3, 5\)"):
        parameter.shape = (3, 5)


def test_set_data_keeps_identity_and_completes_a_deferred_one() -> None:
    parameter = made()
    array = parameter.data()
    parameter.set_data(nd.ones((2, 3)) * 4)
    assert parameter.data() is array and (array.asnumpy() == 4).all()
    with pytest.raises(ShapeError, match=r"\(3, 2\)"):
        parameter.set_data(nd.ones((3, 2)))
    deferred = made((0, 3), allow_deferred_init=True)
    deferred.set_data(np.zeros((4, 3)))
    assert deferred.shape == (4, 3)


def test_grad_req_and_zero_grad() -> None:
    parameter = made()
    parameter.grad()[:] = 2
    parameter.zero_grad()
    assert (parameter.grad().asnumpy() == 0).all()
    parameter.grad_req = "null"
    with pytest.raises(AutogradError, match="grad_req is 'null'"):
        parameter.grad()
    with pytest.raises(ArgumentError, match="'write'"):
        parameter.grad_req = "wrte"


def test_grad_req_add_accumulates() -> None:
    parameter = made(grad_req="add")
    for _ in range(2):
        with graphc.autograd.record():
            loss = (parameter.data() * 3).sum()
        loss.backward()
    assert (parameter.grad().asnumpy() == 6).all()


def test_constant_is_not_trained() -> None:
    constant = gluon.Constant("const", [[1, 2], [3, 4]])
    constant.initialize()
    np.testing.assert_array_equal(constant.data().asnumpy(), [[1, 2], [3, 4]])
    constant.grad_req = "write"
    assert constant.grad_req == "null"


def test_contexts() -> None:
    parameter = made()
    assert parameter.list_ctx() == [graphc.cpu()]
    assert len(parameter.list_data()) == len(parameter.list_grad()) == 1
    parameter.reset_ctx([graphc.cpu(0), graphc.cpu(1)])
    assert parameter.list_ctx() == [graphc.cpu(0), graphc.cpu(1)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bias", 0), ("gamma", 1), ("beta", 0), ("running_mean", 0), ("running_var", 1)],
)
def test_names_choose_the_initializer(name: str, expected: int) -> None:
    values = made((50,), f"layer0_{name}", "xavier").data().asnumpy()
    assert (values == expected).all()


@pytest.mark.parametrize(
    ("how", "low", "high", "sigma"),
    [
        (None, -0.07, 0.07, 0.07 / 3**0.5),
        ("uniform", -0.07, 0.07, 0.07 / 3**0.5),
        (init.Normal(0.5), -4, 4, 0.5),
        # sqrt(3 / ((200 + 300) / 2)) is the half width of the uniform draws.
        ("xavier", -(0.012**0.5), 0.012**0.5, 0.012**0.5 / 3**0.5),
        (init.Xavier("gaussian", "in", 2), -1, 1, (2 / 300) ** 0.5),
        (init.MSRAPrelu("out", 0.0), -1, 1, (2 / 200) ** 0.5),
    ],
)
def test_random_initializers(how: Any, low: float, high: float, sigma: float) -> None:
    values = made((200, 300), how=how).data().asnumpy()
    assert low <= values.min() and values.max() <= high
    assert abs(values.mean()) < 0.02 * sigma
    assert values.std() == pytest.approx(sigma, rel=0.02)


def test_orthogonal_rows() -> None:
    values = made((4, 10), how=init.Orthogonal(scale=2)).data().asnumpy()
    np.testing.assert_allclose(values @ values.T, 4 * np.eye(4), atol=1e-5)


def test_constant_initializers() -> None:
    assert (made(how=init.Constant(2.5)).data().asnumpy() == 2.5).all()
    assert (made(how=init.One()).data().asnumpy() == 1).all()
    assert (made(how="zeros").data().asnumpy() == 0).all()
    values = made(how=init.Constant(np.arange(6).reshape(2, 3))).data().asnumpy()
    np.testing.assert_array_equal(values, np.arange(6).reshape(2, 3))


def test_own_initializer_comes_before_the_default_and_ignores_the_name() -> None:
    values = made((3,), "bias", "zeros", init=init.Constant(7)).data().asnumpy()
    assert (values == 7).all()


def test_own_initializer_class() -> None:
    @init.register
    class Halves(init.Initializer):
        """Fills in place, as MXNet's users write it."""

        def _init_weight(self, name: str, arr: Any) -> None:
            arr[:] = nd.ones(arr.shape) / 2

    assert (made(how="halves").data().asnumpy() == 0.5).all()


def test_mixed() -> None:
    mixed = init.Mixed([".*bias", ".*"], [init.Zero(), init.One()])
    array = nd.zeros((2,))
    mixed("dense_weight", array)
    assert (array.asnumpy() == 1).all()


def test_seed_and_reinitialization() -> None:
    def drawn() -> np.ndarray:
        graphc.random.seed(5)
        return made((20,)).data().asnumpy()

    np.testing.assert_array_equal(drawn(), drawn())
    parameter = made((20,))
    before = parameter.data().asnumpy()
    parameter.initialize()
    np.testing.assert_array_equal(parameter.data().asnumpy(), before)
    parameter.initialize(force_reinit=True)
    assert (parameter.data().asnumpy() != before).any()


def test_unknown_initializer() -> None:
    with pytest.raises(UnknownNameError, match="'xavier'"):
        made(how="xavir")
    with pytest.raises(ArgumentError, match="rnd_type"):
        init.Xavier(rnd_type="gausian")
    with pytest.raises(ShapeError, match="2 axes"):
        made((3,), how="xavier")


def test_setattr_for_all() -> None:
    net = gluon.nn.Dense(2, in_units=2)
    net.collect_params().setattr("lr_mult", 0.5)
    assert net.weight.lr_mult == net.bias.lr_mult == 0.5
    with pytest.raises(ArgumentError, match="'grad_req'"):
        net.collect_params().setattr("gradreq", "null")
