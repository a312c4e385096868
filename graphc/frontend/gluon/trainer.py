"""Trainer: applies an optimizer to Parameters, all of them by one compiled program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, AutogradError, FileFormatError, scope, user_location
from graphc.frontend import optimizer as optimizers
from graphc.frontend.array import Array, Storage, Unplaced
from graphc.frontend.autograd import pause
from graphc.frontend.context import Context
from graphc.frontend.formats.arrays import load_arrays, save_arrays
from graphc.frontend.gluon.allreduce import (
    check_store,
    same_devices,
    share_first,
    sum_gradients,
    summed,
)
from graphc.frontend.gluon.parameter import Parameter
from graphc.frontend.gluon.placement import Place, shown
from graphc.frontend.gluon.trainer_states import parsed_states
from graphc.frontend.jit import Jit
from graphc.frontend.memory import on_host, placed, undo_if_failed
from graphc.frontend.optimizer.base import Optimizer, apply_update, in_rows
from graphc.frontend.tracer import Trace, Tracer, current_trace, tracing
from graphc.ir.ops.basic import cast


class _Gradient:
    """The gradient of a Parameter as an implicit input: its array may be replaced."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def current_array(self) -> Array:
        """Return the gradient's array."""
        return self._place.parameter.grad(self._place.device)  # type: ignore[no-any-return]


class _Scalars:
    """0-d arrays of numbers; only where a number is another than last time a new one is made."""

    def __init__(self) -> None:
        self._last: list[tuple[float | None, Any]] = []

    def of(self, numbers: Sequence[float]) -> list[Array]:
        """Return an array for each number. None is ever written, so threads may share them."""
        last = self._last
        if len(last) != len(numbers):
            last = [(None, None)] * len(numbers)
        self._last = last = [
            known
            if known[0] == number
            else (number, Array(np.array(number, np.float64), Unplaced()))
            for number, known in zip(numbers, last)
        ]
        return [array for _, array in last]


Entry = tuple[int, float, float, int]


@dataclass(frozen=True, eq=False)
class Plan:
    """What the program of an update depends on; a Trainer makes one object for equal ones.

    Attributes
    ----------
    entries : tuple
        For each Parameter its number, its factors of learning rate and weight decay (0 where there
        is no decay), and which of the step numbers is its own.
    rate_count : int
        How many numbers the program is told: three, and the step numbers.
    """

    entries: tuple[Entry, ...]
    rate_count: int


class Trainer:
    """Applies an optimizer to Parameters, on one device or on several.

    On several, ``step`` sums the gradients over the devices, updates on the first and gives the
    others the new values: they stay equal bit for bit, and the optimizer has one state.

    Parameters
    ----------
    params : ParameterDict, dict or list of Parameter
        ``net.collect_params()``.
    optimizer : str or Optimizer
    optimizer_params : dict, optional
        Arguments of the optimizer.
    kvstore : {"device", "local", ...} or None
        Names of MXNet's for sums over the devices of one machine; all mean the same.
    compression_params, update_on_kvstore
        Accepted as MXNet's, without meaning.

    Raises
    ------
    ArgumentError
        For a ``kvstore`` over several machines.

    Examples
    --------
    >>> from graphc import gluon
    >>> from graphc.gluon import nn
    >>> net = nn.Dense(2, in_units=3)
    >>> net.initialize()
    >>> trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    >>> trainer.learning_rate
    0.1
    """

    def __init__(
        self, params: Any, optimizer: str | Optimizer,
        optimizer_params: dict[str, Any] | None = None, kvstore: Any = "device",
        compression_params: Any = None, update_on_kvstore: bool | None = None,
    ) -> None:  # fmt: skip
        check_store(kvstore)
        self._params = _parameters(params)
        self.optimizer = optimizers.create(optimizer, **(optimizer_params or {}))
        self.optimizer.param_dict = dict(enumerate(self._params))
        self._scale = self.optimizer.rescale_grad
        self._states: dict[int, tuple[Array, ...]] = {}
        self._scalars = _Scalars()
        self._plans: dict[Any, Plan] = {}
        self._programs: dict[Plan, Jit] = {}

    # -- rates ---------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        """The learning rate now."""
        return self.optimizer.learning_rate

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate; an error where a schedule gives it."""
        self.optimizer.set_learning_rate(lr)

    # -- steps ---------------------------------------------------------------------------------

    def step(self, batch_size: float, ignore_stale_grad: bool = False) -> None:
        """Update all Parameters by their gradients, divided by ``batch_size``.

        Parameters
        ----------
        batch_size : int
            Number of examples whose losses were summed.
        ignore_stale_grad : bool
            Leave out Parameters whose gradient ``backward`` has not written since the last step.

        Raises
        ------
        AutogradError
            When there is a Parameter with such a gradient.
        """
        indices = self._with_fresh_gradients(ignore_stale_grad)
        self._allreduce(indices)
        self._update(indices, batch_size)

    def allreduce_grads(self) -> None:
        """Set each gradient to its sum over the devices, on all of them; see ``update``."""
        self._allreduce(range(len(self._params)))

    def _allreduce(self, indices: Iterable[int]) -> None:
        for parameter in map(self._params.__getitem__, indices):
            if len(parameter.devices) > 1 and parameter.grad_req != "null":
                sum_gradients(parameter)

    def update(self, batch_size: float, ignore_stale_grad: bool = False) -> None:
        """Update all Parameters by gradients that are summed already.

        ``allreduce_grads``, what is done to the gradients, and ``update`` are a ``step``.

        Raises
        ------
        AutogradError
            As ``step``, and where the gradients of the devices are not equal.
        """
        indices = self._with_fresh_gradients(ignore_stale_grad)
        apart = [p for p in map(self._params.__getitem__, indices) if not summed(p)]
        if apart:
            raise AutogradError(
                f"the gradients of parameter {apart[0].name} on {shown(apart[0].devices)} differ: "
                "update() takes them as summed",
                remedy="Call trainer.step(), or trainer.allreduce_grads() before update().",
                where=user_location(),
            )
        self._update(indices, batch_size)

    def _update(self, indices: Sequence[int], batch_size: float) -> None:
        if not indices:
            return
        devices = self.devices(indices)
        rescale = self.rescale(batch_size)
        with self.counted(), pause(), devices[0]:
            plan, rates = self.rates(indices, rescale)
            program = self._programs.get(plan)
            if program is None:
                program = Jit(partial(self._traced_update, plan), "trainer_update")
                program = self._programs.setdefault(plan, program)
            program(*rates)
        for parameter in map(self._params.__getitem__, indices):
            if len(devices) > 1:
                share_first(parameter)
            parameter.use_grad()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Set the step numbers back if the body fails, or a check that a device still runs.

        A step that failed is no step, nor is one that was asked for before that was known.
        """
        optimizer = self.optimizer
        before = optimizer.counts.copy(), optimizer.num_update

        def set_back() -> None:
            optimizer.counts, optimizer.num_update = before

        try:
            yield
        except BaseException:
            if optimizer.num_update >= before[1]:  # else an earlier step failed, and set it back
                set_back()
            raise
        for device in self._params[0].devices:
            undo_if_failed(device, set_back)

    def devices(self, indices: Iterable[int]) -> tuple[Context, ...]:
        """Return the devices that Parameters are on; an error where these are not the same."""
        return same_devices([self._params[index] for index in indices])

    def rates(self, indices: Sequence[int], rescale: float) -> tuple[Plan, list[Array]]:
        """Count an update of Parameters; return its plan, and the numbers that it is told.

        Parameters
        ----------
        indices : sequence of int
            Numbers of the Parameters.
        rescale : float
            Factor of the gradients.

        Returns
        -------
        Plan
        list of Array
            What changes from step to step, 0-d, so that a schedule compiles nothing: learning
            rate, weight decay, rescaling, then the step numbers that occur.
        """
        optimizer = self.optimizer
        steps = optimizer.count(indices)
        distinct = sorted(set(steps))
        decays = optimizer.wd != 0
        entries = tuple(
            [
                (index, lr_mult, wd_mult if decays else 0.0, distinct.index(step))
                for index, step in zip(indices, steps)
                for lr_mult, wd_mult in [optimizer.multipliers(index)]
            ]
        )
        numbers = (optimizer.learning_rate, optimizer.wd, rescale, *distinct)
        facts = (entries, optimizer.settings())
        plan = self._plans.get(facts)
        if plan is None:
            plan = self._plans.setdefault(facts, Plan(entries, len(numbers)))
        return plan, self._scalars.of(numbers)

    def rescale(self, batch_size: Any) -> float:
        """Return the factor of gradients for a batch size."""
        try:
            size = float(batch_size)
        except (TypeError, ValueError):
            size = 0.0
        if not size > 0:
            raise ArgumentError(
                f"the batch size must be a positive number, got {batch_size!r}",
                remedy="Pass the number of examples: trainer.step(data.shape[0]).",
                where=user_location(),
            )
        return self._scale / size

    def requests(self) -> list[str]:
        """Return the ``grad_req`` of each Parameter."""
        return [parameter.grad_req for parameter in self._params]

    def parameter(self, index: int) -> Parameter:
        """Return the Parameter of a number."""
        return self._params[index]

    def _with_fresh_gradients(self, ignore_stale_grad: bool) -> list[int]:
        found: list[int] = []
        stale: list[int] = []
        for index, parameter in enumerate(self._params):
            if parameter.grad_req != "null":
                fresh = len(parameter.fresh_grads())
                if fresh == len(parameter.devices) or (fresh and ignore_stale_grad):
                    found.append(index)
                else:
                    stale.append(index)
        if stale and not ignore_stale_grad:
            names = ", ".join(map(self._stale, stale[:5]))
            raise AutogradError(
                f"backward has not written the gradient of {len(stale)} parameters since the last "
                f"step: {names}{', ...' if len(stale) > 5 else ''}",
                remedy="Call loss.backward() before trainer.step(); where a batch does not use "
                "some parameters, pass ignore_stale_grad=True.",
                where=user_location(),
            )
        return found

    def _stale(self, index: int) -> str:
        """Return the name of a Parameter, with the devices where its gradient is not new."""
        parameter = self._params[index]
        fresh = parameter.fresh_grads()
        without = [device for device in parameter.devices if device not in fresh]
        return f"{parameter.name} on {shown(without)}" if fresh else parameter.name

    def state(self, index: int) -> tuple[Array, ...]:
        """Return the optimizer's state of a Parameter, made when it is first asked for."""
        if index not in self._states:
            self._states[index] = self._placed(index, self._first_state(index))
        return self._states[index]

    def _placed(self, index: int, states: Iterable[np.ndarray]) -> tuple[Array, ...]:
        """Return new states as arrays on the device where their Parameter is updated."""
        there = self._params[index].devices[0]
        return tuple(Array(placed(state, there), Storage.on(there)) for state in states)

    def _first_state(self, index: int) -> list[np.ndarray]:
        weight = on_host(self._params[index].current_array()._array)
        # Optimizers may be user code that computes with arrays: at once, whoever is tracing.
        with tracing(None), pause():  # type: ignore[arg-type]
            made = self.optimizer.init_state(weight)
        return [np.array(getattr(state, "_array", state), order="C") for state in made]

    def _fitted_state(self, index: int) -> tuple[Array, ...]:
        """Return the state as it is needed now: the Parameter may have been cast or moved."""
        found, there = self.state(index), self._params[index].devices[0]
        kinds = [state.dtype for state in self._first_state(index)]
        moved = any(state._storage.context is not there for state in found)
        if moved or [state._array.dtype for state in found] != kinds:
            pairs = zip(found, kinds, strict=True)
            found = self._placed(index, [on_host(s._array).astype(kind) for s, kind in pairs])
            self._states[index] = found
        return found

    def _traced_update(self, plan: Plan, *rates: Tracer) -> None:
        trace = current_trace()
        assert trace is not None
        gradients = {}
        for index, *_ in plan.entries:
            source = _Gradient(self._params[index].place())
            name = f"grad.{self._params[index].name}"
            gradients[index] = Tracer(trace.current(source.current_array(), name, source))
        self.trace_update(trace, plan.entries, rates, gradients)

    def trace_update(
        self, trace: Trace, entries: Iterable[Entry], rates: Sequence[Any],
        gradients: Mapping[int, Tracer],
    ) -> None:  # fmt: skip
        """Add the updates of Parameters and states to a trace.

        Parameters
        ----------
        trace : Trace
        entries : sequence
            Of the `Plan`.
        rates : sequence of Tracer
            As `rates` returns them.
        gradients : dict of int to Tracer
        """
        lr, wd, rescale, *steps = (Tracer(r._value) for r in rates)
        for index, lr_mult, wd_mult, place in entries:
            with scope(f"{type(self.optimizer).__name__}.{self._params[index].name}"):
                told = lr * lr_mult, wd * wd_mult, rescale, steps[place]
                self._trace_one(trace, index, gradients[index], told)

    def _trace_one(
        self, trace: Trace, index: int, gradient: Tracer, told: tuple[Tracer, ...]
    ) -> None:
        """Add the update of one Parameter and its states to a trace."""
        parameter = self._params[index]
        place, states = parameter.place(), self._fitted_state(index)
        array = place.current_array()
        weight = Tracer(trace.current(array, parameter.name, place))
        labels = [f"state{n}.{parameter.name}" for n in range(len(states))]
        held = tuple(
            Tracer(trace.current(state, label, _State(self, index, n)))
            for n, (state, label) in enumerate(zip(states, labels, strict=True))
        )
        new, changed = apply_update(self.optimizer, weight, gradient, held, *told)
        if parameter.grad_stype == "row_sparse" and self.optimizer.lazy_update:
            new = in_rows(gradient, new, weight)
            changed = tuple(map(partial(in_rows, gradient), changed, held))
        trace.update(array, _cast(new, array), parameter.name, place)
        if len(changed) != len(states):
            raise ArgumentError(
                f"{type(self.optimizer).__name__}.update returned {len(changed)} states, "
                f"init_state made {len(states)}",
                where=user_location(),
            )
        for state, value, label in zip(states, changed, labels, strict=True):
            trace.update(state, _cast(value, state), label)

    def note_fused(self, indices: Iterable[int]) -> None:
        """Note that the gradients of these Parameters were used without being written."""
        news = [p for p in map(self._params.__getitem__, indices) if not p.grad_fused]
        if news:
            where = user_location()
            for parameter in news:
                parameter.use_grad(where)

    # -- files ---------------------------------------------------------------------------------

    def save_states(self, fname: Any) -> None:
        """Write the optimizer's states and step numbers."""
        arrays = {
            f"{index}.{place}": on_host(state._array)
            for index, states in sorted(self._states.items())
            for place, state in enumerate(states)
        }
        for index, count in sorted(self.optimizer.counts.items()):
            arrays[f"count.{index}"] = np.asarray([count], np.int64)
        arrays["num_update"] = np.asarray([self.optimizer.num_update], np.int64)
        save_arrays(fname, arrays)

    def load_states(self, fname: Any) -> None:
        """Read what ``save_states`` wrote.

        Raises
        ------
        FileFormatError
            When the file does not fit these Parameters and this optimizer; nothing was changed.
        """
        states, counts, num_update = parsed_states(fname, load_arrays(fname))
        checked = {index: self._checked_states(fname, index, states[index]) for index in states}
        self._states = checked
        self.optimizer.counts = counts
        self.optimizer.num_update = num_update

    def _checked_states(self, fname: Any, index: int, given: list[np.ndarray]) -> Any:
        expected = self._first_state(index) if index < len(self._params) else None
        if expected is None or [a.shape for a in given] != [a.shape for a in expected]:
            shapes = None if expected is None else [a.shape for a in expected]
            raise FileFormatError(
                f"{fname}: states {[a.shape for a in given]} of parameter {index} do not fit "
                f"{shapes}",
                remedy="The file is of another network or another optimizer.",
                where=user_location(),
            )
        pairs = zip(given, expected, strict=True)
        return self._placed(index, [np.array(a, e.dtype) for a, e in pairs])


def _cast(value: Tracer, array: Array) -> Any:
    """Return a computed value in the element type of the array that it replaces."""
    return cast(value, array.dtype)._value


class _State:
    """One state array of a Parameter as an implicit input: loading replaces it."""

    def __init__(self, trainer: Trainer, index: int, place: int) -> None:
        self._trainer, self._index, self._place = trainer, index, place

    def current_array(self) -> Array:
        """Return the state's array."""
        trainer = self._trainer
        states = trainer._states.get(self._index) or trainer.state(self._index)
        return states[self._place]


def _parameters(params: Any) -> list[Parameter]:
    listed = list(params.values()) if isinstance(params, Mapping) else params
    if not isinstance(listed, (list, tuple)) or not listed:
        raise ArgumentError(
            f"Trainer takes the parameters of a network, got {_shown(params)}",
            remedy="Pass net.collect_params(), after all layers were added.",
            where=user_location(),
        )
    for parameter in listed:
        if not isinstance(parameter, Parameter):
            raise ArgumentError(
                f"Trainer takes Parameters, got a {type(parameter).__name__} among them",
                remedy="Pass net.collect_params().",
                where=user_location(),
            )
    return list({id(p): p for p in listed}.values())


def _shown(params: Any) -> str:
    empty = isinstance(params, (Mapping, list, tuple))
    return "none" if empty else f"a {type(params).__name__}"
