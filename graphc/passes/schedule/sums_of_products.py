"""Which schedule a sum of products gets: by what its factors share and how they are read."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.loop import Kernel
from graphc.ir.target import Target
from graphc.passes.schedule import (
    channel_windows,
    contraction,
    direct,
    overlaps,
    phases,
    sliding,
    weight_gradient,
)
from graphc.passes.schedule.nest import Nest


def schedule(
    kernel: Kernel, plain: Sequence[Nest], items: tuple[Nest, ...], target: Target
) -> Kernel | None:
    """Return the kernel of a contraction or of windows that slide over planes.

    Parameters
    ----------
    kernel : Kernel
        The plain kernel.
    plain : sequence of Nest
        Its stores, every reduction as it is.
    items : tuple of Nest
        The same with small windows written out and axes merged.
    target : Target

    Returns
    -------
    Kernel or None
        None where the kernel is neither.
    """
    found = phases.find(items)
    split = phases.split(items, found) if found else items
    matched = contraction.match(split)
    if matched is None:
        windows = channel_windows.match(plain)
        if windows is not None:
            return channel_windows.schedule(kernel, plain, windows, target)
        window = sliding.match(plain)
        return None if window is None else sliding.schedule(kernel, plain, window, target)
    gradient = weight_gradient.match(matched)
    if gradient is not None:
        return weight_gradient.schedule(kernel, split, gradient, target)
    overlapping = overlaps.match(matched, target)
    if overlapping is not None:
        return overlaps.schedule(kernel, split, overlapping, target)
    in_place = direct.match(matched, target)
    if in_place is not None:
        return direct.schedule(kernel, split, in_place, target)
    blocks = contraction.schedule(kernel, split, matched, target)
    return phases.in_turn(kernel, found, blocks) if found else blocks
