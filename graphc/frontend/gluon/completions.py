"""Shapes that the call of a Block has told, to be forgotten again where it fails."""

from __future__ import annotations

import threading
from typing import Any, Protocol


class Waiting(Protocol):
    """A Parameter, as far as it matters here."""

    def defer_again(self, pending: Any) -> None:
        """Go back to waiting for a shape."""


class _Completions(threading.local):
    """Deferred initializations of the call of a Block that is running, to undo where it fails."""

    def __init__(self) -> None:
        self._made: list[tuple[Waiting, Any]] = []

    def note(self, parameter: Waiting, pending: Any) -> None:
        """Note a Parameter whose shape has become known."""
        self._made.append((parameter, pending))

    def keep(self) -> None:
        """Forget what was noted: the call has succeeded."""
        if self._made:
            self._made.clear()

    def undo(self) -> None:
        """Let all that was noted wait again, so that wrong data leaves no shapes behind."""
        for parameter, pending in self._made:
            parameter.defer_again(pending)
        self._made.clear()


Completed = _Completions()
