"""The one seed that governs everything random, shuffling included.

Device kernels draw from a counter-based generator addressed by (seed, counter); what runs on
the host (shuffling, the seeds of DataLoader workers) draws from :func:`host_generator`.
"""

from __future__ import annotations

import threading

import numpy as np

_lock = threading.Lock()
_seed = 0
_counter = 0
_host = np.random.default_rng(0)


def seed(seed_state: int) -> None:
    """Restart every random stream of graphc.

    Parameters
    ----------
    seed_state : int
        Any integer; equal seeds give equal draws.
    """
    global _seed, _counter, _host
    with _lock:
        _seed, _counter = int(seed_state) & 0x7FFFFFFFFFFFFFFF, 0
        _host = np.random.default_rng(_seed)


def host_generator() -> np.random.Generator:
    """Return the generator of the host, the same object until the next :func:`seed`."""
    return _host


def state() -> tuple[int, int]:
    """Return ``(seed, counter)``: where the next random operation starts."""
    with _lock:
        return _seed, _counter


def advance(n: int) -> tuple[int, int]:
    """Move the counter on by ``n`` operations; return ``(seed, counter)`` of the first."""
    global _counter
    with _lock:
        first = _counter
        _counter += int(n)
        return _seed, first
