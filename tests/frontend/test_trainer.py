"""Trainer and optimizers against their formulas in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, gluon, lr_scheduler, nd, optimizer
from graphc.errors import ArgumentError, AutogradError, FileFormatError, UnknownNameError

START = np.linspace(-1, 1, 12).reshape(3, 4)
Arrays = dict[str, Any]


def slope(w: np.ndarray, t: int) -> np.ndarray:
    """Return a gradient that changes from step to step."""
    return np.cos(w * 3) * 2 + 0.1 * t


def clipped(g: np.ndarray, limit: float | None) -> np.ndarray:
    return g if limit is None else np.clip(g, -limit, limit)


def sgd(w: Any, g: Any, s: Arrays, t: int, lr: float, wd: float, clip: Any, momentum: float = 0
        ) -> Any:  # fmt: skip
    s["m"] = momentum * s.get("m", 0) - lr * (clipped(g, clip) + wd * w)
    return w + s["m"]


def nag(w: Any, g: Any, s: Arrays, t: int, lr: float, wd: float, clip: Any, momentum: float = 0
        ) -> Any:  # fmt: skip
    g = clipped(g, clip) + wd * w
    s["m"] = momentum * s.get("m", 0) - lr * g
    return w + momentum * s["m"] - lr * g


def adam(w: Any, g: Any, s: Arrays, t: int, lr: float, wd: float, clip: Any, beta1: float = 0.9,
         beta2: float = 0.999, epsilon: float = 1e-8) -> Any:  # fmt: skip
    g = clipped(g + wd * w, clip)
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    lr *= np.sqrt(1 - beta2**t) / (1 - beta1**t)
    return w - lr * s["m"] / (np.sqrt(s["v"]) + epsilon)


def adamw(w: Any, g: Any, s: Arrays, t: int, lr: float, wd: float, clip: Any) -> Any:
    return adam(w, clipped(g, clip), s, t, lr, 0, None) - lr * wd * w


def rmsprop(w: Any, g: Any, s: Arrays, t: int, lr: float, wd: float, clip: Any,
            gamma1: float = 0.9, gamma2: float = 0.9, epsilon: float = 1e-8,
            centered: bool = False, clip_weights: Any = None) -> Any:  # fmt: skip
    g = clipped(g + wd * w, clip)
    s["n"] = gamma1 * s.get("n", 0) + (1 - gamma1) * g * g
    if not centered:
        return clipped(w - lr * g / np.sqrt(s["n"] + epsilon), clip_weights)
    s["g"] = gamma1 * s.get("g", 0) + (1 - gamma1) * g
    s["d"] = gamma2 * s.get("d", 0) - lr * g / np.sqrt(s["n"] - s["g"] ** 2 + epsilon)
    return clipped(w + s["d"], clip_weights)


def adagrad(w: Any, g: Any, s: Arrays, t: int, lr: float, wd: float, clip: Any,
            eps: float = 1e-7) -> Any:  # fmt: skip
    g = clipped(g, clip)
    s["h"] = s.get("h", 0) + g * g
    return w - lr * (g / np.sqrt(s["h"] + eps) + wd * w)


CASES: list[tuple[str, Callable[..., Any], Arrays]] = [
    ("sgd", sgd, {}),
    ("sgd", sgd, {"momentum": 0.9}),
    ("nag", nag, {"momentum": 0.8}),
    ("nag", nag, {}),
    ("adam", adam, {}),
    ("Adam", adam, {"beta1": 0.5, "beta2": 0.9, "epsilon": 1e-3}),
    ("adamw", adamw, {}),
    ("rmsprop", rmsprop, {}),
    ("rmsprop", rmsprop, {"gamma1": 0.7, "gamma2": 0.6, "epsilon": 1e-2, "centered": True}),
    ("rmsprop", rmsprop, {"clip_weights": 0.5}),
    ("adagrad", adagrad, {"eps": 1e-3}),
]


def weight(dtype: str = "float64", **kwargs: Any) -> Any:
    parameter = gluon.Parameter("weight", shape=START.shape, dtype=dtype, **kwargs)
    parameter.initialize(graphc.init.Constant(START))
    return parameter


def go_back(parameter: Any, gradient: np.ndarray) -> None:
    with autograd.record():
        loss = (parameter.data() * nd.array(gradient, dtype=gradient.dtype)).sum()
    loss.backward()


@pytest.mark.parametrize("common", [{}, {"wd": 0.1, "clip_gradient": 0.7}], ids=["plain", "wd"])
@pytest.mark.parametrize(("name", "formula", "own"), CASES)
def test_optimizer_follows_its_formula(
    name: str, formula: Callable[..., Any], own: Arrays, common: Arrays
) -> None:
    parameter = weight()
    trainer = gluon.Trainer([parameter], name, {"learning_rate": 0.05, **own, **common})
    expected, state = START.copy(), {}
    for t in range(1, 5):
        gradient = slope(expected, t)
        go_back(parameter, gradient * 8)
        trainer.step(8)
        expected = formula(
            expected, gradient, state, t, 0.05, common.get("wd", 0.0),
            common.get("clip_gradient"), **own,
        )  # fmt: skip
        np.testing.assert_allclose(parameter.data().asnumpy(), expected, rtol=1e-9, atol=1e-12)


def test_float32_keeps_its_type() -> None:
    parameter = weight("float32")
    trainer = gluon.Trainer([parameter], "adam")
    go_back(parameter, np.ones(START.shape, np.float32))
    trainer.step(1)
    assert parameter.dtype is np.float32
    np.testing.assert_allclose(parameter.data().asnumpy(), START - 0.001, atol=1e-6)


def test_multipliers_and_rates_change_without_recompiling() -> None:
    slow, fast = weight(lr_mult=0.5), weight(wd_mult=0.0)
    schedule = lr_scheduler.FactorScheduler(step=1, factor=0.5)
    trainer = gluon.Trainer(
        [slow, fast], "sgd", {"learning_rate": 0.1, "wd": 0.3, "lr_scheduler": schedule}
    )
    expected = [START.copy(), START.copy()]
    before = graphc.stats()["programs_traced"]
    for t in range(1, 4):
        rate = schedule(t)
        for parameter in (slow, fast):
            go_back(parameter, np.ones(START.shape))
        trainer.step(t)
        expected[0] -= 0.5 * rate * (1 / t + 0.3 * expected[0])
        expected[1] -= rate * (1 / t)
        np.testing.assert_allclose(slow.data().asnumpy(), expected[0], rtol=1e-9)
        np.testing.assert_allclose(fast.data().asnumpy(), expected[1], rtol=1e-9)
    # One program for the updates; the rest were those of the test's own gradients, if any.
    assert graphc.stats()["programs_traced"] - before == 1
    with pytest.raises(ArgumentError, match="lr_scheduler"):
        trainer.set_learning_rate(0.5)


def test_set_learning_rate_and_settings() -> None:
    parameter = weight()
    trainer = gluon.Trainer([parameter], "sgd", {"learning_rate": 0.1, "momentum": 0.0})
    trainer.set_learning_rate(0.25)
    assert trainer.learning_rate == 0.25
    go_back(parameter, np.ones(START.shape))
    trainer.step(1)
    np.testing.assert_allclose(parameter.data().asnumpy(), START - 0.25)


def test_stale_gradients() -> None:
    used, unused = weight(), weight()
    trainer = gluon.Trainer([used, unused], "sgd", {"learning_rate": 1.0})
    go_back(used, np.ones(START.shape))
    with pytest.raises(AutogradError, match="ignore_stale_grad"):
        trainer.step(1)
    trainer.step(1, ignore_stale_grad=True)
    np.testing.assert_allclose(used.data().asnumpy(), START - 1)
    np.testing.assert_allclose(unused.data().asnumpy(), START)
    used.zero_grad()
    with pytest.raises(AutogradError, match="2 parameters"):
        trainer.step(1)


def test_parameters_without_gradient_stay() -> None:
    parameter, frozen = weight(), weight(grad_req="null")
    trainer = gluon.Trainer({"a": parameter, "b": frozen}, "sgd", {"learning_rate": 1.0})
    go_back(parameter, np.ones(START.shape))
    trainer.step(1)
    np.testing.assert_allclose(frozen.data().asnumpy(), START)


@pytest.mark.parametrize("name", ["states.params", "states.safetensors"])
def test_states_survive_a_file(tmp_path: Path, name: str) -> None:
    def trained(steps: int, path: Path | None = None) -> Any:
        parameter = weight()
        trainer = gluon.Trainer([parameter], "adam", {"learning_rate": 0.1})
        for t in range(1, steps + 1):
            if t == 3 and path is not None:
                trainer.save_states(path)
                trainer = gluon.Trainer([parameter], "adam", {"learning_rate": 0.1})
                trainer.load_states(path)
            go_back(parameter, slope(START, t))
            trainer.step(1)
        return parameter.data().asnumpy()

    np.testing.assert_array_equal(trained(5, tmp_path / name), trained(5))


def test_states_of_another_network(tmp_path: Path) -> None:
    parameter = weight()
    trainer = gluon.Trainer([parameter], "adam")
    go_back(parameter, START)
    trainer.step(1)
    trainer.save_states(tmp_path / "a.params")
    other = gluon.Trainer([weight()], "sgd", {"momentum": 0.9})
    with pytest.raises(FileFormatError, match="another optimizer"):
        other.load_states(tmp_path / "a.params")


@pytest.mark.parametrize(
    "arrays",
    [
        {"a": np.ones(2)},
        {"num_update": np.ones(1, np.int64), "": np.ones(2)},
        {"num_update": np.ones(1, np.int64), "1x.0": np.ones(2)},
        {"num_update": np.ones(1, np.int64), "count.x": np.ones(1, np.int64)},
        {"num_update": np.ones(1)},
        {"num_update": np.ones(0, np.int64)},
        {"num_update": np.ones(1, np.int64), "count.0": np.ones(3, np.int64)},
    ],
)
def test_a_file_that_holds_no_states(tmp_path: Path, arrays: dict[str, Any]) -> None:
    nd.save(str(tmp_path / "a"), {n: nd.array(a, dtype=a.dtype) for n, a in arrays.items()})
    with pytest.raises(FileFormatError, match="is no file of optimizer states"):
        gluon.Trainer([weight()], "adam").load_states(tmp_path / "a")


def test_states_take_the_type_of_the_weight(tmp_path: Path) -> None:
    parameter = weight("float64")
    trainer = gluon.Trainer([parameter], "adam")
    go_back(parameter, START)
    trainer.step(1)
    trainer.save_states(tmp_path / "a")
    other = weight("float32")
    trainer = gluon.Trainer([other], "adam")
    trainer.load_states(tmp_path / "a")
    assert {s.dtype.name for s in trainer.state(0)} == {"float32"}


def test_create_and_register() -> None:
    @optimizer.register
    class Signs(optimizer.Optimizer):
        """Steps by the sign of the gradient."""

        def update(self, weight: Any, grad: Any, state: Any, lr: Any, wd: Any, t: Any) -> Any:
            return weight - lr * grad / abs(grad), ()

    parameter = weight()
    trainer = gluon.Trainer([parameter], optimizer.create("signs", learning_rate=0.5))
    go_back(parameter, -np.ones(START.shape) * 7)
    trainer.step(1)
    np.testing.assert_allclose(parameter.data().asnumpy(), START + 0.5)


class Slowing(optimizer.Optimizer):
    """Divides by the number of the update, which is float64."""

    def init_state(self, weight: np.ndarray) -> tuple[Any, ...]:
        return (nd.zeros(weight.shape),)

    def update(self, weight: Any, grad: Any, state: Any, lr: Any, wd: Any, t: Any) -> Any:
        return weight - grad / t, (state[0] + t,)


def test_an_update_in_another_type_is_cast_to_the_weight() -> None:
    parameter = weight("float32")
    trainer = gluon.Trainer([parameter], Slowing())
    for _ in range(2):
        go_back(parameter, np.ones(START.shape, np.float32))
        trainer.step(1)
    np.testing.assert_allclose(parameter.data().asnumpy(), START - 1.5, rtol=1e-6)
    (state,) = trainer.state(0)
    assert state.dtype.name == "float32"
    np.testing.assert_array_equal(state._array, np.full(START.shape, 3))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda w, s: (nd.sum(w, axis=0), s), "weight is f64.3, 4. and cannot become f64.4."),
        (lambda w, s: (w, ()), "Slowing.*returned 0 states, init_state made 1"),
    ],
)
def test_an_update_that_does_not_fit(returned: Any, message: str) -> None:
    class Slowing2(Slowing):
        def update(self, weight: Any, grad: Any, state: Any, lr: Any, wd: Any, t: Any) -> Any:
            return returned(weight, state)

    parameter = weight()
    go_back(parameter, START)
    with pytest.raises(graphc.errors.GraphcError, match=message):
        gluon.Trainer([parameter], Slowing2()).step(1)


def test_a_network_is_cast_between_steps() -> None:
    parameter = weight("float64")
    trainer = gluon.Trainer([parameter], "adam", {"learning_rate": 0.1})
    expected, state = START.copy(), {}
    for t, dtype in enumerate(("float64", "float32", "float64"), 1):
        parameter.cast(dtype)
        gradient = slope(expected, t)
        go_back(parameter, gradient.astype(dtype))
        trainer.step(1)
        expected = adam(expected, gradient, state, t, 0.1, 0.0, None)
        assert parameter.data().dtype is np.dtype(dtype).type
        np.testing.assert_allclose(parameter.data().asnumpy(), expected, rtol=1e-5, atol=1e-6)
        assert {s.dtype.name for s in trainer.state(0)} == {dtype}


def test_mistakes() -> None:
    parameter = weight()
    with pytest.raises(UnknownNameError, match="'adam'"):
        gluon.Trainer([parameter], "adm")
    with pytest.raises(ArgumentError, match="'momentum'"):
        gluon.Trainer([parameter], "sgd", {"momentun": 0.9})
    with pytest.raises(ArgumentError, match="collect_params"):
        gluon.Trainer([], "sgd")
    with pytest.raises(ArgumentError, match="NDArray"):
        gluon.Trainer([nd.ones((2,))], "sgd")
    with pytest.raises(ArgumentError, match="batch size"):
        go_back(parameter, START)
        gluon.Trainer([parameter], "sgd").step(0)


@pytest.mark.parametrize(
    ("name", "argument", "value", "shown"),
    [
        ("sgd", "learning_rate", "0.1", "got '0.1', a str"),
        ("sgd", "learning_rate", [0.1], "got \\[0.1\\], a list"),
        ("sgd", "learning_rate", float("nan"), "got nan"),
        ("sgd", "momentum", None, "got None"),
        ("sgd", "wd", {}, "got {}, a dict"),
        ("sgd", "clip_gradient", "1", "got '1', a str"),
        ("adam", "beta1", "a", "got 'a', a str"),
        ("rmsprop", "gamma2", None, "got None"),
        ("adagrad", "eps", "x", "got 'x', a str"),
    ],
)
def test_a_setting_that_is_no_number(name: str, argument: str, value: Any, shown: str) -> None:
    kind = type(optimizer.create(name)).__name__
    with pytest.raises(
        ArgumentError, match=f"^{argument} of {kind} must be a number, {shown} .*test_trainer.py"
    ):
        gluon.Trainer([weight()], name, {argument: value})


def test_rates_that_are_no_numbers_when_they_are_used() -> None:
    parameter = weight()
    trainer = gluon.Trainer([parameter], "sgd")
    with pytest.raises(ArgumentError, match="learning_rate of SGD must be a number, got None"):
        trainer.set_learning_rate(None)
    go_back(parameter, START)
    parameter.lr_mult = "2"
    with pytest.raises(ArgumentError, match="lr_mult of weight must be a number, got '2'"):
        trainer.step(1)
    forgotten = gluon.Trainer([parameter], "sgd", {"lr_scheduler": lambda n: None})
    with pytest.raises(ArgumentError, match="the result of function must be a number, got None"):
        forgotten.learning_rate  # noqa: B018


def test_negative_rates_climb_and_limits_that_are_not_positive_limit_nothing() -> None:
    for limit in (0, -1):
        parameter = weight()
        settings = {"learning_rate": -0.5, "clip_gradient": limit}
        trainer = gluon.Trainer([parameter], "sgd", settings)
        go_back(parameter, np.full(START.shape, 3.0))
        trainer.step(1)
        np.testing.assert_allclose(parameter.data().asnumpy(), START + 1.5)


def test_clip_global_norm_and_splitting() -> None:
    arrays = [nd.ones((2, 2)) * 3, nd.ones((4,)) * 4]
    assert gluon.utils.clip_global_norm(arrays, 1.0) == pytest.approx(10)
    assert sum(float((a * a).sum()) for a in arrays) == pytest.approx(1, rel=1e-5)
    parts = gluon.utils.split_data(nd.arange(10).reshape((5, 2)), 2, even_split=False)
    assert [p.shape for p in parts] == [(2, 2), (3, 2)]
    with pytest.raises(ArgumentError, match="evenly"):
        gluon.utils.split_data(nd.ones((5, 2)), 2)
    loaded = gluon.utils.split_and_load(np.ones((4, 2), np.float32), [graphc.cpu()])
    assert loaded[0].shape == (4, 2)
