"""Files of arrays: MXNet's list, safetensors, atomic replacement, damaged and hostile input."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tracemalloc

import numpy as np
import pytest

from graphc.errors import ArgumentError, DTypeError, FileFormatError
from graphc.frontend.formats import atomic_write, load_arrays, save_arrays

MXNET_DTYPES = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool"]
ALL_DTYPES = [*MXNET_DTYPES, "int16", "uint16", "uint32", "uint64"]


def example(dtype, shape=(2, 3)):
    return (np.arange(np.prod(shape, dtype=int)) % 2 + 1).astype(dtype).reshape(shape)


def same(actual, expected):
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)
    assert actual.flags.writeable and actual.flags.c_contiguous


@pytest.mark.parametrize("suffix", [".params", ".safetensors", ""])
@pytest.mark.parametrize("shape", [(2, 3), (5,), (), (0, 4), (1, 2, 3, 4)])
def test_round_trip_of_a_dict_keeps_names_order_shapes_and_dtypes(tmp_path, suffix, shape):
    path = tmp_path / f"net{suffix}"
    arrays = {f"ß.{i} weight\n": example(dtype, shape) for i, dtype in enumerate(MXNET_DTYPES)}
    arrays = {f"{name}{i}": value for i, (name, value) in enumerate(arrays.items())}
    save_arrays(path, arrays)
    loaded = load_arrays(path)
    assert list(loaded) == list(arrays)
    for name, value in arrays.items():
        same(loaded[name], value)


@pytest.mark.parametrize("suffix", [".params", ".safetensors"])
def test_round_trip_of_a_list_of_strided_and_big_endian_arrays(tmp_path, suffix):
    path = tmp_path / f"list{suffix}"
    arrays = [np.arange(12.0).reshape(3, 4).T, np.arange(6, dtype=">i4")[::2], np.float32(3)]
    save_arrays(path, arrays)
    loaded = load_arrays(path)
    assert isinstance(loaded, list)
    same(loaded[0], np.ascontiguousarray(arrays[0]))
    same(loaded[1], np.array([0, 2, 4], np.int32))
    same(loaded[2], np.array(3, np.float32))


def test_the_content_not_the_name_decides_on_load(tmp_path):
    save_arrays(tmp_path / "a.safetensors", {"w": example("int16")})
    os.rename(tmp_path / "a.safetensors", tmp_path / "a.params")
    same(load_arrays(tmp_path / "a.params")["w"], example("int16"))


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_every_dtype_round_trips_through_safetensors(tmp_path, dtype):
    save_arrays(tmp_path / "a.safetensors", {"w": example(dtype)})
    same(load_arrays(tmp_path / "a.safetensors")["w"], example(dtype))


def test_a_dtype_outside_the_format_names_the_array_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "net.params"
    save_arrays(path, {"w": example("float32")})
    with pytest.raises(DTypeError, match=r"fc\.bias.*uint32(.|\n)*safetensors"):
        save_arrays(path, {"w": example("int8"), "fc.bias": example("uint32")})
    same(load_arrays(path)["w"], example("float32"))
    with pytest.raises(DTypeError, match="complex64"):
        save_arrays(tmp_path / "a.safetensors", {"w": example("complex64")})


@pytest.mark.parametrize("name", [3, None])
def test_a_name_must_be_a_string(tmp_path, name):
    for suffix in (".params", ".safetensors"):
        with pytest.raises(ArgumentError, match="name"):
            save_arrays(tmp_path / f"a{suffix}", {name: example("int8")})


# --- bytes as MXNet writes them -----------------------------------------------------------

CPU = struct.pack("<ii", 1, 0)
GPU = struct.pack("<ii", 2, 3)


def shape64(*sizes):
    return struct.pack(f"<i{len(sizes)}q", len(sizes), *sizes)


def record_v2(shape, flag, data, device=CPU, storage=0):
    return struct.pack("<Ii", 0xF993FAC9, storage) + shape64(*shape) + device + data_of(flag, data)


def data_of(flag, data):
    return struct.pack("<i", flag) + data


def listed(records, names=()):
    blob = struct.pack("<3Q", 0x112, 0, len(records)) + b"".join(records)
    encoded = [name.encode() for name in names]
    blob += struct.pack("<Q", len(names))
    return blob + b"".join(struct.pack("<Q", len(name)) + name for name in encoded)


def load_bytes(tmp_path, blob):
    path = tmp_path / "case.params"
    path.write_bytes(blob)
    return load_arrays(path)


F32 = np.arange(6, dtype="<f4")


def test_what_is_written_is_byte_for_byte_mxnets_version_2(tmp_path):
    save_arrays(tmp_path / "a.params", {"0.weight": F32.reshape(2, 3)})
    expected = listed([record_v2((2, 3), 0, F32.tobytes())], ["0.weight"])
    assert (tmp_path / "a.params").read_bytes() == expected


def test_record_versions_0_to_3_and_a_gpu_are_read(tmp_path):
    v0 = struct.pack("<3I", 2, 2, 3) + CPU + data_of(0, F32.tobytes())
    v1 = struct.pack("<I", 0xF993FAC8) + shape64(2, 3) + GPU + data_of(0, F32.tobytes())
    v2 = record_v2((2, 3), 0, F32.tobytes(), device=GPU)
    v3 = struct.pack("<Ii", 0xF993FACA, 0) + shape64() + CPU + data_of(6, struct.pack("<q", 7))
    loaded = load_bytes(tmp_path, listed([v0, v1, v2, v3]))
    for array in loaded[:3]:
        same(array, F32.reshape(2, 3).astype(np.float32))
    same(loaded[3], np.array(7, np.int64))


def test_uninitialised_records_of_each_version_are_empty(tmp_path):
    none = [
        struct.pack("<I", 0),
        struct.pack("<Ii", 0xF993FAC8, 0),
        struct.pack("<Iii", 0xF993FAC9, 0, 0),
        struct.pack("<Iii", 0xF993FACA, 0, -1),
    ]
    loaded = load_bytes(tmp_path, listed([*none, record_v2((6,), 0, F32.tobytes())]))
    assert [array.shape for array in loaded] == [(0,)] * 4 + [(6,)]


def test_bfloat16_is_widened_and_odd_bools_are_true(tmp_path):
    bits = np.array([1.5, -2.0], "<f4").view("<u4") >> 16
    records = [record_v2((2,), 12, bits.astype("<u2").tobytes()), record_v2((3,), 7, b"\0\1\5")]
    brain, truth = load_bytes(tmp_path, listed(records))
    same(brain, np.array([1.5, -2.0], np.float32))
    same(truth, np.array([False, True, True]))


def row_sparse(shape, rows, values):
    rows, values = np.asarray(rows, "<i8"), np.asarray(values, "<f4")
    head = struct.pack("<Ii", 0xF993FAC9, 1) + shape64(*values.shape) + shape64(*shape) + CPU
    aux = struct.pack("<i", 6) + shape64(*rows.shape)
    return head + struct.pack("<i", 0) + aux + values.tobytes() + rows.tobytes()


def csr(shape, starts, columns, values):
    starts, columns = np.asarray(starts, "<i8"), np.asarray(columns, "<i8")
    values = np.asarray(values, "<f4")
    head = struct.pack("<Ii", 0xF993FAC9, 2) + shape64(*values.shape) + shape64(*shape) + CPU
    aux = b"".join(struct.pack("<i", 6) + shape64(*a.shape) for a in (starts, columns))
    data = values.tobytes() + starts.tobytes() + columns.tobytes()
    return head + struct.pack("<i", 0) + aux + data


def test_sparse_arrays_are_read_dense(tmp_path):
    records = [
        row_sparse((4, 2), [1, 3], [[1, 2], [3, 4]]),
        csr((3, 4), [0, 2, 2, 3], [0, 3, 1], [5, 6, 7]),
    ]
    rows, matrix = load_bytes(tmp_path, listed(records))
    same(rows, np.array([[0, 0], [1, 2], [0, 0], [3, 4]], np.float32))
    same(matrix, np.array([[5, 0, 0, 6], [0, 0, 0, 0], [0, 7, 0, 0]], np.float32))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (row_sparse((4, 2), [1, 4], [[1, 2], [3, 4]]), "row index outside"),
        (row_sparse((4, 2), [-1], [[1, 2]]), "row index outside"),
        (row_sparse((4, 3), [1], [[1, 2]]), "do not fit"),
        (row_sparse((2**40, 2), [1], [[1, 2]]), "when dense"),
        (row_sparse((0, 2**60, 2**60), [1], [[[1]]]), "when dense"),
        (csr((3, 4), [0, 2, 1, 3], [0, 3, 1], [5, 6, 7]), "do not fit"),
        (csr((3, 4), [0, 2, 2, 3], [0, 4, 1], [5, 6, 7]), "column index outside"),
        (csr((3, 4, 1), [0, 2, 2, 3], [0, 3, 1], [5, 6, 7]), "3 axes"),
        (record_v2((2,), 99, b""), "dtype number 99"),
        (record_v2((2**62, 2**62), 0, b""), "needs"),
        (record_v2((0, 2**62, 2**62), 0, b""), "no array can have"),
        (record_v2((-1, 2), 0, b""), "negative size"),
        (record_v2((2,), 0, b"12345678", storage=7), "storage type 7"),
        (struct.pack("<Iii", 0xF993FAC9, 0, 2**31 - 1), "axes"),
        (struct.pack("<I", 0xDEADBEEF), "magic 0xdeadbeef"),
    ],
)
def test_a_hostile_record_is_refused_with_file_and_offset(tmp_path, record, message):
    with pytest.raises(FileFormatError, match=rf"case\.params: .*{message}.*at byte \d+ of"):
        load_bytes(tmp_path, listed([record]))


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (struct.pack("<3Q", 0x112, 0, 2**60), "do not fit into the file"),
        (listed([record_v2((6,), 0, F32.tobytes())], ["a", "b"]), "2 names for 1 arrays"),
        (listed([record_v2((6,), 0, F32.tobytes())] * 2, ["a", "a"]), "same name"),
        (listed([record_v2((6,), 0, F32.tobytes())]) + b"tail", "4 bytes follow"),
        (listed([])[:-8] + struct.pack("<2Q", 1, 9), "1 names for 0 arrays"),
        (b"", "neither"),
        (b"PK\x03\x04 and so on", "neither(.|\n)*numpy.load"),
        (b"<html>not found</html>", "neither(.|\n)*text file"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path, blob, message):
    with pytest.raises(FileFormatError, match=message):
        load_bytes(tmp_path, blob)


@pytest.mark.parametrize("suffix", [".params", ".safetensors"])
def test_every_truncation_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    save_arrays(path, {"w": example("float32"), "b": example("int64", (3,))})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=f"a{suffix}"):
            load_arrays(path)


@pytest.mark.parametrize("suffix", [".params", ".safetensors"])
def test_a_flipped_byte_never_crashes_or_allocates_much(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    save_arrays(path, {"w": example("float32"), "b": example("int64", (3,))})
    whole = path.read_bytes()
    tracemalloc.start()
    for position in range(len(whole)):
        for value in (0x00, 0x7F, 0xFF):
            path.write_bytes(whole[:position] + bytes([value]) + whole[position + 1 :])
            with contextlib.suppress(FileFormatError):
                load_arrays(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4_000_000


# --- safetensors headers ------------------------------------------------------------------


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_a_file_of_another_writer_is_read(tmp_path):
    header = {"__metadata__": {"format": "pt"}, "b": entry(4, 8), "a": entry(0, 4, (2,), "BF16")}
    data = struct.pack("<2H", 0x3FC0, 0xC000) + struct.pack("<f", 2.5)
    loaded = load_bytes(tmp_path, safetensors(header, data))
    same(loaded["a"], np.array([1.5, -2.0], np.float32))
    same(loaded["b"], np.array([2.5], np.float32))


def test_a_header_as_long_as_mxnets_magic_is_still_safetensors(tmp_path):
    text = json.dumps({"w": entry(0, 4)}).encode().ljust(0x112)
    same(load_bytes(tmp_path, safetensors(text, b"\0\0\0\0"))["w"], np.zeros(1, np.float32))


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (safetensors({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)), "overlaps"),
        (safetensors({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)), "overlaps"),
        (safetensors({"a": entry(4, 8)}, bytes(8)), "gap"),
        (safetensors({"a": entry(0, 4)}, bytes(8)), "take 4 bytes, but 8"),
        (safetensors({"a": entry(0, 8)}, bytes(8)), "does not fill"),
        (safetensors({"a": entry(0, 2**62, (2**60,))}, bytes(4)), "take"),
        (safetensors({"a": entry(4, 0)}, bytes(4)), "bad data_offsets"),
        (safetensors({"a": entry(-4, 0)}, bytes(4)), "bad data_offsets"),
        (safetensors({"a": entry(0, 4, (True,))}, bytes(4)), "bad shape"),
        (safetensors({"a": entry(0, 4, (1.0,))}, bytes(4)), "bad shape"),
        (safetensors({"a": entry(0, 4, (-1, -1))}, bytes(4)), "bad shape"),
        (safetensors({"a": entry(0, 0, (0, 2**62, 2**62))}), "no array can have"),
        (safetensors({"a": entry(0, 4, (1,), "F8_E4M3")}, bytes(4)), "unsupported dtype"),
        (safetensors({"a": entry(0, 4, (1,), ["F32"])}, bytes(4)), "unsupported dtype"),
        (safetensors({"a": 3}), "needs exactly"),
        (safetensors(b'{"a": 1, "a": 2}'), "twice"),
        (safetensors(b'{"a": ' + b"[" * 100_000), "not valid"),
        (safetensors(b'{"a": ' + b"9" * 10_000 + b"}"), "not valid"),
        (safetensors(b'{"\xff": 1}'), "not valid"),
        (struct.pack("<Q", 2**50) + b"{}", "limit"),
        (struct.pack("<Q", 2**20) + b"{}", "needs 1048576 bytes"),
    ],
)
def test_a_hostile_header_is_refused(tmp_path, blob, message):
    with pytest.raises(FileFormatError, match=rf"case\.params: (.|\n)*{message}"):
        load_bytes(tmp_path, blob)


# --- atomic replacement -------------------------------------------------------------------


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"half of the new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.params"
    save_arrays(path, {"w": example("int8")})

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        save_arrays(path, {"w": example("float64")})
    same(load_arrays(path)["w"], example("int8"))
    assert os.listdir(tmp_path) == ["a.params"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_a_kill_in_the_middle_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    child = os.fork()
    if child == 0:
        with atomic_write(path) as file:
            file.write(b"new")
            file.flush()
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")
def test_permissions_and_symbolic_links_are_kept(tmp_path):
    target = tmp_path / "target.bin"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link = tmp_path / "link.bin"
    link.symlink_to(target)
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640
    with atomic_write(tmp_path / "fresh.bin") as file:
        file.write(b"x")
    (tmp_path / "plain.bin").write_bytes(b"x")
    modes = {(tmp_path / name).stat().st_mode for name in ("fresh.bin", "plain.bin")}
    assert len(modes) == 1


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        save_arrays(tmp_path / "nowhere" / "a.params", {"w": example("int8")})
