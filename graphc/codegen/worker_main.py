"""A process that compiles kernels for another one; talks over its standard input and output."""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import sys
from typing import Any, BinaryIO

from graphc.codegen import numba_engine

IDLE_S = 60.0
"""A worker that gets nothing to do for this long ends."""

_LENGTH = struct.Struct("<Q")


def send(stream: BinaryIO, message: Any) -> None:
    """Write one message."""
    data = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one message.

    Raises
    ------
    EOFError
        If the other side is gone.
    """
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise EOFError("the other process is gone")
    (length,) = _LENGTH.unpack(header)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError("the other process is gone")
    return pickle.loads(data)


def main() -> None:
    """Answer ``(text, target)`` with object code, or None where it does not compile."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the whole group
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a stray print must not end up among the answers
    source = _Whole(requests)
    while select.select([requests], [], [], IDLE_S)[0]:
        try:
            text, target = receive(source)  # type: ignore[arg-type]
        except EOFError:
            return
        try:
            code: bytes | None = numba_engine.compile_source(text, target)
        except Exception as error:  # the parent compiles it again, and raises there
            print(f"graphc worker: {error}", file=sys.stderr)
            code = None
        send(answers, code)


class _Whole:
    """Reads exactly as many bytes as asked for, with no buffer that `select` cannot see."""

    def __init__(self, raw: BinaryIO):
        self.raw = raw

    def read(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count > 0:
            part = self.raw.read(count)
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)
