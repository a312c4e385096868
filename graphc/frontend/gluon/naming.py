"""MXNet's names of Blocks: ``dense0_``, counted within the Block whose ``name_scope`` is open."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from graphc.frontend.gluon.parameter_dict import ParameterDict


class _Current(threading.local):
    """The open ``name_scope`` of this thread, and the names given outside any."""

    def __init__(self) -> None:
        self.scope: NameScope | None = None
        self.counts: dict[str, int] = {}


_current = _Current()


def _numbered(counts: dict[str, int], hint: str) -> str:
    number = counts.get(hint, 0)
    counts[hint] = number + 1
    return f"{hint}{number}_"


class NameScope:
    """The scope in which the children of a Block get their names.

    Parameters
    ----------
    prefix : str
        Of the Block.
    block : Block
        Whose ``params`` new Blocks may share.
    """

    def __init__(self, prefix: str, block: Any) -> None:
        self._prefix, self._block = prefix, block
        self._counts: dict[str, int] = {}
        self._outer: list[NameScope | None] = []

    def __enter__(self) -> NameScope:
        self._outer.append(_current.scope)
        if self._prefix:  # An empty prefix names children as the scope around it does.
            _current.scope = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        _current.scope = self._outer.pop()

    @staticmethod
    def name_for(
        prefix: str | None, params: ParameterDict | None, hint: str
    ) -> tuple[str, ParameterDict]:
        """Return prefix and parameters of a new Block.

        Parameters
        ----------
        prefix : str or None
            As the user gave it; None counts.
        params : ParameterDict or None
            Whose Parameters to share.
        hint : str
            Class name in lower case.
        """
        scope = _current.scope
        if prefix is None:
            prefix = _numbered(_current.counts if scope is None else scope._counts, hint)
        full = prefix if scope is None else scope._prefix + prefix
        if params is not None:
            return full, ParameterDict(params.prefix, params)
        shared: Any = None if scope is None else scope._block.params._shared
        return full, ParameterDict(full, shared)
