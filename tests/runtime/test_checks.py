"""Checks on emulated devices: the host hears of a failure later, nothing changes until then."""

from __future__ import annotations

import numpy as np
import pytest
from device_programs import R, compiled, floats, updating
from emulated_cuda import FakeCuda

from graphc.errors import IndexRangeError, user_location
from graphc.runtime import cuda
from graphc.runtime.cuda import CudaDevice
from graphc.runtime.device_program import DeviceProgram


@pytest.fixture
def device(emulated: FakeCuda) -> CudaDevice:
    return cuda.device(0)


def checked() -> DeviceProgram:
    """Return a program that adds 1 to its first argument, and takes from it at checked indices."""
    return updating(
        lambda x, i: (x + 1.0, R["take"](x, i, axis=0, mode="raise")), [(0, 0)],
        ("float32", (5,)), ("int64", (3,)),
    )  # fmt: skip


def test_checks_do_not_wait(device: CudaDevice, emulated: FakeCuda) -> None:
    program, x, i = checked(), device.put(floats(5)), device.put(np.array([0, 4, 2]))
    emulated.calls.clear()
    results = [program([x, i])[0] for _ in range(100)]
    assert not emulated.named("sync")
    np.testing.assert_array_equal(results[0].get(), floats(5)[[0, 4, 2]])
    assert not device.checks.under_way


def test_a_check_that_failed_is_heard_of_at_the_next_read(device: CudaDevice) -> None:
    program, x = checked(), device.put(floats(5))
    for _ in range(3):  # by launches, then as a CUDA graph
        (found,) = program([x, np.array([0, 7, 2])])
        with pytest.raises(IndexRangeError, match=r"index 7 at position 1 ") as caught:
            found.get()
        assert "gpu(0) found it in model, after the call had returned" in str(caught.value)
        np.testing.assert_array_equal(x.get(), floats(5))
    program([x, np.array([0, 1, 2])])
    np.testing.assert_array_equal(x.get(), floats(5) + 1)


def test_nothing_is_changed_from_the_first_failure_on(device: CudaDevice) -> None:
    program, x, y = checked(), device.put(floats(5)), device.put(floats(5))
    plain = updating(lambda a: (a * 2.0,), [(0, 0)], ("float32", (5,)))
    result = compiled(lambda a: a * 2.0, ("float32", (5,)))
    program([x, np.array([0, 1, 2])])
    program([x, np.array([0, 1, 9])])
    program([x, np.array([-8, 1, 2])])
    program([x, np.array([0, 1, 2])])
    plain([y])
    z = device.put(floats(5))
    result([y], [z])
    (new,) = result([y])
    with pytest.raises(IndexRangeError, match="index 9 at position 2"):
        device.synchronize()
    np.testing.assert_array_equal(x.get(), floats(5) + 1)
    np.testing.assert_array_equal(y.get(), floats(5))
    np.testing.assert_array_equal(z.get(), floats(5))
    np.testing.assert_array_equal(new.get(), floats(5) * 2)


def test_a_call_raises_what_is_known(device: CudaDevice) -> None:
    program, x = checked(), device.put(floats(5))
    for count in (1, 2):
        program([x, np.array([0, 1, 9])])
        line = int(str(user_location()).rpartition(":")[2]) - 1
        for _ in range(count):
            program([x, np.array([0, 1, 2])])
        device.stream.sync()
        with pytest.raises(IndexRangeError, match=rf"9 at position 2 .*test_checks.py:{line}\]"):
            program([x, np.array([0, 1, 2])])
    np.testing.assert_array_equal(x.get(), floats(5))


def test_host_counts_are_set_back(device: CudaDevice) -> None:
    program, x, undone = checked(), device.put(floats(5)), []
    device.checks.undo(lambda: undone.append("nothing is under way"))
    for number, index in enumerate((1, 9, 2, 7)):
        program([x, np.array([0, 1, index])])
        device.checks.undo(lambda number=number: undone.append(number))
    with pytest.raises(IndexRangeError):
        x.get()
    assert undone == [3, 2, 1]


def test_calls_that_are_done_are_forgotten(device: CudaDevice) -> None:
    program, x = checked(), device.put(floats(5))
    for _ in range(300):
        program([x, np.array([0, 1, 2])])
        device.stream.sync()
    assert len(device.checks._calls) <= 65


def test_what_a_check_writes_is_no_array_of_the_callers(device: CudaDevice) -> None:
    update = updating(lambda x: (R["check_index"](x + 1, 5),), [(0, 0)], ("int64", (4,)))
    result = compiled(lambda x: R["check_index"](x + 1, 5), ("int64", (4,)))
    x, y = device.put(np.array([0, 1, 8, 2])), device.put(np.zeros(4, np.int64))
    for program, given in ((update, []), (result, [y])):
        program([x], given)
        with pytest.raises(IndexRangeError, match="index 9 at position 2"):
            device.synchronize()
    np.testing.assert_array_equal(x.get(), [0, 1, 8, 2])
    np.testing.assert_array_equal(y.get(), 0)
