"""Names of nodes that were given none: ``fullyconnected0``, ``_plus1``, with a prefix."""

from __future__ import annotations

import threading
from typing import Any


class NameManager:
    """Counts the nodes of each kind within a ``with`` block and names them.

    Examples
    --------
    >>> with NameManager() as names:
    ...     names.get(None, "convolution"), names.get(None, "convolution"), names.get("fc1", "x")
    ('convolution0', 'convolution1', 'fc1')
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def get(self, name: str | None, hint: str) -> str:
        """Return ``name``, or where it is None the next one of the kind ``hint``."""
        if name:
            return name
        count = self._counts.get(hint, 0)
        self._counts[hint] = count + 1
        return f"{hint}{count}"

    def __enter__(self) -> NameManager:
        _managers.entered.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        _managers.entered.pop()


class Prefix(NameManager):
    """A NameManager that puts a prefix before every name, given ones too.

    Parameters
    ----------
    prefix : str

    Examples
    --------
    >>> with Prefix("left_") as names:
    ...     names.get(None, "dot"), names.get("fc1", "fullyconnected")
    ('left_dot0', 'left_fc1')
    """

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def get(self, name: str | None, hint: str) -> str:
        """Return the name with the prefix."""
        return self.prefix + super().get(name, hint)


class _Managers(threading.local):
    """The ``with`` blocks this thread is in, innermost last."""

    def __init__(self) -> None:
        self.entered: list[NameManager] = [NameManager()]


_managers = _Managers()


def current_names() -> NameManager:
    """Return the NameManager of the innermost ``with`` block."""
    return _managers.entered[-1]
