"""Which device an array is on: from creation through operations, programs and gradients."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, cpu, gpu, nd, sym
from graphc.context import Context, cpu_pinned, current_context
from graphc.errors import AutogradError, BindError, DeviceError
from graphc.frontend.array import Array

ONE = cpu(1)


def ones(shape: Any = (2, 3), ctx: Context = ONE) -> Any:
    return nd.ones(shape, ctx=ctx)


# -- contexts ----------------------------------------------------------------------------------


def test_there_is_one_object_for_a_device() -> None:
    assert cpu(1) is Context("cpu", 1) is Context(cpu(1)) is copy.deepcopy(cpu(1))
    assert pickle.loads(pickle.dumps(gpu(3))) is gpu(3) is not gpu(2)
    assert len({cpu(), cpu(0), cpu(1), gpu(1)}) == 3


CREATED: dict[str, Callable[..., Any]] = {
    "array": lambda **c: nd.array([[1, 2], [3, 4]], **c),
    "array of an array": lambda **c: nd.array(nd.ones((2,)), **c),
    "zeros": lambda **c: nd.zeros((2, 3), **c),
    "ones": lambda **c: nd.ones((2, 3), **c),
    "empty": lambda **c: nd.empty((2, 3), **c),
    "full": lambda **c: nd.full((2, 3), 4.0, **c),
    "arange": lambda **c: nd.arange(3, **c),
    "arange repeated": lambda **c: nd.arange(3, repeat=2, **c),
    "linspace": lambda **c: nd.linspace(0, 1, 5, **c),
    "eye": lambda **c: nd.eye(3, **c),
    "uniform": lambda **c: nd.random.uniform(shape=(2, 3), **c),
    "normal": lambda **c: nd.random.normal(shape=(2, 3), **c),
    "randn": lambda **c: nd.random.randn(2, 3, **c),
    "randint": lambda **c: nd.random.randint(0, 9, shape=(2, 3), **c),
    "bernoulli": lambda **c: nd.random.bernoulli(0.5, shape=(2, 3), **c),
    "exponential": lambda **c: nd.random.exponential(2.0, shape=(2, 3), **c),
    "permutation": lambda **c: nd.random.permutation(5, **c),
}


@pytest.mark.parametrize("make", CREATED.values(), ids=CREATED)
def test_arrays_are_made_where_asked(make: Callable[..., Any]) -> None:
    assert make().context is cpu(0)
    assert make(ctx=cpu(1)).context is cpu(1)
    with cpu(2):
        assert make().context is cpu(2)
        assert make(ctx=cpu(1)).ctx is cpu(1)
    for there in (cpu_pinned(), Context("cpu_shared", 1)):
        assert make(ctx=there).context is cpu(0)


@pytest.mark.parametrize("make", CREATED.values(), ids=CREATED)
def test_the_device_changes_no_number(make: Callable[..., Any]) -> None:
    graphc.random.seed(3)
    plain = make().asnumpy()
    graphc.random.seed(3)
    assert np.array_equal(make(ctx=cpu(1)).asnumpy(), plain)


LIKE: dict[str, Callable[[Any], Any]] = {
    "copy": lambda x: x.copy(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "astype": lambda x: x.astype("float64"),
    "zeros_like": lambda x: x.zeros_like(),
    "ones_like": nd.ones_like,
    "view": lambda x: x[1],
    "rows": lambda x: x[nd.array([1, 0], ctx=ONE)],
    "reshape": lambda x: x.reshape(-1),
    "detach": lambda x: x.detach(),
    "scalar": lambda x: 2 - x / 3,
    "NumPy": lambda x: np.ones(3, np.float32) * x,
    "NumPy in a function": lambda x: nd.concat(np.ones((2, 3), np.float32), x, dim=0),
    "mask": lambda x: x > 0,
    "two": lambda x: nd.dot(x, x, transpose_b=True),
    "split": lambda x: nd.split(x, 3, axis=1)[2],
    "dropout": lambda x: nd.Dropout(x, p=0.5, mode="always"),
    "shuffle": nd.random.shuffle,
    "multinomial": lambda x: nd.random.multinomial(nd.softmax(x)),
    "uniform with limits": lambda x: nd.random.uniform(x, x + 1),
    "normal_like": nd.random.normal_like,
    "sequence_mask": lambda x: nd.SequenceMask(x, np.ones(3), True),
    "in place": lambda x: x.__iadd__(1),
    "compiled": graphc.compile(lambda x: x * 2 + nd.arange(3)),
    "compiled, creation inside": graphc.compile(lambda x: nd.zeros((2, 3)) + x),
    "gradient": lambda x: graphc.grad(lambda y: (y * y).sum())(x),
    "compiled gradient": graphc.compile(graphc.grad(lambda y: (y * y).sum())),
}


@pytest.mark.parametrize("compute", LIKE.values(), ids=LIKE)
def test_results_are_where_the_operands_are(compute: Callable[[Any], Any]) -> None:
    for _ in range(3):  # the third call of a compiled function goes the fast way
        assert compute(ones()).context is ONE
        assert compute(ones().as_in_context(cpu(0)).as_in_context(ONE)).context is ONE


def test_large_contractions_are_too() -> None:
    x = nd.random.normal(shape=(80, 80), ctx=ONE)
    assert nd.dot(x, x).context is ONE
    assert np.array_equal(nd.dot(x, x).asnumpy(), nd.dot(*[x.as_in_context(cpu())] * 2).asnumpy())


def test_a_program_of_numpy_arrays_is_on_none() -> None:
    double = graphc.compile(lambda x: x + x)
    found = double(np.ones(3, np.float32))
    assert type(found) is Array
    assert (nd.ones((3,), ctx=ONE) + found).context is ONE
    assert (nd.ones((3,)) + found).context is cpu()


def test_loaded_arrays_are_on_the_current_device(tmp_path: Any) -> None:
    nd.save(tmp_path / "a.params", [ones()])
    assert nd.load(tmp_path / "a.params")[0].context is cpu()
    with ONE:
        assert nd.load(tmp_path / "a.params")[0].context is ONE


# -- from one to the other ---------------------------------------------------------------------


def test_arrays_are_copied_to_another_device() -> None:
    x = nd.array([1.0, 2.0])
    for moved in (x.as_in_context(ONE), x.as_in_ctx(ONE), x.to_device(ONE), x.copyto(ONE)):
        assert moved.context is moved.device is ONE
        moved[:] = 0
        assert x.asnumpy().tolist() == [1, 2]
    assert x.as_in_context(cpu()) is x
    assert x.copyto(cpu()) is not x
    y = ones((2,))
    assert x.copyto(y) is y and y.context is ONE and y.asnumpy().tolist() == [1, 2]
    y[:] = x * 2
    assert y.context is ONE and y.asnumpy().tolist() == [2, 4]
    assert "@cpu(1)" in repr(y)


def test_gradients_come_back_from_another_device() -> None:
    x = nd.array([1.0, 2.0])
    x.attach_grad()
    with autograd.record():
        far = (x * 3).as_in_context(ONE)
        loss = (far * far).sum() + x.copyto(ONE).sum()
    loss.backward()
    assert loss.context is ONE and x.grad.context is cpu()
    assert x.grad.asnumpy().tolist() == [19, 37]


def test_a_second_gradient_crosses_devices() -> None:
    x = nd.array([2.0])
    x.attach_grad()
    with autograd.record():
        far = x.as_in_context(ONE)
        (slope,) = autograd.grad([far * far * far], [x], create_graph=True)
        assert slope.context is cpu()
        total = slope.sum()
    total.backward()
    assert x.grad.asscalar() == 12


def test_an_array_written_whole_from_another_device_keeps_the_gradient() -> None:
    x = nd.array([1.0, 2.0])
    x.attach_grad()
    with autograd.record():
        y = nd.zeros((2,), ctx=ONE)
        y[:] = x * 2
        loss = (y * y).sum()
    loss.backward()
    assert x.grad.asnumpy().tolist() == [8, 16]


def test_losses_on_several_devices_go_back_together() -> None:
    inputs = [nd.array([3.0], ctx=ctx) for ctx in (cpu(0), cpu(1))]
    for x in inputs:
        x.attach_grad()
    with autograd.record():
        losses = [x * x for x in inputs]
    autograd.backward(losses)
    assert [x.grad.asscalar() for x in inputs] == [6, 6]
    assert [x.grad.context for x in inputs] == [cpu(0), cpu(1)]


# -- what does not go together -----------------------------------------------------------------


def test_operands_on_two_devices_are_an_error() -> None:
    with pytest.raises(DeviceError) as caught:
        ones() + nd.ones((2, 3))
    text = str(caught.value)
    assert "operand 0 is on cpu(1), operand 1 is on cpu(0)" in text
    assert "in add(f32[2, 3], f32[2, 3])" in text
    assert "test_devices.py" in text
    assert "x.as_in_context(graphc.cpu(0))" in text


def test_operands_on_two_devices_are_an_error_of_a_function() -> None:
    with pytest.raises(DeviceError, match=r"operand 0 is on cpu\(0\), operand 2 is on cpu\(1\)"):
        nd.concat(nd.ones((2,)), np.ones(2), ones((2,)), dim=0)
    with pytest.raises(DeviceError, match=r"on cpu\(1\)"):
        nd.dot(nd.ones((80, 80)), ones((80, 80)))
    with pytest.raises(DeviceError, match="two devices"):
        x = ones()
        x += nd.ones((2, 3))


def test_arguments_of_a_program_on_two_devices_are_an_error() -> None:
    add = graphc.compile(lambda x, y: x + y)
    for _ in range(3):
        assert add(ones(), ones()).context is ONE
        with pytest.raises(DeviceError) as caught:
            add(ones(), nd.ones((2, 3)))
        assert "argument 0 is on cpu(1), argument 1 is on cpu(0)" in str(caught.value)
        assert "test_devices.py" in str(caught.value)
        assert add(nd.ones((2, 3)), nd.ones((2, 3))).context is cpu()


def test_an_array_that_a_program_refers_to_on_another_device_is_an_error() -> None:
    table = nd.ones((3,))
    scaled = graphc.compile(lambda x: x * table)
    assert scaled(nd.ones((2, 3))).context is cpu()
    with pytest.raises(DeviceError) as caught:
        scaled(ones())
    text = str(caught.value)
    assert "an array of shape (3,) that the code refers to is on cpu(0)" in text
    assert "the arguments are on cpu(1)" in text
    assert "in multiply" in text and "test_devices.py" in text


def test_arrays_that_a_program_refers_to_decide_where_it_runs() -> None:
    near, far = nd.ones((3,)), nd.ones((3,), ctx=ONE)
    assert graphc.compile(lambda: far * 2)().context is ONE
    found = graphc.compile(lambda x: far * x)(np.ones(3, np.float32))
    assert (ones((3,)) + found).context is ONE
    with pytest.raises(DeviceError):
        nd.ones((3,)) + found
    with pytest.raises(DeviceError, match=r"refers to is on cpu\(0\).*refers to is on cpu\(1\)"):
        graphc.compile(lambda: near * far)()


def test_a_program_is_not_left_for_another_device() -> None:
    move = graphc.compile(lambda x: x.as_in_context(cpu(1)) * 2)
    assert move(ones()).context is ONE
    with pytest.raises(DeviceError, match=r"runs on one device, this one on cpu\(0\)"):
        move(nd.ones((2,)))
    table = nd.ones((2,))
    with pytest.raises(DeviceError, match=r"nothing in it can go to cpu\(1\)"):
        graphc.compile(lambda x: x * table.as_in_context(x.context))(ones((2,)))


def test_programs_of_two_devices_are_kept_apart() -> None:
    where: list[Context] = []

    def traced(x: Any) -> Any:
        where.append(x.context)
        assert current_context() is x.context
        return x * 2

    program = graphc.compile(traced)
    for ctx in (cpu(0), cpu(1), cpu(0), cpu(1)):
        assert program(nd.ones((2,), ctx=ctx)).context is ctx
    assert where == [cpu(0), cpu(1)]
    assert "on cpu(1) after cpu(0)" in program.explain()


def test_recorded_programs_keep_devices() -> None:
    program = graphc.compile(lambda x: (x * x * x).sum())
    x = nd.array([2.0], ctx=ONE)
    x.attach_grad()
    assert x.grad.context is ONE
    with autograd.record():
        y = program(x)
        (slope,) = autograd.grad([y], [x], create_graph=True)
    assert y.context is slope.context is ONE
    slope.backward()
    assert x.grad.asscalar() == 12 and x.grad.context is ONE


def test_a_gradient_belongs_on_the_device_of_its_array() -> None:
    x = ones()
    with pytest.raises(DeviceError, match="gradient, number 0 is on"):
        autograd.mark_variables([x], [nd.zeros((2, 3))])
    x.attach_grad()
    with autograd.record():
        y = x * 2
    with pytest.raises(DeviceError, match="gradient, number 0 is on"):
        y.backward(nd.ones((2, 3)))
    y.backward(np.ones((2, 3), np.float32))
    assert x.grad.context is ONE


def test_a_custom_function_keeps_devices() -> None:
    class Double(autograd.Function):
        def forward(self, x: Any) -> Any:
            return x * 2

        def backward(self, dy: Any) -> Any:
            assert dy.context is ONE
            return dy * 2

    x = ones()
    x.attach_grad()
    with autograd.record():
        y = Double()(x)
    y.backward()
    assert y.context is x.grad.context is ONE


# -- executors ---------------------------------------------------------------------------------


def test_an_executor_is_on_the_device_of_its_arrays() -> None:
    a, b = sym.Variable("a"), sym.Variable("b")
    exe = (a * b).bind(ONE, {"a": ones(), "b": ones()}, args_grad={"a": ones()})
    assert exe.forward(is_train=True)[0].context is ONE
    exe.backward()
    assert exe.grad_dict["a"].context is ONE
    assert (a * b).bind(args={"a": ones(), "b": ones()}).forward()[0].context is ONE
    made = (a * b).simple_bind(ONE, a=(2,), b=(2,))
    assert made.arg_dict["a"].context is made.grad_dict["b"].context is ONE
    assert made.reshape(a=(3,), b=(3,)).arg_dict["a"].context is ONE
    assert made.forward(a=nd.ones((2,)), b=np.ones(2))[0].context is ONE


def test_an_executor_needs_its_arrays_on_one_device() -> None:
    a, b = sym.Variable("a"), sym.Variable("b")
    with pytest.raises(BindError, match=r"'b' is on cpu\(0\), the executor on cpu\(1\)"):
        (a * b).bind(ONE, {"a": ones(), "b": nd.ones((2, 3))})
    with pytest.raises(BindError, match=r"the gradient of a is on cpu\(0\)"):
        (a * b).bind(ONE, {"a": ones(), "b": ones()}, args_grad={"a": nd.ones((2, 3))})


def test_an_error_of_the_tape_is_still_one() -> None:
    x = ones()
    with pytest.raises(AutogradError):
        x.as_in_context(cpu()).backward()


def test_a_gpu_that_is_not_there_is_an_error_everywhere() -> None:
    for use in (ones().as_in_context, ones().copyto, lambda c: nd.zeros((2,), ctx=c)):
        with pytest.raises(DeviceError, match=r"gpu\(99\)"):
            use(gpu(99))
    with gpu(99), pytest.raises(DeviceError, match=r"gpu\(99\)"):
        nd.zeros((2,))
