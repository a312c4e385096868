"""Memory that threads share, and the races of what they touch of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import VerifyError

Array = np.ndarray[Any, Any]


class SharedMemory:
    """Memory, and who touched what of it: threads are numbered through all blocks.

    Of readers the last one is known, whether others of its block have read since the last barrier,
    and whether some of other blocks ever have.

    Parameters
    ----------
    kernel, name : str
    data : numpy.ndarray
        Flat: what all blocks share, or the memory of one block after the other.
    size : int
        How many elements of it a thread sees.
    threads : int
        Threads of a block.
    watched : bool
        Whether it is written at all, so that there may be races.
    scratch : bool
        Whether it must be written before it is read.
    """

    def __init__(
        self, kernel: str, name: str, data: Array, size: int, threads: int, watched: bool,
        scratch: bool = False,
    ) -> None:  # fmt: skip
        self.kernel, self.name, self.data, self.size = kernel, name, data, size
        self.threads, self.watched, self.scratch = threads, watched, scratch
        size = data.size if watched else 0
        self.writer, self.reader = np.full(size, -1), np.full(size, -1)
        self.written_at, self.read_at = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.several, self.across = np.zeros(size, bool), np.zeros(size, bool)

    def read(self, place: Array, thread: Array, time: Array) -> None:
        """Note that threads read elements, each after ``time`` barriers.

        Raises
        ------
        VerifyError
            Where another thread has written since the last barrier, or one of another block, or
            none to scratch memory.
        """
        writer = self.writer[place]
        if self.scratch and (writer < 0).any():
            at = int(np.argmax(writer < 0))
            raise VerifyError(
                f"{self.kernel}: {self._element(place[at])} is read by {self._thread(thread[at])}, "
                "but not written"
            )
        other = (writer >= 0) & (writer != thread)
        self._check(other & self._unordered(writer, thread, self.written_at[place], time),
                    place, thread, writer, "reads", "writes")  # fmt: skip
        last = self.reader[place]
        here = (last >= 0) & self._same_block(last, thread)
        self.across[place[(last >= 0) & ~here]] = True
        now = here & (self.read_at[place] == time)
        self.several[place[~now]] = False
        self.several[place[now & (last != thread)]] = True
        self.reader[place], self.read_at[place] = thread, time
        winner = self.reader[place]
        self.several[place[winner != thread]] = True
        self.across[place[~self._same_block(winner, thread)]] = True

    def write(self, place: Array, thread: Array, time: Array) -> None:
        """Note that threads write elements, each after ``time`` barriers.

        Raises
        ------
        VerifyError
            Where another thread has read or written since the last barrier, or does so now, or one
            of another block ever has.
        """
        writer, reader = self.writer[place], self.reader[place]
        other = (writer >= 0) & (writer != thread)
        self._check(other & self._unordered(writer, thread, self.written_at[place], time),
                    place, thread, writer, "writes", "writes")  # fmt: skip
        several = (reader != thread) | self.several[place]
        unordered = several & self._unordered(reader, thread, self.read_at[place], time)
        self._check((reader >= 0) & (unordered | self.across[place]),
                    place, thread, reader, "writes", "reads")  # fmt: skip
        self.writer[place], self.written_at[place] = thread, time
        winner = self.writer[place]
        self._check(winner != thread, place, thread, winner, "writes", "writes")

    def _same_block(self, one: Array, other: Array) -> Array:
        return np.asarray(one // self.threads == other // self.threads)

    def _unordered(self, one: Array, other: Array, time: Array, now: Array) -> Array:
        """Return whether no barrier lies between an access of ``one`` and of ``other``."""
        return np.asarray(~self._same_block(one, other) | (time == now))

    def _check(
        self, wrong: Array, place: Array, thread: Array, other: Array, does: str, did: str
    ) -> None:
        if wrong.any():
            at = int(np.argmax(wrong))
            raise VerifyError(
                f"{self.kernel}: a race at {self._element(place[at])}: "
                f"{self._thread(thread[at])} {does} what {self._thread(other[at])} {did}"
            )

    def _element(self, place: int) -> str:
        return f"{self.name}[{place % self.size}]"

    def _thread(self, number: int) -> str:
        return f"thread {number % self.threads} of block {number // self.threads}"
