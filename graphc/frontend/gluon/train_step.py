"""TrainStep: forward, loss, backward and update as one program."""

from __future__ import annotations

from functools import partial
from typing import Any

from graphc.errors import ArgumentError, AutogradError, user_location
from graphc.frontend.array import Array, mode
from graphc.frontend.gluon.block import Block, Changes
from graphc.frontend.gluon.input_shapes import as_arrays
from graphc.frontend.gluon.placement import shown
from graphc.frontend.gluon.trainer import Plan, Trainer
from graphc.frontend.jit import Jit
from graphc.frontend.traced import Traced
from graphc.frontend.tracer import Tracer, current_trace
from graphc.frontend.tree import flatten
from graphc.ir.ops.creation import full_like
from graphc.passes.differentiate import gradients


class TrainStep:
    """A training step of a network, compiled as a whole.

    Computes what ``record``, ``backward`` and ``trainer.step(batch_size)`` compute; gradients that
    are only needed for the update never reach memory, so ``grad`` of the Parameters cannot be read
    afterwards.

    Parameters
    ----------
    net : Block
    loss_fn : Block or callable
        ``loss_fn(net(data), label, ...)``.
    trainer : Trainer
        Of the network's Parameters.
    ignore_stale_grad : bool
        Leave out Parameters that the loss does not depend on, instead of an error.

    Raises
    ------
    ArgumentError
        When a Parameter has ``grad_req="add"``.

    Examples
    --------
    >>> from graphc import gluon, nd
    >>> net = gluon.nn.Dense(1)
    >>> net.initialize()
    >>> trainer = gluon.Trainer(net.collect_params(), "sgd")
    >>> step = gluon.TrainStep(net, gluon.loss.L2Loss(), trainer)
    >>> step(nd.ones((4, 2)), nd.ones((4, 1))).shape
    (4,)
    """

    def __init__(
        self, net: Any, loss_fn: Any, trainer: Trainer, ignore_stale_grad: bool = False
    ) -> None:
        for name, kind, given in (("network", Block, net), ("Trainer", Trainer, trainer)):
            if not isinstance(given, kind):
                raise ArgumentError(
                    f"TrainStep takes a network, a loss and a Trainer, got a "
                    f"{type(given).__name__} in place of the {name}",
                    remedy="A network is a Block; wrap a function in nn.HybridLambda."
                    if kind is Block else "Make it with gluon.Trainer(net.collect_params(), ...).",
                    where=user_location(),
                )
        self.net, self.loss_fn, self.trainer = net, loss_fn, trainer
        self._ignore_stale_grad = ignore_stale_grad
        self._versions: tuple[Any, ...] = ()
        self._seen = -1
        self._name = f"{getattr(net, 'name', 'net')}_step"
        self._programs: dict[tuple[Plan, int], Jit] = {}
        self._trained()

    def _trained(self) -> list[int]:
        """Return the numbers of the Parameters that are trained."""
        requests = self.trainer.requests()
        if "add" in requests:
            name = self.trainer.parameter(requests.index("add")).name
            raise ArgumentError(
                f"TrainStep cannot add to the gradient of {name}, whose grad_req is 'add': it "
                "keeps no gradients",
                remedy="Set grad_req to 'write', or use autograd.record(), backward() and "
                "trainer.step().",
                where=user_location(),
            )
        return [index for index, request in enumerate(requests) if request != "null"]

    def __call__(self, data: Any, *labels: Any, batch_size: float | None = None) -> Any:
        """Train on one batch.

        Parameters
        ----------
        data : NDArray, or tuple or list of NDArray
            Input(s) of the network.
        *labels : NDArray
            Further arguments of the loss, the label first.
        batch_size : float, optional
            What gradients are divided by; by default the first size of the data.

        Returns
        -------
        NDArray
            What the loss returned, one number for each example.
        """
        inputs, labels = self._prepared(data, labels)
        previous = mode.recording, mode.training
        mode.recording, mode.training = False, True
        try:
            with self.trainer.counted():
                program, rates, indices = self._program(inputs, batch_size)
                loss = program(*rates, *inputs, *labels)
        finally:
            mode.recording, mode.training = previous
        self.trainer.note_fused(indices)
        return loss

    def trace(self, data: Any, *labels: Any) -> tuple[Traced, list[Array]]:
        """Return the program for a batch of these types and shapes, without running it.

        Parameters
        ----------
        data, *labels : NDArray
            As of a call.
        """
        inputs, labels = self._prepared(data, labels)
        optimizer = self.trainer.optimizer
        before = optimizer.counts.copy(), optimizer.num_update
        previous = mode.recording, mode.training
        mode.recording, mode.training = False, True
        try:
            program, rates, _ = self._program(inputs, None)
            return program.trace(*rates, *inputs, *labels)
        finally:
            mode.recording, mode.training = previous
            optimizer.counts, optimizer.num_update = before

    def _prepared(self, data: Any, labels: tuple[Any, ...]) -> tuple[Any, Any]:
        """Return inputs and labels as arrays, once every Parameter has its shape."""
        inputs = tuple(data) if isinstance(data, (tuple, list)) else (data,)
        if not all([isinstance(x, Array) for x in (*inputs, *labels)]):
            inputs, labels = as_arrays((inputs, labels))
        previous, mode.training = mode.training, True
        try:
            self.net.complete(*inputs)
        finally:
            mode.training = previous
        self._drop_outdated()
        return inputs, labels

    def _program(
        self, inputs: tuple[Any, ...], batch_size: float | None
    ) -> tuple[Jit, list[Array], list[int]]:
        """Count a step; return its program, the rates it is told, which Parameters it trains."""
        trainer = self.trainer
        indices = self._trained()
        devices = trainer.devices(indices)
        if len(devices) > 1:
            raise ArgumentError(
                f"TrainStep is one program on one device, the Parameters are on {shown(devices)}",
                remedy="On several devices use autograd.record(), backward() and trainer.step(), "
                "or net.reset_ctx() to one of them.",
                where=user_location(),
            )
        size = self._batch_size(inputs) if batch_size is None else batch_size
        plan, rates = trainer.rates(indices, trainer.rescale(size))
        program = self._programs.get((plan, len(inputs)))
        if program is None:
            program = Jit(partial(self._traced, plan, len(inputs)), self._name)
            program = self._programs.setdefault((plan, len(inputs)), program)
        return program, rates, indices

    def _drop_outdated(self) -> None:
        """Forget the programs if something in the network or the loss was changed."""
        if self._seen == Changes.count:
            return
        parts = [b for b in (self.net, self.loss_fn) if hasattr(b, "blocks")]
        versions = tuple((id(b), b._version) for part in parts for b in part.blocks())
        if versions != self._versions:
            self._programs.clear()
        self._seen, self._versions = Changes.count, versions

    @staticmethod
    def _batch_size(inputs: tuple[Any, ...]) -> int:
        first = inputs[0] if inputs else None
        if not isinstance(first, Array):
            leaves, _ = flatten(inputs, lambda x: isinstance(x, Array))
            first = leaves[0] if leaves else None
        if first is None or not first.shape:
            raise ArgumentError(
                "TrainStep cannot tell the batch size: the data has no first axis",
                remedy="Pass batch_size=.",
                where=user_location(),
            )
        return int(first.shape[0])

    def _traced(self, plan: Plan, input_count: int, *arguments: Any) -> Any:
        trace = current_trace()
        assert trace is not None
        rates, batch = arguments[: plan.rate_count], arguments[plan.rate_count :]
        loss = self.loss_fn(self.net(*batch[:input_count]), *batch[input_count:])
        heads, _ = flatten(loss, lambda x: isinstance(x, Tracer))
        heads = [h._value for h in heads if isinstance(h, Tracer)]
        parameters = [self.trainer.parameter(entry[0]) for entry in plan.entries]
        places = [p.place() for p in parameters]
        wrt = [trace.capture(p.current_array(), p.parameter.name, p) for p in places]
        ones = [full_like(h, 1.0) for h in heads]
        found = gradients(heads, ones, wrt)
        missing = [p.name for p, g in zip(parameters, found, strict=True) if g is None]
        if missing and not self._ignore_stale_grad:
            raise AutogradError(
                f"the loss does not depend on {', '.join(missing)}",
                remedy="Train only what the network uses, or pass ignore_stale_grad=True.",
                where=user_location(),
            )
        pairs = [(e, Tracer(g)) for e, g in zip(plan.entries, found, strict=True) if g is not None]
        kept = [entry for entry, _ in pairs]
        self.trainer.trace_update(trace, kept, rates, {entry[0]: g for entry, g in pairs})
        return loss

    def explain(self) -> str:
        """Return a text: which programs were compiled, for which sizes, and why each was needed."""
        programs = list(self._programs.values())
        if not programs:
            return f"{self._name} has not been compiled yet: it is when it is first called."
        why = "\nother settings of the optimizer, factors of Parameters or inputs than before:\n"
        return why.join(program.explain() for program in programs)
