"""Normalisation as functions; batch norm keeps running statistics in its operands."""

from __future__ import annotations

from typing import Any

from graphc.frontend.array import mode as scopes
from graphc.frontend.assign import assign
from graphc.frontend.ops.operator import operator
from graphc.ir.ops import arithmetic, normalization, reduction, statistics
from graphc.ir.ops.basic import stop_gradient


def _three(output_mean_var: bool = False, **_: Any) -> tuple[str, ...]:
    return ("output", "mean", "var") if output_mean_var else ("output",)


@operator(
    "BatchNorm",
    inputs=("data", "gamma", "beta", "moving_mean", "moving_var"),
    aux=("moving_mean", "moving_var"),
    outputs=_three,
)
def BatchNorm(
    data: Any, gamma: Any, beta: Any, moving_mean: Any, moving_var: Any, eps: float = 1e-3,
    momentum: float = 0.9, fix_gamma: bool = True, use_global_stats: bool = False,
    output_mean_var: bool = False, axis: int = 1, cudnn_off: bool = False,
    min_calib_range: float | None = None, max_calib_range: float | None = None,
) -> Any:  # fmt: skip
    """Normalise each channel, in training by the statistics of the batch.

    In training ``moving = moving * momentum + batch * (1 - momentum)``, with the biased variance,
    is written into the moving statistics.

    Parameters
    ----------
    data : array
    gamma, beta : array, shape (C,)
    moving_mean, moving_var : array, shape (C,)
    eps : float
        Added to the variance.
    momentum : float
    fix_gamma : bool
        Take gamma as 1.
    use_global_stats : bool
        Normalise by the moving statistics in training too.
    output_mean_var : bool
        Return mean and variance as well.
    axis : int
        The channel axis.
    """
    scale = None if fix_gamma else gamma
    if use_global_stats or not scopes.training:
        found = normalization.batch_norm_inference(
            data, scale, beta, moving_mean, moving_var, axis, eps
        )
        return [found, moving_mean, moving_var] if output_mean_var else found
    found, mean, var = normalization.batch_norm(data, scale, beta, axis, eps)
    for moving, batch in ((moving_mean, mean), (moving_var, var)):
        follow(moving, batch, momentum)
    return [found, mean, var] if output_mean_var else found


def follow(moving: Any, batch: Any, momentum: float) -> None:
    """Write ``moving * momentum + batch * (1 - momentum)`` into ``moving``; no gradient."""
    recording, scopes.recording = scopes.recording, False
    try:
        assign(moving, moving * momentum + stop_gradient(batch) * (1 - momentum))
    finally:
        scopes.recording = recording


@operator("LayerNorm", inputs=("data", "gamma", "beta"), outputs=_three)
def LayerNorm(
    data: Any, gamma: Any, beta: Any, axis: int = -1, eps: float = 1e-5,
    output_mean_var: bool = False,
) -> Any:  # fmt: skip
    """Return ``(x - mean) / sqrt(var + eps) * gamma + beta`` over an axis.

    Parameters
    ----------
    data : array
    gamma, beta : array
        Of the size of the axis.
    axis : int
    eps : float
        Added to the variance.
    output_mean_var : bool
        Return mean and standard deviation, with the axis as size 1, as well.
    """
    found = normalization.layer_norm(data, gamma, beta, axis, eps)
    if not output_mean_var:
        return found
    var = statistics.var(data, axis, 0, True)
    return [found, reduction.mean(data, axis, True), arithmetic.sqrt(var + eps)]


@operator("InstanceNorm", inputs=("data", "gamma", "beta"))
def InstanceNorm(data: Any, gamma: Any, beta: Any, eps: float = 1e-3) -> Any:
    """Normalise each channel (axis 1) of each example over its spatial axes."""
    return normalization.instance_norm(data, gamma, beta, eps)


@operator("GroupNorm", inputs=("data", "gamma", "beta"))
def GroupNorm(data: Any, gamma: Any, beta: Any, num_groups: int = 1, eps: float = 1e-5) -> Any:
    """Normalise groups of channels (axis 1) of each example, then scale each channel."""
    return normalization.group_norm(data, int(num_groups), gamma, beta, eps)
