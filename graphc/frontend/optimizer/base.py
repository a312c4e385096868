"""What an optimizer is: state and update of one parameter, written in graph ops.

`update` works on arrays and on traced values alike, so the update of all parameters is one
program. Learning rate, weight decay, rescaling and step number reach it as 0-d arrays: changing
them compiles nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from graphc.errors import ArgumentError, UnknownNameError, nearest, user_location
from graphc.frontend.lr_scheduler import LRScheduler
from graphc.frontend.numeric import number
from graphc.ir.ops.arithmetic import clip
from graphc.ir.ops.basic import cast
from graphc.ir.ops.comparison import not_equal, where
from graphc.ir.ops.reduction import any as any_element

C = TypeVar("C", bound="type[Optimizer]")
State = tuple[Any, ...]
_registry: dict[str, type[Optimizer]] = {}


def register(cls: C) -> C:
    """Class decorator: make an optimizer known to :func:`create` by its class name."""
    _registry[cls.__name__.lower()] = cls
    return cls


def create(name: str | Optimizer, **kwargs: Any) -> Optimizer:
    """Return an optimizer from its name.

    Parameters
    ----------
    name : str or Optimizer
        In any case, ``"sgd"``; an Optimizer is returned as it is.
    **kwargs
        Arguments of the optimizer.

    Raises
    ------
    UnknownNameError
        No optimizer has that name; gives the nearest one.
    ArgumentError
        The optimizer has no such argument; gives the nearest one.
    """
    if isinstance(name, Optimizer):
        if kwargs:
            raise ArgumentError(
                "optimizer_params cannot be given beside an Optimizer object",
                remedy=f"Pass them to {type(name).__name__}(...).",
                where=user_location(),
            )
        return name
    if not isinstance(name, str) or name.lower() not in _registry:
        raise UnknownNameError(
            f"there is no optimizer {name!r}.{nearest(str(name).lower(), _registry)}",
            remedy=f"Known are {', '.join(sorted(_registry))}.",
            where=user_location(),
        )
    return _registry[name.lower()](**kwargs)


_IGNORED = ("multi_precision", "lazy_update", "aggregate_num", "use_fused_step", "sym")
"""Arguments of MXNet's optimizers that choose between ways to compute the same."""

_BASE = (
    "learning_rate", "lr_scheduler", "wd", "rescale_grad", "clip_gradient", "begin_num_update",
    "param_idx2name", "param_dict",
)  # fmt: skip


_PLAIN = frozenset(
    {bool, int, float, str, type(None), np.float32, np.float64, np.int32, np.int64, np.bool_}
)
_TAKEN_IN = frozenset({"lr", "wd", "rescale_grad", "num_update", "begin_num_update"})
"""Attributes that reach a compiled update as arrays, or not at all."""


class Optimizer:
    """Base of the optimizers.

    Parameters
    ----------
    learning_rate : float, optional
        By default 0.01, or the schedule's. A negative one climbs, as in MXNet; NaN is an error.
    lr_scheduler : LRScheduler, optional
        Gives the learning rate for the number of updates; ``learning_rate`` is then its base.
    wd : float
        Weight decay.
    rescale_grad : float
        Factor of every gradient.
    clip_gradient : float, optional
        Gradients are limited to ``-clip_gradient .. clip_gradient``, element by element, where
        it is positive.
    begin_num_update : int
        Number of updates made before.
    param_idx2name : dict of int to str, optional
    param_dict : dict of int to Parameter, optional
        Parameters, whose ``lr_mult`` and ``wd_mult`` count.
    """

    default_learning_rate = 0.01
    lazy_update = False

    def __init__(
        self,
        learning_rate: float | None = None,
        lr_scheduler: LRScheduler | None = None,
        wd: float = 0.0,
        rescale_grad: float = 1.0,
        clip_gradient: float | None = None,
        begin_num_update: int = 0,
        param_idx2name: dict[int, str] | None = None,
        param_dict: dict[int, Any] | None = None,
        **unknown: Any,
    ) -> None:
        for name in unknown:
            if name not in _IGNORED:
                raise self._unknown_argument(name)
        if learning_rate is None:
            learning_rate = self.default_learning_rate
        elif lr_scheduler is not None:
            lr_scheduler.base_lr = self._number("learning_rate", learning_rate)
        self.lr = self._number("learning_rate", learning_rate)
        self.lr_scheduler = lr_scheduler
        self.wd = self._number("wd", wd)
        self.rescale_grad = self._number("rescale_grad", rescale_grad)
        self.clip_gradient = self._optional("clip_gradient", clip_gradient)
        self.begin_num_update = self.num_update = int(begin_num_update)
        self.idx2name = dict(param_idx2name or {})
        self.param_dict = dict(param_dict or {})
        self.lr_mult: dict[Any, float] = {}
        self.wd_mult: dict[Any, float] = {}
        self.counts: dict[int, int] = {}
        self._last_factors: tuple[Any, tuple[tuple[float, float], ...]] = None, ()

    def _number(self, name: str, value: Any) -> float:
        return number(type(self).__name__, name, value)

    def _optional(self, name: str, value: Any) -> float | None:
        return None if value is None else self._number(name, value)

    def _unknown_argument(self, name: str) -> ArgumentError:
        own = [n for n in type(self).__init__.__annotations__ if n not in ("return", "kwargs")]
        known = sorted({*own, *_BASE} - {"unknown"})
        return ArgumentError(
            f"{type(self).__name__} has no argument {name!r}.{nearest(name, known)}",
            remedy=f"Its arguments are {', '.join(known)}.",
            where=user_location(),
        )

    # -- what subclasses define ----------------------------------------------------------------

    def init_state(self, weight: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the state of one parameter before its first update.

        Parameters
        ----------
        weight : numpy.ndarray

        Returns
        -------
        tuple of numpy.ndarray
        """
        return ()

    def update(
        self, weight: Any, grad: Any, state: State, lr: Any, wd: Any, t: Any
    ) -> tuple[Any, State]:
        """Return the new weight and the new state of one parameter.

        Parameters
        ----------
        weight, grad : operand
            The gradient is rescaled already.
        state : tuple of operand
        lr, wd : operand, 0-d
            Learning rate and weight decay of this parameter, of the weight's type.
        t : operand, 0-d float64
            Number of this update, from 1.

        Returns
        -------
        operand, tuple of operand
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update")

    def clipped(self, grad: Any) -> Any:
        """Return a gradient limited by ``clip_gradient``."""
        return limited(grad, self.clip_gradient)

    def settings(self) -> tuple[Any, ...]:
        """Return what a compiled update depends on: all numbers but those that it takes in.

        It is asked for at every step: attributes of other types do not count.
        """
        return tuple(
            [
                (name, value)
                for name, value in vars(self).items()
                if type(value) in _PLAIN and name not in _TAKEN_IN
            ]
        )

    # -- rates -----------------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        """The learning rate now."""
        if self.lr_scheduler is not None:
            rate = self.lr_scheduler(self.num_update)
            return number(type(self.lr_scheduler).__name__, "the result", rate)
        return self.lr

    @learning_rate.setter
    def learning_rate(self, lr: float) -> None:
        self.set_learning_rate(lr)

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate.

        Raises
        ------
        ArgumentError
            When a schedule gives it.
        """
        if self.lr_scheduler is not None:
            raise ArgumentError(
                "the learning rate is given by lr_scheduler and cannot be set",
                remedy="Set lr_scheduler.base_lr, or make the optimizer without a schedule.",
                where=user_location(),
            )
        self.lr = self._number("learning_rate", lr)

    def set_lr_mult(self, args_lr_mult: dict[Any, float]) -> None:
        """Set factors of the learning rate by parameter name or number."""
        self.lr_mult = dict(args_lr_mult)

    def set_wd_mult(self, args_wd_mult: dict[Any, float]) -> None:
        """Set factors of the weight decay by parameter name or number."""
        self.wd_mult = dict(args_wd_mult)

    def multipliers(self, index: int) -> tuple[float, float]:
        """Return the factors of learning rate and weight decay of parameter ``index``."""
        parameter = self.param_dict.get(index)
        if parameter is not None:
            owner, lr_mult, wd_mult = parameter.name, parameter.lr_mult, parameter.wd_mult
        else:
            owner = self.idx2name.get(index, str(index))
            lr_mult, wd_mult = (
                table.get(index, table.get(owner, 1.0)) for table in (self.lr_mult, self.wd_mult)
            )
        return number(owner, "lr_mult", lr_mult), number(owner, "wd_mult", wd_mult)

    def factors(self, indices: Sequence[int]) -> tuple[tuple[float, float], ...]:
        """Return `multipliers` of several parameters, without a look at those seen last time."""
        known, (last, found) = self.param_dict, self._last_factors
        raw = [(p.lr_mult, p.wd_mult) for p in map(known.get, indices) if p is not None]
        if raw != last or len(raw) < len(indices):
            found = tuple(map(self.multipliers, indices))
            plain = all(type(n) in (int, float) for pair in raw for n in pair)
            self._last_factors = (raw if plain else None), found
        return found

    def count(self, indices: Sequence[int]) -> list[int]:
        """Note an update of these parameters; return the number of this update for each."""
        counts, before = self.counts, self.begin_num_update
        found = [counts.get(index, before) + 1 for index in indices]
        counts.update(zip(indices, found))
        self.num_update = max([self.num_update, *found])
        return found


def limited(x: Any, limit: float | None) -> Any:
    """Return ``x`` in ``-limit .. limit``; as in MXNet, no limit where it is not positive."""
    return x if limit is None or limit <= 0 else clip(x, -limit, limit)


def in_rows(grad: Any, new: Any, old: Any) -> Any:
    """Return ``new`` in rows whose gradient is not zero, ``old`` in the others: a lazy update."""
    nonzero = not_equal(grad, 0)
    axes = tuple(range(1, len(grad.shape)))
    return where(any_element(nonzero, axes, True) if axes else nonzero, new, old)


def apply_update(
    optimizer: Optimizer, weight: Any, grad: Any, state: State, lr: Any, wd: Any, rescale: Any,
    t: Any,
) -> tuple[Any, State]:  # fmt: skip
    """Return new weight and state: rescale the gradient, bring the rates to the weight's type.

    Parameters
    ----------
    optimizer : Optimizer
    weight, grad : operand
    state : tuple of operand
    lr, wd, rescale, t : operand, 0-d float64
    """
    dtype = weight.dtype
    scaled = cast(grad, dtype) * cast(rescale, dtype)
    return optimizer.update(weight, scaled, state, cast(lr, dtype), cast(wd, dtype), t)
