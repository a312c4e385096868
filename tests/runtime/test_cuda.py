"""GPU programs and arrays on emulated devices: results, order of work, guards, graphs, errors."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from device_programs import R, compiled, floats, updating
from emulated_cuda import CUDAError, CUresult, FakeCuda, emulated_cuda

from graphc import config, lazy
from graphc.codegen import counters
from graphc.errors import (
    BindError,
    DeviceError,
    GraphcError,
    IndexRangeError,
    MissingDependencyError,
)
from graphc.runtime import cuda, profile
from graphc.runtime.checks import FLAG_BYTES
from graphc.runtime.cuda import CudaDevice
from graphc.runtime.device import DeviceArray
from graphc.runtime.device_program import DeviceProgram


@pytest.fixture
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCuda]:
    """Have new devices in each test: counts and bytes are compared."""
    folder = tmp_path_factory.getbasetemp() / "emulated-cache"
    with emulated_cuda(folder, FakeCuda()) as fake:
        yield fake


@pytest.fixture
def device(emulated: FakeCuda) -> CudaDevice:
    return cuda.device(0)


# -- arrays ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x",
    [floats(3, 4), np.arange(5), np.zeros((2, 0)), np.array(2.5), np.array([True])],
    ids=lambda x: f"{x.dtype}{list(x.shape)}",
)
def test_arrays_go_there_and_back(device: CudaDevice, x: np.ndarray) -> None:
    found = device.put(x)
    assert (found.shape, found.dtype, found.ndim) == (x.shape, x.dtype, x.ndim)
    assert (found.size, found.nbytes) == (x.size, x.nbytes)
    np.testing.assert_array_equal(found.get(), x)
    np.testing.assert_array_equal(np.asarray(found.copy()), x)


def test_what_was_put_may_be_overwritten(device: CudaDevice) -> None:
    x = floats(8)
    found = device.put(x)
    x[...] = 0
    np.testing.assert_array_equal(found.get(), floats(8))


def test_large_arrays_go_in_pieces(device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "PIECE_BYTES", 1000)
    x = floats(777)
    np.testing.assert_array_equal(device.put(x).get(), x)


@pytest.mark.parametrize(
    "key",
    [
        (0,), (-1,), (slice(1, 3),), (2, slice(1, 2)), (2, 1), (2, 1, -1), (..., ), (None, 1),
        (slice(None), slice(None)), (slice(5, 2),), (1, 1, ..., slice(2, 4)), (slice(1, 2), 0),
        (0, slice(1, None)), (slice(2, 3), slice(0, 1), slice(1, 3)),
    ],
    ids=str,
)  # fmt: skip
def test_parts_share_memory(device: CudaDevice, key: Any) -> None:
    x = floats(3, 2, 5)
    whole = device.put(x)
    part = whole.part(key)
    assert part is not None and part.memory is whole.memory
    np.testing.assert_array_equal(part.get(), x[key])


@pytest.mark.parametrize("key", [(slice(None), 0), (slice(None, None, 2),), (..., 0)], ids=str)
def test_elements_apart_are_no_part(device: CudaDevice, key: Any) -> None:
    assert device.put(floats(3, 2, 5)).part(key) is None


@pytest.mark.parametrize("key", [(3,), (-4,), (0, 2), (0, 0, 0, 0)], ids=str)
def test_parts_that_are_not_there(device: CudaDevice, key: Any) -> None:
    with pytest.raises(IndexError):
        device.put(floats(3, 2, 5)).part(key)


def test_shapes_share_memory(device: CudaDevice) -> None:
    x = device.put(floats(3, 4))
    assert x.reshape(-1, 2).shape == x.reshape((6, 2)).shape == (6, 2)
    np.testing.assert_array_equal(x.reshape(12).get(), floats(3, 4).reshape(12))
    with pytest.raises(ValueError, match="reshape"):
        x.reshape(5)


def test_memory_goes_back_with_the_last_view(device: CudaDevice, emulated: FakeCuda) -> None:
    used = emulated.pools[0]
    before = used.used_bytes
    x = device.put(floats(100))
    row = x.reshape(10, 10).part((3,))
    del x
    assert used.used_bytes == before + 400
    del row
    assert used.used_bytes == before


@pytest.mark.parametrize("peers", [True, False])
def test_copies_between_devices(device: CudaDevice, emulated: FakeCuda, peers: bool) -> None:
    emulated.peers, other = peers, cuda.device(1)
    x, y = device.put(floats(7)), other.empty((7,), "float32")
    emulated.calls.clear()
    other.copy(x, y)
    x = device.put(floats(7) + 1)  # in the memory of the first one
    assert len(emulated.named("sync")) == (0 if peers else 1)
    assert emulated.pools[0].peer_accessible_by == ({1} if peers else set())
    np.testing.assert_array_equal(y.get(), floats(7))
    np.testing.assert_array_equal(x.get(), floats(7) + 1)


def test_what_a_check_has_stopped_does_not_arrive_elsewhere(device: CudaDevice) -> None:
    program = compiled(
        lambda x, i: R["take"](x, i, axis=0, mode="raise"), ("float32", (5,)), ("int64", (3,))
    )
    (found,) = program([device.put(floats(5)), np.array([0, 7, 2])])
    other = cuda.device(1)
    there = other.put(floats(3))
    with pytest.raises(IndexRangeError, match="index 7 at position 1"):
        other.copy(found, there)
    np.testing.assert_array_equal(there.get(), floats(3))


def test_arrays_of_zeros(device: CudaDevice) -> None:
    x = device.put(floats(6))
    device.clear(x)
    np.testing.assert_array_equal(x.get(), np.zeros(6, np.float32))


def test_copies_ahead_are_waited_for(device: CudaDevice, emulated: FakeCuda) -> None:
    x, copied = device.put_ahead(floats(6))
    device.join(copied)
    (found,) = compiled(lambda a: a * 2.0, ("float32", (6,)))([x])
    np.testing.assert_array_equal(found.get(), 2 * floats(6))
    assert emulated.named("wait") == [("wait",)]


# -- programs --------------------------------------------------------------------------------


def test_programs_compute(device: CudaDevice) -> None:
    program = compiled(
        lambda x, y: R["sum"](R["tanh"](x) + y, axis=(1,)),
        ("float32", (3, 400)),
        ("float32", (400,)),
    )
    x, y = floats(3, 400), floats(400)
    (found,) = program([device.put(x), device.put(y)])
    assert isinstance(found, DeviceArray)
    np.testing.assert_allclose(found.get(), (np.tanh(x) + y).sum(axis=1), rtol=1e-5, atol=1e-5)


def test_a_call_does_not_wait(device: CudaDevice, emulated: FakeCuda) -> None:
    program = compiled(lambda x: R["sum"](x * 2.0, axis=(0,)) + x, ("float32", (30, 40)))
    x = device.put(floats(30, 40))
    emulated.calls.clear()
    for _ in range(4):
        (x,) = program([x])
    assert not emulated.named("sync")
    x.get()
    assert len(emulated.named("sync")) == 1


def test_one_program_serves_every_size(device: CudaDevice) -> None:
    program = compiled(lambda x: R["sum"](R["exp"](x), axis=(0,)) * 2.0 + 1.0, ("float32", (3, 4)))
    for shape in [(3, 4), (700, 33), (3, 4), (0, 5)]:
        x = floats(*shape)
        (found,) = program([device.put(x)])
        np.testing.assert_allclose(found.get(), np.exp(x).sum(axis=0) * 2 + 1, rtol=1e-5)


def test_numbers_from_the_host_go_in_one_copy(device: CudaDevice, emulated: FakeCuda) -> None:
    program = compiled(lambda x, a, b: x * a + b, *[("float32", s) for s in ((5,), (), ())])
    x = device.put(floats(5))
    program([x, np.array(1, np.float32), np.array(1, np.float32)])
    emulated.calls.clear()
    (found,) = program([x, np.array(2.0, np.float32), np.array(3.0, np.float32)])
    assert len(emulated.named("copy")) == 1
    np.testing.assert_array_equal(found.get(), floats(5) * 2 + 3)


def test_what_lies_between_vectors_is_copied(device: CudaDevice) -> None:
    program = updating(lambda x, y: (x + y,), [(0, 0)], ("float32", (8,)), ("float32", (8,)))
    x, y = device.put(floats(20)), device.put(floats(20))
    program([x.part((slice(1, 9),)), y.part((slice(3, 11),))])
    expected = floats(20)
    expected[1:9] += floats(20)[3:11]
    np.testing.assert_array_equal(x.get(), expected)


def test_an_argument_that_shares_memory_with_an_updated_one(device: CudaDevice) -> None:
    program = updating(
        lambda x, y: (x * 0.0 + R["flip"](y, axis=(0,)),),
        [(0, 0)],
        ("float32", (8,)),
        ("float32", (8,)),
    )
    x = device.put(floats(8))
    program([x, x])
    np.testing.assert_array_equal(x.get(), floats(8)[::-1])


def test_one_array_for_two_updates(device: CudaDevice) -> None:
    program = updating(
        lambda x, y: (x + 1.0, y + 2.0), [(0, 0), (1, 1)], ("float32", (8,)), ("float32", (8,))
    )
    x = device.put(floats(8))
    with pytest.raises(BindError, match="got one array for both, or two that share memory"):
        program([x, x])


def test_results_in_arrays_that_are_there(device: CudaDevice) -> None:
    program = compiled(lambda x: x * 2.0, ("float32", (8,)))
    x, place = device.put(floats(8)), device.put(floats(8))
    assert program([x], [place]) == [place]
    np.testing.assert_array_equal(place.get(), floats(8) * 2)
    for unfit in (x, device.empty((4,), "float32"), cuda.device(1).empty((8,), "float32")):
        assert program([x], [unfit]) != [unfit]


# -- CUDA graphs -----------------------------------------------------------------------------


def chain(device: CudaDevice) -> DeviceProgram:
    """Return a program of three kernels."""

    def function(x: Any) -> Any:
        for axis in (0, 1, 0):
            x = x - R["sum"](x, axis=(axis,), keepdims=True)
        return x

    return compiled(function, ("float32", (20, 30)))


def expected_of_chain(x: np.ndarray) -> np.ndarray:
    for axis in (0, 1, 0):
        x = x - x.sum(axis=axis, keepdims=True)
    return x


def test_the_second_run_makes_a_graph(device: CudaDevice, emulated: FakeCuda) -> None:
    program, x = chain(device), device.put(floats(20, 30))
    emulated.calls.clear()
    results = [program([x]) for _ in range(3)]
    launches = len(program.at(((20, 30),)).steps)
    assert len(emulated.named("launch")) == launches > 2
    assert emulated.named("instantiate") == [("instantiate", launches)]
    assert emulated.named("graph") == [("graph", launches)] * 2
    for (found,) in results:
        np.testing.assert_allclose(
            found.get(), expected_of_chain(floats(20, 30)), rtol=1e-4, atol=1e-4
        )


def test_a_graph_follows_addresses(device: CudaDevice, emulated: FakeCuda) -> None:
    program = chain(device)
    for number in range(5):
        x = floats(20, 30) * number
        emulated.calls.clear()
        (found,) = program([device.put(x)])
        np.testing.assert_allclose(found.get(), expected_of_chain(x), rtol=1e-4, atol=1e-3)
        assert len(emulated.named("update")) < len(program.at((x.shape,)).steps)


def test_a_graph_is_made_again_where_scratch_memory_moved(
    device: CudaDevice, emulated: FakeCuda
) -> None:
    program = chain(device)
    x = device.put(floats(20, 30))
    for _ in range(2):
        program([x])
    big = device.put(floats(1000, 3000))
    program([big])
    emulated.calls.clear()
    (found,) = program([x])
    np.testing.assert_allclose(found.get(), expected_of_chain(floats(20, 30)), rtol=1e-4, atol=1e-3)
    assert len(emulated.named("instantiate")) == 1


def test_sizes_choose_the_grids_that_run(device: CudaDevice, emulated: FakeCuda) -> None:
    program = compiled(lambda x: R["sum"](x, axis=(0, 1)), ("float32", (20, 30)))
    for shape, blocks in ((20, 30), [1]), ((300, 1000), [73, 1]):
        x = floats(*shape)
        emulated.calls.clear()
        (found,) = program([device.put(x)])
        np.testing.assert_allclose(found.get(), x.sum(), rtol=1e-3)
        assert [call[1] for call in emulated.named("launch")] == blocks


# -- profile, disk ---------------------------------------------------------------------------


def test_launches_are_timed_by_events(device: CudaDevice) -> None:
    program = chain(device)
    profile.profile()
    with config.options(profile=True):
        program([device.put(floats(20, 30))])
    timings = profile.profile()
    assert [t.number for t in timings] == list(range(len(program.at(((20, 30),)).steps)))
    assert all(t.start_ns <= t.stop_ns for t in timings)


def test_a_warm_start_compiles_nothing(device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    with config.options(verify=False):
        chain(device)
        monkeypatch.setattr("graphc.frontend.build.compile_graph", None)
        counters.reset()
        (found,) = chain(device)([device.put(floats(20, 30))])
    assert counters.stats()["kernels_compiled"] == 0 and counters.stats()["programs_loaded"] == 1
    np.testing.assert_allclose(found.get(), expected_of_chain(floats(20, 30)), rtol=1e-4, atol=1e-4)


# -- what is missing, what fails -------------------------------------------------------------


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise MissingDependencyError("cuda is not installed")

    monkeypatch.setattr(lazy, "cuda_core", fail)
    assert cuda.num_gpus() == 0
    with pytest.raises(
        DeviceError, match="gpu\\(0\\) cannot be used: the package cuda-core"
    ) as caught:
        cuda.device(0)
    assert str(caught.value.remedy).startswith('Install it: pip install "graphc[cuda]".')


def test_without_a_driver(emulated: FakeCuda) -> None:
    def fail(flags: int) -> Any:
        raise RuntimeError('"cuda" is an NVIDIA driver library and can only be found via ...')

    emulated.driver.cuInit = fail
    assert cuda.num_gpus() == 0
    with pytest.raises(DeviceError, match="there is no NVIDIA driver on this machine"):
        cuda.device(0)


@pytest.mark.parametrize(
    ("status", "count", "message"),
    [
        (CUresult.CUDA_ERROR_NO_DEVICE, 0, "the NVIDIA driver finds no device"),
        (CUresult.CUDA_SUCCESS, 0, "the NVIDIA driver finds no device"),
        (CUresult.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, 1, "reports CUDA_ERROR_SYSTEM_DRIVER_MISM"),
    ],
)
def test_without_a_device(emulated: FakeCuda, status: CUresult, count: int, message: str) -> None:
    emulated.status, emulated.count = status, count
    assert cuda.num_gpus() == 0
    with pytest.raises(DeviceError, match=message):
        cuda.device(0)


def test_a_number_too_high(emulated: FakeCuda) -> None:
    assert cuda.num_gpus() == 2
    with pytest.raises(DeviceError, match="there is no gpu\\(2\\)") as caught:
        cuda.device(2)
    assert caught.value.remedy == "This machine has gpu(0) to gpu(1), and graphc.cpu()."


@pytest.mark.parametrize(
    ("capability", "processor"),
    [((8, 0), "sm_80"), ((8, 7), "sm_86"), ((9, 0), "sm_90"), ((12, 0), "sm_90")],
)
def test_the_newest_target_that_a_device_runs(
    emulated: FakeCuda, capability: tuple[int, int], processor: str
) -> None:
    emulated.capability = capability
    assert cuda.device(0).target.cpu == processor


def test_a_device_that_is_too_old(emulated: FakeCuda) -> None:
    emulated.capability = 7, 5
    with pytest.raises(DeviceError, match="has compute capability 7.5") as caught:
        cuda.device(0)
    assert caught.value.remedy == "graphc needs 8.0 or newer."


def test_no_room(device: CudaDevice, emulated: FakeCuda) -> None:
    kept = device.empty((100,), "uint8")
    emulated.total_bytes = 1000 + FLAG_BYTES
    with pytest.raises(
        DeviceError, match=r"gpu\(0\) has no room for 2,000 bytes: 900 of 1,024 are free"
    ):
        device.empty((500,), "float32")
    assert device.empty((900,), "uint8").nbytes == 900 and kept.nbytes == 100


def test_what_fails_later_names_what_ran(device: CudaDevice, emulated: FakeCuda) -> None:
    program = chain(device)
    (found,) = program([device.put(floats(20, 30))])
    emulated.broken = "CUDA_ERROR_ILLEGAL_ADDRESS: something\nmore"
    with pytest.raises(
        DeviceError, match=r"gpu\(0\) failed: CUDA_ERROR_ILLEGAL_ADDRESS: something +\[test_cuda"
    ) as caught:
        found.get()
    assert "It was running model (test_cuda.py:" in str(caught.value)


def test_arrays_of_another_device(device: CudaDevice) -> None:
    program = compiled(lambda x: x * 2.0, ("float32", (3,)))
    with pytest.raises(DeviceError, match=r"'x0' of model is on gpu\(1\), the program on gpu\(0\)"):
        program([cuda.device(1).put(floats(3))])


def test_updates_of_what_is_on_the_host(device: CudaDevice) -> None:
    program = updating(lambda x: (x + 1.0,), [(0, 0)], ("float32", (3,)))
    with pytest.raises(BindError, match=r"updates its input 'x0', which is not on gpu\(0\)"):
        program([floats(3)])


def test_arguments_that_do_not_fit(device: CudaDevice) -> None:
    program = compiled(lambda x: x * 2.0, ("float32", (3,)))
    with pytest.raises(BindError, match="is f32\\[B\\], got float64\\[3\\]"):
        program([device.put(np.zeros(3))])
    with pytest.raises(BindError, match="takes 1 arrays, got 0"):
        program([])


def test_more_shared_memory_than_usual(device: CudaDevice, emulated: FakeCuda) -> None:
    device._allow(SimpleNamespace(handle=1), 100_000)
    assert emulated.allowed == [100_000]
    with pytest.raises(DeviceError, match="a kernel needs 300,000 bytes of shared memory"):
        device._allow(SimpleNamespace(handle=1), 300_000)


def test_arrays_that_are_too_large(device: CudaDevice) -> None:
    with pytest.raises(GraphcError, match="a launch takes 2,147,483,648 blocks"):
        device.step("", 2**31, ())


def test_a_forked_process(device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_process", -1)
    with pytest.raises(DeviceError, match="was used before this process was forked"):
        device.put(floats(3))


def test_a_fault_of_the_driver_is_a_device_error(device: CudaDevice) -> None:
    def refuse(size: int, stream: Any) -> Any:
        raise CUDAError("CUDA_ERROR_UNKNOWN: no")

    device._pool.allocate = refuse
    with pytest.raises(DeviceError, match="failed: CUDA_ERROR_UNKNOWN: no"):
        device.put(floats(3))
