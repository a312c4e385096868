"""Locks on buffers that programs update."""

from __future__ import annotations

import threading
import time

import pytest

from graphc.runtime import locks
from graphc.runtime.locks import alone, locks_of


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> locks.Locks:
    found = locks.Locks()
    monkeypatch.setattr(locks, "_locks", found)
    return found


def test_a_fork_frees_the_locks_of_other_threads(held: locks.Locks) -> None:
    wanted = locks_of([0, 64, 65, 128])
    assert wanted == 0b111
    alone(wanted).__enter__()
    held.gate.acquire()
    assert held.taken == wanted
    held.restart()
    with alone(locks_of([128, 0])):
        assert held.taken == 0b101
    assert not held.taken


def test_calls_that_share_a_lock_wait_and_others_do_not(held: locks.Locks) -> None:
    order: list[str] = []

    def enter(wanted: int, name: str) -> None:
        with alone(wanted):
            order.append(name)

    waiting = threading.Thread(target=enter, args=(0b110, "shared"))
    with alone(0b011):
        waiting.start()
        while not held.waiting:
            time.sleep(0.001)
        enter(0b100, "free")
        order.append("first")
    waiting.join()
    assert order == ["free", "first", "shared"]
    assert not held.taken and not held.waiting


def test_an_interrupt_while_waiting_leaves_no_lock(
    held: locks.Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alone(1):
        monkeypatch.setattr(held.freed, "wait", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError), alone(3):
            pytest.fail("not to be reached")
        assert held.taken == 1 and not held.waiting
    assert not held.taken
