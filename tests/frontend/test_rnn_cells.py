"""Recurrent cells: unrolled, cut short, both ways, made of others, with Symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, nd, sym
from graphc.errors import ArgumentError, ShapeError
from graphc.gluon import nn, rnn
from tests.recurrence import BATCH, INPUTS, MODES, STEPS, UNITS, close, drawn, started


def cells() -> list[Any]:
    stacked = rnn.SequentialRNNCell()
    stacked.add(rnn.LSTMCell(UNITS), rnn.DropoutCell(0.3), rnn.ResidualCell(rnn.GRUCell(UNITS)))
    return [
        rnn.RNNCell(UNITS), rnn.LSTMCell(UNITS), rnn.GRUCell(UNITS), stacked,
        rnn.ZoneoutCell(rnn.LSTMCell(UNITS), 0.3, 0.3), rnn.ResidualCell(rnn.GRUCell(INPUTS)),
    ]  # fmt: skip


@MODES
@pytest.mark.parametrize("number", range(6))
def test_unrolling_is_calling_step_by_step(number: int, hybridize: bool) -> None:
    cell, x = cells()[number], drawn(BATCH, STEPS, INPUTS)
    states = cell.begin_state(batch_size=BATCH)
    started(cell, hybridize, nd.array(x[:, 0]), states)
    cell.reset()
    wanted = []
    for step in range(STEPS):
        output, states = cell(nd.array(x[:, step]), states)
        wanted.append(output.asnumpy())
    found, after = cell.unroll(STEPS, nd.array(x))
    assert isinstance(found, list)
    for a, b in zip(found, wanted, strict=True):
        close(a, b)
    for a, b in zip(after, states, strict=True):
        close(a, b.asnumpy())
    merged, _ = cell.unroll(STEPS, [nd.array(x[:, t]) for t in range(STEPS)], merge_outputs=True)
    close(merged, np.stack(wanted, 1))
    turned, _ = cell.unroll(STEPS, nd.array(x.swapaxes(0, 1)), None, "TNC", True)
    close(turned, np.stack(wanted))


@pytest.mark.parametrize("number", range(6))
def test_unrolling_stops_at_the_end_of_each_sequence(number: int) -> None:
    cell, x, lengths = cells()[number], drawn(BATCH, STEPS, INPUTS), [5, 1, 3]
    started(cell, False, nd.array(x[:, 0]), cell.begin_state(batch_size=BATCH))
    found, after = cell.unroll(STEPS, nd.array(x), valid_length=nd.array(lengths))
    for n, length in enumerate(lengths):
        one, states = cell.unroll(length, nd.array(x[n : n + 1, :length]), merge_outputs=True)
        close(found[n, :length], one.asnumpy()[0])
        assert not found[n, length:].asnumpy().any()
        for a, b in zip(after, states, strict=True):
            close(a[n : n + 1], b.asnumpy())


@MODES
def test_a_bidirectional_cell_is_the_bidirectional_layer(hybridize: bool) -> None:
    x, lengths = drawn(STEPS, BATCH, INPUTS), nd.array([5, 1, 3], dtype="int32")
    plain = started(rnn.LSTM(UNITS, bidirectional=True), hybridize, nd.array(x))
    cell = rnn.BidirectionalCell(rnn.LSTMCell(UNITS, prefix="l_"), rnn.LSTMCell(UNITS, prefix="r_"))
    cell.initialize()
    assert len(cell.state_info()) == 4
    cell.unroll(STEPS, nd.array(x), layout="TNC")
    for ours, theirs in zip(
        cell.collect_params().values(), plain.collect_params().values(), strict=True
    ):
        ours.set_data(theirs.data())
    found, states = cell.unroll(STEPS, nd.array(x), layout="TNC", merge_outputs=True)
    wanted, ends = plain(nd.array(x), plain.begin_state(batch_size=BATCH))
    close(found, wanted.asnumpy())
    for k in range(2):
        close(nd.stack(states[k], states[k + 2]), ends[k].asnumpy())
    early = rnn.LSTM(
        UNITS, bidirectional=True, use_sequence_length=True, prefix=plain.prefix,
        params=plain.params,
    )  # fmt: skip
    found, _ = cell.unroll(STEPS, nd.array(x), layout="TNC", valid_length=lengths)
    close(found, early(nd.array(x), None, lengths).asnumpy())


def test_zoneout_keeps_elements_in_training() -> None:
    cell = rnn.ZoneoutCell(rnn.RNNCell(400), 0.4, 0.2)
    x = drawn(2, 2, 1)
    cell.initialize(graphc.init.Normal(1.0))
    with autograd.record():
        outputs, states = cell.unroll(2, nd.array(x))
    kept = [
        np.mean(outputs[0].asnumpy() == 0),
        np.mean(outputs[1].asnumpy() == outputs[0].asnumpy()),
        np.mean(states[0].asnumpy() == 0),
    ]
    np.testing.assert_allclose(kept, [0.4, 0.4, 0.2**2], atol=0.07)


def test_dropout_cell_drops_in_training() -> None:
    cell = rnn.DropoutCell(0.5)
    assert cell.begin_state(batch_size=2) == [] and cell.prefix.startswith("dropout")
    x = nd.ones((10, 40, 10))
    with autograd.record():
        outputs, states = cell.unroll(40, x, merge_outputs=True)
    assert states == [] and abs(float((outputs == 0).mean()) - 0.5) < 0.05


def test_cells_compose_symbols() -> None:
    x = drawn(BATCH, STEPS, INPUTS)
    cell = rnn.SequentialRNNCell()
    cell.add(rnn.LSTMCell(UNITS), rnn.GRUCell(UNITS))
    cell.initialize(graphc.init.Normal(0.5))
    wanted, _ = cell.unroll(STEPS, nd.array(x), merge_outputs=True)
    output, _ = cell.unroll(STEPS, sym.var("data"), merge_outputs=True)
    arrays = {p.name: p.data() for p in cell.collect_params().values()}
    found = output.bind(graphc.cpu(), {"data": nd.array(x), **arrays}).forward()[0]
    close(found, wanted.asnumpy())


def test_a_users_own_cell() -> None:
    class Decay(rnn.HybridRecurrentCell):
        def state_info(self, batch_size: Any = 0) -> list[dict[str, Any]]:
            return [{"shape": (batch_size, INPUTS), "__layout__": "NC", "dtype": "float32"}]

        def hybrid_forward(self, F: Any, inputs: Any, states: Any) -> Any:
            output = inputs + 0.5 * states[0]
            return output, [output]

    x = np.ones((1, 3, INPUTS), np.float32)
    found, _ = Decay().unroll(3, nd.array(x), merge_outputs=True)
    assert found[0, :, 0].asnumpy().tolist() == [1.0, 1.5, 1.75]


def test_cells_refuse_what_does_not_fit() -> None:
    cell = rnn.LSTMCell(UNITS, input_size=INPUTS, prefix="lstm0_")
    cell.initialize()
    x, states = nd.zeros((BATCH, INPUTS)), cell.begin_state(batch_size=BATCH)
    with pytest.raises(ShapeError, match="lstm0 takes inputs of size 4, got 5 from data of shape"):
        cell(nd.zeros((BATCH, 5)), states)
    with pytest.raises(ArgumentError, match="lstm0 takes 2 states, one is missing"):
        cell(x, states[:1])
    with pytest.raises(ShapeError, match=r"lstm0 takes states of shape \(3, 2\), got \(2, 2\)"):
        cell(x, cell.begin_state(batch_size=2))
    with pytest.raises(ShapeError, match="lstm0 is to be unrolled over 4 steps, the inputs have 3"):
        cell.unroll(4, nd.zeros((BATCH, 3, INPUTS)))
    with pytest.raises(ShapeError, match=r"lstm0 is unrolled over .* a list.*\(4,\)"):
        cell.unroll(4, nd.zeros((4,)))
    with pytest.raises(ArgumentError, match="SequentialRNNCell.add takes a recurrent cell, got De"):
        rnn.SequentialRNNCell().add(nn.Dense(2))
    rnn.ResidualCell(cell)
    with pytest.raises(ArgumentError, match="lstm0 is part of another cell"):
        cell.begin_state(batch_size=2)
    both = rnn.BidirectionalCell(rnn.RNNCell(2), rnn.RNNCell(2))
    with pytest.raises(ArgumentError, match="a BidirectionalCell cannot take single steps"):
        both(x, both.begin_state(batch_size=BATCH))
    stacked = rnn.SequentialRNNCell(prefix="all_")
    stacked.add(rnn.RNNCell(2))
    with pytest.raises(ArgumentError, match="all takes 1 state, got 2"):
        stacked(x, [x, x])
