"""Initializers: how the arrays of Parameters are filled, chosen by name or by the Parameter's name.

Every Parameter draws from a Philox generator of its own, so the order in which deferred shapes
become known does not change the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from graphc.errors import ArgumentError, ShapeError, UnknownNameError, nearest, user_location
from graphc.frontend.numeric import number
from graphc.runtime.random import host_generator

C = TypeVar("C", bound="type[Initializer]")
_registry: dict[str, type[Initializer]] = {}


def register(cls: C) -> C:
    """Class decorator: make an initializer known to :func:`create` by its class name."""
    _registry[cls.__name__.lower()] = cls
    return cls


def alias(*names: str) -> Callable[[C], C]:
    """Class decorator: make an initializer known by further names."""

    def add(cls: C) -> C:
        for name in names:
            _registry[name.lower()] = cls
        return cls

    return add


def create(init: Any, **kwargs: Any) -> Initializer:
    """Return an initializer from its name; an initializer is returned as it is.

    Parameters
    ----------
    init : str, Initializer, callable or None
        None gives the default, ``Uniform(0.07)``.
    **kwargs
        Arguments of the initializer.

    Raises
    ------
    UnknownNameError
        No initializer has that name; gives the nearest one.
    """
    if init is None:
        return Uniform()
    if isinstance(init, Initializer):
        return init
    if isinstance(init, type) and issubclass(init, Initializer):
        return init(**kwargs)
    if isinstance(init, str):
        if init.lower() not in _registry:
            raise UnknownNameError(
                f"there is no initializer {init!r}.{nearest(init.lower(), _registry)}",
                remedy=f"Known are {', '.join(sorted(_registry))}.",
                where=user_location(),
            )
        return _registry[init.lower()](**kwargs)
    if callable(init):
        return _Called(init)
    raise ArgumentError(
        f"an initializer is a name or an Initializer, got {type(init).__name__}",
        remedy='Pass, for example, "xavier" or graphc.init.Xavier().',
        where=user_location(),
    )


class InitDesc(str):
    """Name of what is being initialized, with what else is known of it.

    Attributes
    ----------
    attrs : dict
    global_init : Initializer or None
    generator : numpy.random.Generator or None
        What to draw from; by default the host's generator.
    explicit : bool
        Whether the initializer was given for this Parameter itself: then its name, ``bias`` or
        the like, does not matter.
    """

    attrs: dict[str, Any]
    global_init: Initializer | None
    generator: np.random.Generator | None
    explicit: bool

    def __new__(
        cls,
        name: str,
        attrs: dict[str, Any] | None = None,
        global_init: Initializer | None = None,
        generator: np.random.Generator | None = None,
        explicit: bool = False,
    ) -> InitDesc:
        self = super().__new__(cls, name)
        self.attrs = attrs or {}
        self.global_init = global_init
        self.generator = generator
        self.explicit = explicit
        return self


def generator_of(name: str) -> np.random.Generator:
    """Return the generator that the initialization of ``name`` draws from."""
    return getattr(name, "generator", None) or host_generator()


class Initializer:
    """Base of initializers: override ``_init_weight(name, array)``.

    Called with a name and an array, it fills the array by the end of the name: ``bias``, ``beta``
    and ``running_mean`` become zeros, ``gamma`` and ``running_var`` ones, everything else is a
    weight.

    Parameters
    ----------
    **kwargs
        Kept for ``repr`` and comparison.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._kwargs = kwargs

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self._kwargs.items())
        return f"{type(self).__name__}({arguments})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._kwargs == getattr(other, "_kwargs", None)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __call__(self, desc: Any, arr: Any) -> None:
        """Fill an array.

        Parameters
        ----------
        desc : str or InitDesc
        arr : NDArray
        """
        name = str(desc)
        if getattr(desc, "explicit", False):
            self._init_weight(desc, arr)
            return
        for ending, method in _BY_ENDING:
            if name.endswith(ending):
                getattr(self, method)(desc, arr)
                return
        self._init_default(desc, arr)

    def init_weight(self, name: str, arr: Any) -> None:
        """Fill a weight, whatever its name."""
        self._init_weight(name, arr)

    def _init_weight(self, name: str, arr: Any) -> None:
        arr[:] = self.draw(generator_of(name), arr.shape).astype(np.float64)

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Return the values of a weight; subclasses override this or ``_init_weight``."""
        raise NotImplementedError(f"{type(self).__name__} defines neither draw nor _init_weight")

    def _init_bias(self, name: str, arr: Any) -> None:
        arr[:] = 0.0

    _init_beta = _init_zero = _init_bias

    def _init_gamma(self, name: str, arr: Any) -> None:
        arr[:] = 1.0

    _init_one = _init_gamma

    def _init_default(self, name: str, arr: Any) -> None:
        self._init_weight(name, arr)


_BY_ENDING = (
    ("weight", "_init_weight"),
    ("bias", "_init_bias"),
    ("gamma", "_init_gamma"),
    ("beta", "_init_beta"),
    ("running_mean", "_init_zero"),
    ("running_var", "_init_one"),
    ("moving_mean", "_init_zero"),
    ("moving_var", "_init_one"),
    ("min", "_init_zero"),
    ("max", "_init_one"),
)


class _Called(Initializer):
    """A plain function of name and array as an initializer."""

    def __init__(self, function: Callable[[str, Any], None]) -> None:
        super().__init__(function=function)
        self._function = function

    def _init_weight(self, name: str, arr: Any) -> None:
        self._function(name, arr)


@alias("zeros")
@register
class Zero(Initializer):
    """Zeros."""

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Return zeros."""
        return np.zeros(shape)


@alias("ones")
@register
class One(Initializer):
    """Ones."""

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Return ones."""
        return np.ones(shape)


@register
class Constant(Initializer):
    """One value, or an array of the Parameter's shape.

    Parameters
    ----------
    value : float or array
    """

    def __init__(self, value: Any = 0.0) -> None:
        super().__init__(value=value)
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and np.array_equal(self.value, other.value)

    __hash__ = Initializer.__hash__

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Return the value in every place."""
        given = np.asarray(self.value)
        if given.ndim and given.shape != tuple(shape):
            raise ShapeError(
                f"a constant of shape {given.shape} does not fit a parameter of shape {shape}",
                where=user_location(),
            )
        return np.broadcast_to(given, shape)


@register
class Uniform(Initializer):
    """Uniform in ``-scale .. scale``.

    Parameters
    ----------
    scale : float
    """

    def __init__(self, scale: float = 0.07) -> None:
        super().__init__(scale=scale)
        self.scale = number("Uniform", "scale", scale)

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Return uniform draws."""
        return generator.uniform(-self.scale, self.scale, shape)


@alias("gaussian")
@register
class Normal(Initializer):
    """Normal with mean 0.

    Parameters
    ----------
    sigma : float
        Standard deviation.
    """

    def __init__(self, sigma: float = 0.01) -> None:
        super().__init__(sigma=sigma)
        self.sigma = number("Normal", "sigma", sigma)

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Return normal draws."""
        return generator.normal(0.0, self.sigma, shape)


def _fans(shape: Sequence[int], what: str) -> tuple[float, float]:
    """Return how many inputs and outputs a weight (O, I, ...) connects."""
    if len(shape) < 2:
        raise ShapeError(
            f"{what} needs a weight with 2 axes or more, got shape {tuple(shape)}",
            remedy="Give this parameter an initializer of its own, for example Normal().",
            where=user_location(),
        )
    window = float(np.prod(shape[2:]))
    return shape[1] * window, shape[0] * window


@register
class Xavier(Initializer):
    """Draws scaled by the number of inputs and outputs, so that signals keep their size.

    Parameters
    ----------
    rnd_type : {"uniform", "gaussian"}
    factor_type : {"avg", "in", "out"}
    magnitude : float
        Uniform draws lie in ``-s .. s``, normal ones have the standard deviation ``s``, with
        ``s = sqrt(magnitude / factor)``.
    """

    def __init__(
        self, rnd_type: str = "uniform", factor_type: str = "avg", magnitude: float = 3
    ) -> None:
        super().__init__(rnd_type=rnd_type, factor_type=factor_type, magnitude=magnitude)
        _check_word("rnd_type", rnd_type, ("uniform", "gaussian"))
        _check_word("factor_type", factor_type, ("avg", "in", "out"))
        self.rnd_type, self.factor_type = rnd_type, factor_type
        self.magnitude = number(type(self).__name__, "magnitude", magnitude)

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Return uniform or normal draws."""
        inputs, outputs = _fans(shape, type(self).__name__)
        factor = {"avg": (inputs + outputs) / 2.0, "in": inputs, "out": outputs}[self.factor_type]
        scale = np.sqrt(self.magnitude / factor) if factor else 0.0
        if self.rnd_type == "uniform":
            return generator.uniform(-scale, scale, shape)
        return generator.normal(0.0, scale, shape)


def _check_word(argument: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise ArgumentError(
            f"{argument} must be one of {', '.join(known)}, got {word!r}."
            f"{nearest(str(word), known)}",
            where=user_location(),
        )


@register
class MSRAPrelu(Xavier):
    """Xavier initialization for layers that are followed by a (parametric) leaky relu.

    Parameters
    ----------
    factor_type : {"avg", "in", "out"}
    slope : float
        Initial slope of the relu's negative side.
    """

    def __init__(self, factor_type: str = "avg", slope: float = 0.25) -> None:
        slope = number("MSRAPrelu", "slope", slope)
        super().__init__("gaussian", factor_type, 2.0 / (1 + slope**2))
        self._kwargs = {"factor_type": factor_type, "slope": slope}


@register
class Orthogonal(Initializer):
    """A random matrix with orthogonal rows or columns.

    Parameters
    ----------
    scale : float
        Length of the rows or columns.
    rand_type : {"uniform", "normal"}
    """

    def __init__(self, scale: float = 1.414, rand_type: str = "uniform") -> None:
        super().__init__(scale=scale, rand_type=rand_type)
        _check_word("rand_type", rand_type, ("uniform", "normal"))
        self.scale, self.rand_type = number("Orthogonal", "scale", scale), rand_type

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Return the orthogonal factor of a random matrix."""
        rows, columns = shape[0], int(np.prod(shape[1:]))
        flat = (rows, columns)
        uniform = self.rand_type == "uniform"
        drawn = generator.uniform(-1.0, 1.0, flat) if uniform else generator.normal(0, 1, flat)
        u, _, v = np.linalg.svd(drawn, full_matrices=False)
        return self.scale * (u if u.shape == flat else v).reshape(shape)


@register
class Bilinear(Initializer):
    """The weights of a transposed convolution that interpolates linearly."""

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Return the interpolation window in every place."""
        half = np.ceil(shape[3] / 2.0)
        center = (2 * half - 1 - half % 2) / (2.0 * half)
        rows, columns = (1 - np.abs(np.arange(n) / half - center) for n in shape[2:4])
        return np.broadcast_to(rows[:, None] * columns, shape)


@register
class LSTMBias(Initializer):
    """Zeros, and ``forget_bias`` for the forget gate.

    Parameters
    ----------
    forget_bias : float
    """

    def __init__(self, forget_bias: float = 1.0) -> None:
        super().__init__(forget_bias=forget_bias)
        self.forget_bias = number("LSTMBias", "forget_bias", forget_bias)

    def _init_bias(self, name: str, arr: Any) -> None:
        self._init_weight(name, arr)

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Return the bias of the four gates."""
        bias = np.zeros(shape)
        hidden = shape[0] // 4
        bias[hidden : 2 * hidden] = self.forget_bias
        return bias


class Mixed:
    """Initializers chosen by the first pattern that a Parameter's name matches.

    Parameters
    ----------
    patterns : sequence of str
        Regular expressions.
    initializers : sequence of Initializer
    """

    def __init__(self, patterns: Sequence[str], initializers: Sequence[Any]) -> None:
        if len(patterns) != len(initializers):
            raise ArgumentError(
                f"Mixed got {len(patterns)} patterns and {len(initializers)} initializers",
                where=user_location(),
            )
        self.map = [
            (re.compile(p), create(i)) for p, i in zip(patterns, initializers, strict=True)
        ]

    def __call__(self, name: Any, arr: Any) -> None:
        """Fill an array by the initializer of the first pattern that matches."""
        for pattern, init in self.map:
            if pattern.match(str(name)):
                init(name, arr)
                return
        raise ArgumentError(
            f"no pattern of Mixed matches the parameter {str(name)!r}",
            remedy='Add ".*" as the last pattern.',
            where=user_location(),
        )
