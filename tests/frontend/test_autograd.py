"""The tape: scopes, backward, grad to any order, requests, writes, custom gradients."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from graphc import autograd, nd
from graphc.errors import ArgumentError, AutogradError, ShapeError

Function = Callable[[nd.NDArray], nd.NDArray]


def leaf(value: object, dtype: str = "float64") -> nd.NDArray:
    x = nd.array(value, dtype=dtype)
    x.attach_grad()
    return x


def numeric(function: Function, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Return the gradient of ``sum(function(x))`` by central differences."""
    found = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            ends.append(float(function(nd.array(moved, dtype="float64")).sum().asscalar()))
        found[index] = (ends[0] - ends[1]) / (2 * step)
    return found


def derivative(function: Function) -> Function:
    """Return the gradient of ``sum(function(x))`` as a function that can be recorded."""

    def gradient(x: nd.NDArray) -> nd.NDArray:
        if x._entry is None and x._leaf is None:
            x.attach_grad()
        with autograd.record():
            return autograd.grad(function(x), x, create_graph=True)

    return gradient


LABEL = nd.array([0, 2])
FUNCTIONS: dict[str, Function] = {
    "tanh": nd.tanh,
    "sin": nd.sin,
    "sigmoid": nd.sigmoid,
    "exp_log": lambda x: nd.exp(x) * nd.log(x * x + 1),
    "division": lambda x: x / (1 + x * x),
    "cross_entropy": lambda x: nd.softmax_cross_entropy(x, LABEL),
    "softmax": lambda x: nd.softmax(x, axis=-1) * nd.array([[1, 2, 3]], dtype="float64"),
    "log_softmax": lambda x: nd.log_softmax(x)[:, 1],
    "dot": lambda x: nd.dot(x, x, transpose_b=True),
    "mean_square": lambda x: (x * x).mean(axis=1) * x[:, 0],
    "reshape": lambda x: (x.reshape((3, 2)) ** 3)[1:],
    "take": lambda x: nd.take(x * x, nd.array([1, 1, 0]), axis=1) ** 2,
    "concat": lambda x: nd.concat(x * x, x.T.reshape((2, 3)) ** 3, dim=0),
    "max": lambda x: nd.max(x * x * x, axis=1),
    "norm": lambda x: nd.norm(x, axis=1),
    "L2": lambda x: nd.L2Normalization(x) * nd.array([[1, 2, 3]], dtype="float64"),
    "pick": lambda x: nd.pick(x, LABEL) ** 3,
    "layer_norm": lambda x: (
        nd.LayerNorm(x, nd.array([1, 2, 3], dtype="float64"), nd.zeros((3,), dtype="float64")) ** 2
    ),
    "convolution": lambda x: nd.Convolution(
        x.reshape((1, 1, 2, 3)), (x * x).reshape((3, 1, 1, 2)), no_bias=True
    ),
    "leaky": lambda x: nd.LeakyReLU(x, slope=0.1) * x,
    "gelu": nd.gelu,
    "tile": lambda x: nd.tile(x, (2, 2)) ** 2,
    "stack": lambda x: nd.stack(x, x * x, axis=1) ** 2,
    "slice": lambda x: nd.slice_axis(x, axis=1, begin=1, end=3) ** 3,
    "index": lambda x: x[[1, 0], [0, 2]] ** 3,
    "smooth_l1": lambda x: nd.smooth_l1(x * x, scalar=2.0),
}
POINT = np.array([[0.3, -0.7, 1.1], [-1.3, 0.45, 0.8]])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_order(name: str) -> None:
    x = leaf(POINT)
    with autograd.record():
        y = FUNCTIONS[name](x)
    y.backward()
    np.testing.assert_allclose(
        x.grad.asnumpy(), numeric(FUNCTIONS[name], POINT), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_order(name: str) -> None:
    weight = nd.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]], dtype="float64")

    def first(x: nd.NDArray) -> nd.NDArray:
        return derivative(FUNCTIONS[name])(x) * weight

    x = leaf(POINT)
    with autograd.record():
        y = first(x)
    if y._entry is None:
        pytest.fail("the gradient was not recorded")
    y.backward()
    np.testing.assert_allclose(x.grad.asnumpy(), numeric(first, POINT), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["tanh", "sin", "cross_entropy", "dot"])
def test_third_order(name: str) -> None:
    second = derivative(lambda x: derivative(FUNCTIONS[name])(x) ** 2)
    x = leaf(POINT)
    with autograd.record():
        y = second(x)
    y.backward()
    np.testing.assert_allclose(x.grad.asnumpy(), numeric(second, POINT), rtol=1e-4, atol=1e-5)


# -- scopes ------------------------------------------------------------------------------------


def test_scopes_nest_and_end() -> None:
    def state() -> tuple[bool, bool]:
        return autograd.is_recording(), autograd.is_training()

    assert state() == (False, False)
    with autograd.record():
        assert state() == (True, True)
        with autograd.pause():
            assert state() == (False, False)
        with autograd.predict_mode():
            assert state() == (True, False)
        with autograd.record(train_mode=False):
            assert state() == (True, False)
    with autograd.train_mode():
        assert state() == (False, True)
    with pytest.raises(KeyError), autograd.record():
        raise KeyError
    assert state() == (False, False)
    assert autograd.set_recording(True) is False
    assert autograd.set_recording(False) is True
    assert autograd.set_training(True) is False
    assert autograd.set_training(False) is True


def test_paused_operations_are_constants() -> None:
    x = leaf([2.0])
    with autograd.record():
        with autograd.pause():
            factor = x * x
        y = factor * x
    y.backward()
    assert float(x.grad) == 4.0


# -- backward ----------------------------------------------------------------------------------


def test_head_gradient_and_several_heads() -> None:
    x = leaf([1.0, 2.0])
    with autograd.record():
        y, z = x * x, 3 * x
    y.backward(nd.array([10.0, 1.0], dtype="float64"))
    np.testing.assert_array_equal(x.grad.asnumpy(), [20, 4])
    with autograd.record():
        y, z = x * x, 3 * x
    autograd.backward([y, z], [None, nd.array([1.0, 2.0])])
    np.testing.assert_array_equal(x.grad.asnumpy(), [5, 10])
    with autograd.record():
        y = x * x
    with pytest.raises(ShapeError, match="head gradient"):
        y.backward(nd.ones((3,)))
    with pytest.raises(ArgumentError, match="2 head gradients"):
        autograd.backward([y], [None, None])


def test_grad_requests() -> None:
    x, y, z = nd.ones((2,)), nd.ones((2,)), nd.ones((2,))
    x.attach_grad("add")
    y.attach_grad()
    z.attach_grad("null")
    buffer = x.grad
    for _ in range(3):
        with autograd.record():
            total = 2 * x + 3 * y + 4 * z
        total.backward()
    assert x.grad is buffer
    np.testing.assert_array_equal(x.grad.asnumpy(), [6, 6])
    np.testing.assert_array_equal(y.grad.asnumpy(), [3, 3])
    assert z.grad is None and (x.grad_req, z.grad_req) == ("add", "null")
    x.zero_grad()
    assert x.grad.asnumpy().sum() == 0
    with pytest.raises(ArgumentError, match="Did you mean 'write'"):
        x.attach_grad("wrte")


def test_mark_variables() -> None:
    x, buffer = nd.array([3.0]), nd.zeros((1,))
    autograd.mark_variables([x], [buffer])
    with autograd.record():
        y = x * x
    y.backward()
    assert float(buffer) == 6.0 and x.grad is buffer
    with pytest.raises(ShapeError, match="does not fit"):
        autograd.mark_variables(x, nd.zeros((2,)))


def test_attach_grad_cuts_the_graph() -> None:
    x = leaf([2.0])
    with autograd.record():
        y = x * x
        y.attach_grad()
        z = y * x
    z.backward()
    assert (float(y.grad), float(x.grad)) == (2.0, 4.0)


def test_detach_and_block_grad() -> None:
    x = leaf([3.0])
    with autograd.record():
        y = x.detach() * x + nd.BlockGrad(x * x) + nd.stop_gradient(x)
    y.backward()
    assert float(x.grad) == 3.0


def test_views_under_record_carry_gradients() -> None:
    x = leaf(np.arange(6.0).reshape(2, 3))
    with autograd.record():
        y = (x[1] * 2).sum() + x[0, 2] * 5 + x.reshape((-1,))[4] + x[0:1].sum()
    y.backward()
    np.testing.assert_array_equal(x.grad.asnumpy(), [[1, 1, 6], [2, 3, 2]])


def test_a_loop_with_control_flow() -> None:
    x = leaf([2.0])
    with autograd.record():
        y = x
        while float(y) < 100:
            y = y * x
    y.backward()
    assert float(x.grad) == 7 * 2.0**6


def test_float32_gradient_stays_float32_through_mixed_types() -> None:
    x = leaf([1.0, 2.0], dtype="float32")
    with autograd.record():
        y = (x * nd.array([3, 4], dtype="int32")).astype("float64").sum()
    y.backward()
    assert x.grad.dtype is np.float32
    np.testing.assert_array_equal(x.grad.asnumpy(), [3, 4])


def test_retain_graph() -> None:
    x = leaf([3.0])
    with autograd.record():
        y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert float(x.grad) == 6.0
    with pytest.raises(AutogradError, match=r"already called[\s\S]*retain_graph=True"):
        y.backward()


def test_backward_without_record() -> None:
    x = leaf([3.0])
    for head in (x * x, x, nd.ones((2,))):
        with pytest.raises(AutogradError, match=r"autograd.record[\s\S]*test_autograd.py"):
            head.backward()


# -- writes ------------------------------------------------------------------------------------


def test_in_place_writes_under_record() -> None:
    x = leaf([1.0, 2.0])
    with autograd.record():
        y = x * x
        for write in (lambda: y.__iadd__(1), lambda: y.__setitem__(0, 3.0), lambda: x.__imul__(2)):
            with pytest.raises(AutogradError, match=r"in-place writes.*test_autograd.py"):
                write()
        with pytest.raises(AutogradError, match="lose the gradient"):
            nd.zeros((2,))[0] = y[0]
    np.testing.assert_array_equal(x.asnumpy(), [1, 2])


def test_a_constant_may_be_overwritten_by_what_is_recorded() -> None:
    x, total = leaf([1.0, 2.0]), nd.zeros((1,), dtype="float64")
    with autograd.record():
        total += (x * x).sum()
    total.backward()
    np.testing.assert_array_equal(x.grad.asnumpy(), [2, 4])


@pytest.mark.parametrize("through", [lambda c: c, lambda c: c[0:1], lambda c: c.reshape((-1,))])
def test_overwriting_what_the_gradient_needs(through: Function) -> None:
    x, constant = leaf([2.0]), nd.array([3.0], dtype="float64")
    with autograd.record():
        y = x * through(constant)
    constant[:] = 100
    with pytest.raises(AutogradError, match=r"overwritten at test_autograd.py"):
        y.backward()


def test_writing_after_the_gradient_is_fine() -> None:
    x = leaf([2.0])
    for _ in range(3):
        with autograd.record():
            y = x * x
        y.backward()
        x -= 0.25 * x.grad
    assert float(x) == 0.25


# -- grad --------------------------------------------------------------------------------------


def test_grad_leaves_grad_alone() -> None:
    x, w = leaf([2.0]), leaf([5.0])
    with autograd.record():
        y = x * x * w
    found = autograd.grad(y, [x, w])
    assert [float(v) for v in found] == [20.0, 4.0]
    assert float(x.grad) == 0.0
    assert isinstance(autograd.grad(_recorded(x), x), nd.NDArray)


def _recorded(x: nd.NDArray) -> nd.NDArray:
    with autograd.record():
        return x * x


def test_grad_of_something_in_between() -> None:
    x = leaf([2.0])
    with autograd.record():
        y = x * x
        z = y * y
    assert float(autograd.grad(z, y, retain_graph=True)) == 8.0
    assert float(autograd.grad(z, x)) == 32.0


def test_grad_of_what_the_head_does_not_depend_on() -> None:
    x, w = leaf([2.0]), leaf([5.0])
    with pytest.raises(AutogradError, match="do not depend on variable 1"):
        autograd.grad(_recorded(x), [x, w])
    with pytest.raises(ArgumentError, match="at least one variable"):
        autograd.grad(_recorded(x), [])


def test_gradient_penalty() -> None:
    x, w = nd.array([[1.0, 2.0]], dtype="float64"), leaf([[3.0], [4.0]])
    x.attach_grad()
    with autograd.record():
        score = nd.tanh(nd.dot(x, w))
        (slope,) = autograd.grad(score, [x], create_graph=True)
        penalty = (nd.norm(slope) - 1) ** 2
    penalty.backward()

    def of_weight(weight: nd.NDArray) -> nd.NDArray:
        value = nd.tanh(nd.dot(x, weight))
        return (nd.norm((1 - value * value) * weight.T) - 1) ** 2

    np.testing.assert_allclose(
        w.grad.asnumpy(), numeric(of_weight, np.array([[3.0], [4.0]])), rtol=1e-4, atol=1e-9
    )


def test_backward_leaves_nothing_to_the_garbage_collector() -> None:
    x = leaf([2.0])
    with autograd.record():
        y = x * x
        z = y * y
    gone = [weakref.ref(y._array), weakref.ref(z._array)]
    z.backward()
    gc.disable()
    try:
        del y, z
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()
