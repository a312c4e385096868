"""Messages over a socket: a pickle and, out of band, the memory of the arrays in it.

A socket needs no shared memory, so a small ``/dev/shm`` is enough, and it tells both sides at
once when the other one is gone. Frame: u32 count, count times u64 length, then the parts.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

Frame = list[Any]


def encode(message: Any) -> Frame:
    """Return the parts to send: header with pickle first, then one buffer per array."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    lengths = [len(body), *(part.nbytes for part in raw)]
    header = struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths)
    return [header + body, *raw]


def send(channel: socket.socket, frame: Frame) -> None:
    """Send what :func:`encode` gave."""
    for part in frame:
        channel.sendall(part)


def receive(read_into: Callable[[memoryview], None]) -> Any:
    """Return the next message.

    Parameters
    ----------
    read_into : callable
        Fills the memory it is given from the channel, or raises.
    """
    count = struct.unpack("<I", _read(read_into, 4))[0]
    lengths = struct.unpack(f"<{count}Q", _read(read_into, 8 * count))
    body, *buffers = [_read(read_into, length) for length in lengths]
    return pickle.loads(body, buffers=buffers)


def read_blocking(channel: socket.socket) -> Callable[[memoryview], None]:
    """Return a reader for :func:`receive` that waits for as long as it takes.

    It raises EOFError when the other side is gone.
    """

    def read_into(memory: memoryview) -> None:
        while memory.nbytes:
            count = channel.recv_into(memory)
            if count == 0:
                raise EOFError
            memory = memory[count:]

    return read_into


def _read(read_into: Callable[[memoryview], None], size_bytes: int) -> memoryview:
    # NumPy's memory is not cleared first, a bytearray's would be.
    memory = np.empty(size_bytes, np.uint8).data
    read_into(memory)
    return memory
