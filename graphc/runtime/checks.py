"""Checks on a device: the host goes on, and hears later of one that failed.

A device has one `Flag`. The first check to fail raises it and writes a `Report` into memory of the
host, which costs nothing to look at. While the flag is raised, launches that check or that change
what was there before they ran do nothing, so the report stays that of the first failure, and no
array is changed. The host clears the flag when it raises the error.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from graphc import lazy
from graphc.codegen.dispatch_layout import Flag, Report
from graphc.errors import Location, user_location
from graphc.runtime.bound import BoundTable

FLAG_BYTES = ctypes.sizeof(Flag)
KEPT = 64
"""Calls that are remembered before it is asked which of them are done."""
NUMBERS = 1 << 32


@dataclass(slots=True)
class Check:
    """A call with checks that may be under way.

    Attributes
    ----------
    number : int
        As the flag has it.
    program : BoundTable
    where : Location
        The line of the call.
    done : object
        An event behind it; None where it could not be started.
    undone : list of callable
        What sets back the counts of the host that belong to this call and to those after it.
    """

    number: int
    program: BoundTable[Any]
    where: Location
    done: Any = None
    undone: list[Callable[[], object]] = field(default_factory=list)


class Checks:
    """The checks of one device; used by one thread at a time.

    Parameters
    ----------
    name : str
        Of the device.
    memory : object
        Memory of it for a Flag.
    stream : object

    Attributes
    ----------
    flag : int
        Address of the Flag.
    """

    def __init__(self, name: str, memory: Any, stream: Any) -> None:
        self._name, self._memory, self._stream = name, memory, stream
        self.flag = int(memory.handle)
        report_bytes = ctypes.sizeof(Report)
        core = lazy.cuda_core()
        page = core.LegacyPinnedMemoryResource().allocate(report_bytes + FLAG_BYTES)
        self._page, start = page, int(page.handle)
        ctypes.memset(start, 0, report_bytes)
        Flag.from_address(start + report_bytes).report = start
        Flag.from_address(start + report_bytes).call = 0
        Flag.from_address(start + report_bytes).code = 0
        self._report = Report.from_address(start)
        self._code = ctypes.c_int64.from_address(start + Report.error.offset + 8)
        span = core.Buffer.from_handle
        first = span(start + report_bytes, FLAG_BYTES)
        span(self.flag, FLAG_BYTES).copy_from(first, stream=stream)
        self._call_there = span(self.flag + Flag.call.offset, 4)
        self._code_there = span(self.flag + Flag.code.offset, 8)
        self._number = 0
        self._calls: deque[Check] = deque()

    @property
    def under_way(self) -> bool:
        """Whether there may be checks that have not run yet."""
        return bool(self._calls)

    def begin(self, program: BoundTable[Any]) -> None:
        """Tell the device of a call of a program with checks; `end` is called behind it."""
        self._number = (self._number + 1) % NUMBERS
        self._call_there.fill(self._number.to_bytes(4, "little"), stream=self._stream)
        self._calls.append(Check(self._number, program, user_location()))

    def end(self) -> None:
        """Note that everything of the last call was put on the stream."""
        calls = self._calls
        calls[-1].done = self._stream.record()
        while len(calls) > KEPT and (calls[0].done is None or calls[0].done.is_done):
            if self._code.value:  # one of those that are done may be the one that failed
                break
            calls.popleft()

    def undo(self, action: Callable[[], object]) -> None:
        """Have something called if a check fails that is under way now."""
        if self._calls:
            self._calls[-1].undone.append(action)

    def settle(self) -> None:
        """Wait for all checks.

        Raises
        ------
        GraphcError
            What the first to fail found.
        """
        if self._calls:
            last = self._calls[-1].done or self._stream
            last.sync()
            self.passed()

    def passed(self) -> None:
        """Forget the checks, after a wait; raises as `settle`."""
        self.raise_found()
        self._calls.clear()

    def raise_found(self) -> None:
        """Raise what a check has found, if it is known by now; does not wait otherwise."""
        if not self._code.value:
            return
        self._stream.sync()  # then all is written, and no launch that looks at the flag is to run
        error, number = self._report.error, self._report.call
        launch, code, details = error.launch, error.code, tuple(error.detail)
        self._code.value = 0
        self._code_there.fill(0, stream=self._stream)
        calls, self._calls = self._calls, deque()
        while calls[-1].number != number:
            self._undo(calls.pop())
        failed = calls[-1]
        self._undo(failed)
        raise failed.program.failed_late(launch, code, details, failed.where, self._name)

    @staticmethod
    def _undo(call: Check) -> None:
        for action in reversed(call.undone):
            action()
