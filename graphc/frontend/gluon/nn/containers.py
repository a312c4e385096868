"""Blocks that run other Blocks one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphc.errors import ArgumentError, IndexRangeError, user_location
from graphc.frontend.gluon.block import Block
from graphc.frontend.gluon.hybrid_block import HybridBlock


class _Chain(Block):
    """What Sequential and HybridSequential share."""

    def add(self, *blocks: Block) -> None:
        """Append Blocks."""
        for block in blocks:
            if not isinstance(block, Block):
                raise ArgumentError(
                    f"{type(self).__name__}.add takes Blocks, got {type(block).__name__}",
                    remedy="Wrap a function in nn.Lambda or nn.HybridLambda.",
                    where=user_location(),
                )
            self.register_child(block)

    def forward(self, x: Any, *args: Any) -> Any:
        """Run the Blocks in order; further arguments go to the first."""
        for block in self._children.values():
            x = block(x, *args)
            args = ()
            if isinstance(x, (tuple, list)):
                x, args = x[0], tuple(x[1:])
        return (x, *args) if args else x

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Block]:
        return iter(self._children.values())

    def __getitem__(self, key: int | slice) -> Any:
        blocks = list(self._children.values())
        if not isinstance(key, slice):
            if not -len(blocks) <= key < len(blocks):
                raise IndexRangeError(
                    f"there is no layer {key} in a {type(self).__name__} of {len(blocks)}",
                    where=user_location(),
                )
            return blocks[key]
        part = type(self)(prefix=self._prefix)
        for block in blocks[key]:
            name = block._attribute
            part.register_child(block)
            block.__dict__["_attribute"] = name
        return part


class Sequential(_Chain):
    """Blocks run one after the other.

    Examples
    --------
    >>> from graphc.gluon import nn
    >>> net = nn.Sequential()
    >>> net.add(nn.Dense(10, activation="relu"), nn.Dense(2))
    >>> len(net)
    2
    """


class HybridSequential(_Chain, HybridBlock):
    """Blocks run one after the other, which can be compiled as one program."""
