"""Calls of launch tables from Python: a builtin function in LLVM IR that takes and gives arrays.

What happens between the arrays of a call and its kernels is the same at every call: look where the
arrays lie, make results, tell the kernels, let other threads of Python run meanwhile. Python takes
a microsecond for it, native code a tenth. `Site` says what one builtin does; `called` makes it.

The code speaks to CPython through functions of its stable interface, and to NumPy through the table
that extension modules use. Of arrays it reads two fields, whose places NumPy's macros compile into
every extension module; they are checked once. Where one of these is not as expected, `called`
returns a function in Python that does the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from graphc.codegen.llvm_builder import Constant, Function, Module, Row
from graphc.codegen.llvm_types import I8, I32, I64, POINTER
from graphc.codegen.native.function import NativeFunction

NAME = "graphc_call"

DATA_OFFSET = object.__basicsize__
"""Where an array has the address of its elements: behind what every object has."""
_FLAGS_OFFSET = DATA_OFFSET + 48
USABLE = 0x0101
"""NumPy's flags of an array that kernels take as it is: C-contiguous and aligned."""
NOT_TAKEN = 0
"""What a builtin returns where it has done nothing."""

CallArrays = Callable[[list[Any]], list[np.ndarray] | int]
"""What `called` returns."""

_FUNCTIONS = {
    "PyLong_AsVoidPtr": "pp",
    "PyLong_FromLong": "pq",
    "PyList_Size": "qp",
    "PyList_GetItem": "ppq",
    "PyList_New": "pq",
    "PyList_SetItem": "ipqp",
    "PyEval_SaveThread": "p",
    "PyEval_RestoreThread": "vp",
    "Py_IncRef": "vp",
    "Py_DecRef": "vp",
}
"""CPython's stable interface, as far as it is used; letters as of `NativeFunction.library`."""
_NEW_ARRAY = "graphc_new_array"
_NUMPY_ABI = 0x2000000
_NUMPY_VERSION, _NUMPY_NEW_ARRAY = 0, 94
"""Numbers in NumPy's table of functions, which never change: PyArray_GetNDArrayCVersion and
PyArray_NewFromDescr."""


class Site(ctypes.Structure):
    """What one builtin does; all fields are 8 bytes, addresses where nothing else is said.

    ``call(arrays)`` takes a list: an array for each input, behind them, for as many results as it
    likes, an array that the result is written to, or None. It returns the list of results. Where
    an input is not `USABLE`, or one that was elsewhere at the last call may share memory with one
    that is updated, it returns `NOT_TAKEN`, and what a kernel that failed returned as a number.
    One thread at a time may be in a call.

    Attributes
    ----------
    call : Call
    input_count, output_count : int
    addresses : array of int
        Where each input and output of the last call lay. Those of inputs are known not to share
        memory where one of them is updated; Python writes them where it looked closer.
    n_bytes : array of int
        Of each input.
    updated, updated_count : array of int, int
        Which inputs the kernels write to.
    stores, store_count : array of (int, int), int
        Pairs: the entry of ``pointers`` that gets an address, which of ``addresses`` it is.
    pointers : array of int
        What kernels are handed.
    made : array of int
        For each result the address of its dtype, the number of its axes, and their sizes.
    array_type, none : object
        `numpy.ndarray` and None.
    """

    _fields_ = [
        ("call", ctypes.c_void_p),
        ("input_count", ctypes.c_int64),
        ("output_count", ctypes.c_int64),
        ("addresses", ctypes.c_void_p),
        ("n_bytes", ctypes.c_void_p),
        ("updated", ctypes.c_void_p),
        ("updated_count", ctypes.c_int64),
        ("stores", ctypes.c_void_p),
        ("store_count", ctypes.c_int64),
        ("pointers", ctypes.c_void_p),
        ("made", ctypes.c_void_p),
        ("array_type", ctypes.c_void_p),
        ("none", ctypes.c_void_p),
    ]


_NULL = Row(POINTER, "null")


class _Body(NativeFunction):
    """A function that calls CPython's and reads a Site."""

    def python(self, name: str, *arguments: Row) -> Row:
        """Call a function of CPython's."""
        return self.library(name, _FUNCTIONS[name], *arguments)

    def of(self, site: Row, name: str) -> Row:
        """Return a field of a Site."""
        return self.load(site, Site, name)

    def data(self, array: Row) -> Row:
        """Return where the elements of an array lie."""
        return self.get_word(self.builder.gep(array, self.constant(DATA_OFFSET), I8), 0)


def _apart(module: Module) -> Function:
    """``i64 apart(Site *, i64 input, i64 start)``: whether an input that moved meets no update."""
    body = _Body(module, "graphc_apart", "q", "pqq")
    builder, (site, number, start) = body.builder, body.arguments
    addresses, sizes, updated = (body.of(site, n) for n in ("addresses", "n_bytes", "updated"))
    no = body.constant(0)
    stop = builder.add(start, body.get_word(sizes, number))
    with body.count(body.of(site, "updated_count")) as index:
        other = body.get_word(updated, index)
        first = body.get_word(addresses, other)
        last = builder.add(first, body.get_word(sizes, other))
        meets = builder.and_(
            builder.icmp_unsigned("<", start, last), builder.icmp_unsigned("<", first, stop)
        )
        itself = builder.icmp_signed("==", number, other)
        body.leave_if(builder.or_(meets, itself), no)
    return body.returns(body.constant(1))


def _take(module: Module, apart: Function) -> Function:
    """``i64 take(Site *, list)``: note where inputs lie; 0 where one cannot be taken as it is."""
    body = _Body(module, "graphc_take", "q", "pp")
    builder, (site, arrays) = body.builder, body.arguments
    addresses, updated_count = body.of(site, "addresses"), body.of(site, "updated_count")
    no, usable = body.constant(0), Constant(I32, USABLE)
    with body.count(body.of(site, "input_count")) as index:
        array = body.python("PyList_GetItem", arrays, index)
        place = builder.gep(array, body.constant(_FLAGS_OFFSET), I8)
        flags = builder.and_(builder.load(place, I32, 4), usable)
        body.leave_if(builder.icmp_signed("!=", flags, usable), no)
        data, before = body.data(array), body.get_word(addresses, index)
        moved = builder.icmp_signed("!=", data, before)
        asked = builder.and_(moved, body.is_set(updated_count))
        with builder.if_then(asked):
            body.leave_if(body.is_zero(builder.call(apart, [site, index, data])), no)
        body.put_word(data, addresses, index)
    return body.returns(body.constant(1))


def _make(module: Module) -> Function:
    """``PyObject *make(Site *, list)``: the list of results, null where there is no memory."""
    body = _Body(module, "graphc_make", "p", "pp")
    builder, (site, arrays) = body.builder, body.arguments
    new = module.declare(
        _NEW_ARRAY, POINTER, [POINTER, POINTER, I32, POINTER, POINTER, POINTER, I32, POINTER]
    )
    inputs, outputs, none = (body.of(site, n) for n in ("input_count", "output_count", "none"))
    given, nothing = body.python("PyList_Size", arrays), Constant(I32, 0)
    results = body.python("PyList_New", outputs)
    body.leave_if(body.is_zero(results), _NULL)
    made = body.variable(builder.ptrtoint(body.of(site, "made"), I64))
    with body.count(outputs) as index:
        number = builder.add(inputs, index)
        what = builder.inttoptr(body.get(made), POINTER)
        dtype, axes = builder.load(what, POINTER, 8), body.get_word(what, 1)
        body.increase(made, builder.mul(builder.add(axes, body.constant(2)), body.constant(8)))
        chosen = body.variable(none)
        with builder.if_then(builder.icmp_signed("<", number, given)):
            builder.store(body.python("PyList_GetItem", arrays, number), chosen)
        absent = builder.icmp_unsigned("==", builder.load(chosen, POINTER), none)
        body.python("Py_IncRef", builder.select(absent, dtype, builder.load(chosen, POINTER)))
        with builder.if_then(absent):  # the reference to the type is the new array's
            kind, count = body.of(site, "array_type"), builder.trunc(axes, I32)
            shape = body.word(what, 2)
            fresh = builder.call(new, [kind, dtype, count, shape, _NULL, _NULL, nothing, _NULL])
            with builder.if_then(body.is_zero(fresh)):
                body.python("Py_DecRef", results)
                builder.ret(_NULL)
            builder.store(fresh, chosen)
        array = builder.load(chosen, POINTER)
        body.put_word(body.data(array), body.of(site, "addresses"), number)
        body.python("PyList_SetItem", results, index, array)
    return body.returns(results)


def _store(body: _Body, site: Row) -> None:
    """Put the addresses of a call's arrays where its kernels look for them."""
    addresses, stores, pointers = (body.of(site, n) for n in ("addresses", "stores", "pointers"))
    with body.count(body.of(site, "store_count")) as index:
        pair = body.word(stores, body.builder.mul(index, body.constant(2)))
        found = body.get_word(addresses, body.get_word(pair, 1))
        body.put_word(found, pointers, body.get_word(pair, 0))


def write(module: Module, run: Function) -> None:
    """Define ``PyObject *graphc_call(PyObject *address, PyObject *list)`` in a module.

    Parameters
    ----------
    module : Module
    run : Function
        The module's ``graphc_run``.
    """
    take, make = _take(module, _apart(module)), _make(module)
    body = _Body(module, NAME, "p", "pp", internal=False)
    builder, (address, arrays) = body.builder, body.arguments
    site = body.python("PyLong_AsVoidPtr", address)
    with builder.if_then(body.is_zero(builder.call(take, [site, arrays]))):
        builder.ret(body.python("PyLong_FromLong", body.constant(NOT_TAKEN)))
    results = builder.call(make, [site, arrays])
    body.leave_if(body.is_zero(results), _NULL)
    _store(body, site)
    thread = body.python("PyEval_SaveThread")
    status = builder.call(run, [body.of(site, "call")])
    body.python("PyEval_RestoreThread", thread)
    with builder.if_then(body.is_set(status)):
        body.python("Py_DecRef", results)
        builder.ret(body.python("PyLong_FromLong", builder.sext(status, I64)))
    body.returns(results)


class _Method(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p), ("code", ctypes.c_void_p), ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]  # fmt: skip


_ONE_ARGUMENT = 8  # METH_O
_BUILTIN = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)


@cache
def symbols() -> dict[str, int] | None:
    """Return the addresses of what the code calls; None where Python or NumPy is another one."""
    try:
        found = {name: _address(getattr(ctypes.pythonapi, name)) for name in _FUNCTIONS}
        table = _numpy_table()
    except AttributeError:
        return None
    version = ctypes.PYFUNCTYPE(ctypes.c_uint)(table[_NUMPY_VERSION])
    if version() != _NUMPY_ABI or not _as_expected():
        return None
    return {**found, _NEW_ARRAY: table[_NUMPY_NEW_ARRAY]}


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _numpy_table() -> Any:
    kind = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    pointer = kind(_address(ctypes.pythonapi.PyCapsule_GetPointer))
    capsule = np._core._multiarray_umath._ARRAY_API  # type: ignore[attr-defined]
    return ctypes.cast(pointer(capsule, None), ctypes.POINTER(ctypes.c_void_p))


def _as_expected() -> bool:
    """Return whether arrays have address and flags where they are looked for."""
    plain = np.zeros((3, 4), np.float32)
    read_only = np.zeros(2)
    read_only.flags.writeable = False
    return all(
        address(array) == array.__array_interface__["data"][0]
        and ctypes.c_int.from_address(id(array) + _FLAGS_OFFSET).value == array.flags.num
        for array in (plain, plain.T, plain[:, 1:], plain[1], read_only, np.zeros(()))
    )


pointer_at = ctypes.c_uint64.from_address


def address(array: np.ndarray) -> int:
    """Return the address of an array's first element."""
    return pointer_at(id(array) + DATA_OFFSET).value


def words(numbers: Iterable[int]) -> Any:
    """Return an array as a Site refers to: it is never empty, so it has an address."""
    found = tuple(numbers)
    return (ctypes.c_int64 * max(len(found), 1))(*found)


def made(outputs: Iterable[tuple[tuple[int, ...], np.dtype[Any]]]) -> Any:
    """Return what a Site tells of results, from their shapes and types, which must stay alive."""
    return words(n for shape, dtype in outputs for n in (id(dtype), len(shape), *shape))


_methods: dict[int, _Method] = {}


def called(
    code: int, run: Callable[[int], int], site: Site, outputs: Sequence[tuple[Any, Any]]
) -> CallArrays:
    """Return the function that a Site describes; its caller keeps alive what the Site refers to.

    Parameters
    ----------
    code : int
        Address of ``graphc_call``; 0 where there is none.
    run : callable
        ``graphc_run``, for a function in Python.
    site : Site
    outputs : sequence of (tuple of int, numpy.dtype)
        Shape and type of each result.
    """
    site.array_type, site.none = id(np.ndarray), id(None)
    if not code:
        return _InPython(run, site, outputs)
    method = _methods.get(code)
    if method is None:
        method = _Method(NAME.encode(), code, _ONE_ARGUMENT, None)
        method = _methods.setdefault(code, method)
    new = _BUILTIN(_address(ctypes.pythonapi.PyCFunction_NewEx))
    function: CallArrays = new(ctypes.addressof(method), ctypes.addressof(site), None)
    return function


class _InPython:
    """What the builtin does, in Python."""

    def __init__(
        self, run: Callable[[int], int], site: Site, outputs: Sequence[tuple[Any, Any]]
    ) -> None:
        self._run, self._site, self._outputs = run, site, outputs

    def __call__(self, arrays: list[Any]) -> list[np.ndarray] | int:
        site = self._site
        if not self._take(arrays[: site.input_count]):
            return NOT_TAKEN
        given = [*arrays[site.input_count :], *[None] * len(self._outputs)]
        results = [
            np.empty(shape, dtype) if array is None else array
            for (shape, dtype), array in zip(self._outputs, given, strict=False)
        ]
        addresses, pointers = _words(site.addresses), _words(site.pointers)
        for number, array in enumerate(results, site.input_count):
            addresses[number] = _place(array)
        for entry in range(site.store_count):
            position, number = _words(site.stores)[2 * entry : 2 * entry + 2]
            pointers[position] = addresses[number]
        return self._run(site.call) or results

    def _take(self, arrays: Sequence[np.ndarray]) -> bool:
        site = self._site
        addresses, sizes = _words(site.addresses), _words(site.n_bytes)
        updated = _words(site.updated)[: site.updated_count]
        for number, array in enumerate(arrays):
            start = _place(array)
            if array.flags.num & USABLE != USABLE:
                return False
            if start != addresses[number]:
                spans = [(addresses[i], addresses[i] + sizes[i]) for i in updated]
                stop = start + array.nbytes
                if number in updated or any(a < stop and start < b for a, b in spans):
                    return False
            addresses[number] = start
        return True


def _words(place: int) -> Any:
    return ctypes.cast(place, ctypes.POINTER(ctypes.c_int64))


def _place(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])
