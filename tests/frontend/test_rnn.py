"""Recurrent layers against NumPy and unrolled cells, and the operator with one vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, gluon, nd, sym
from graphc.errors import ArgumentError, ShapeError, UninitializedError
from graphc.gluon import nn, rnn
from tests.recurrence import (
    BATCH,
    INPUTS,
    MODES,
    STEPS,
    UNITS,
    close,
    drawn,
    expected,
    layer_of,
    started,
    weights_of,
)

KINDS = ("rnn_relu", "rnn_tanh", "lstm", "gru")


# -- layers ------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_are_their_formulas(kind: str, bidirectional: bool, hybridize: bool) -> None:
    x, directions = drawn(STEPS, BATCH, INPUTS), 2 if bidirectional else 1
    layer = layer_of(kind, num_layers=2, bidirectional=bidirectional)
    started(layer, hybridize, nd.array(x))
    states = [
        drawn(2 * directions, BATCH, UNITS, seed=7 + k) for k in range(len(layer.state_info()))
    ]
    wanted, ends = expected(kind, x, weights_of(layer, 2, directions), states)
    found, after = layer(nd.array(x), [nd.array(s) for s in states])
    close(found, wanted)
    assert len(after) == len(ends)
    for a, b in zip(after, ends, strict=True):
        close(a, b)
    zeros = [np.zeros_like(s) for s in states]
    close(layer(nd.array(x)), expected(kind, x, weights_of(layer, 2, directions), zeros)[0])


@MODES
def test_batch_may_come_first(hybridize: bool) -> None:
    x = drawn(STEPS, BATCH, INPUTS)
    layer = started(rnn.GRU(UNITS), hybridize, nd.array(x))
    turned = rnn.GRU(UNITS, layout="NTC", prefix=layer.prefix, params=layer.params)
    if hybridize:
        turned.hybridize()
    state = nd.array(drawn(1, BATCH, UNITS))
    wanted, [end] = layer(nd.array(x), state)
    found, [after] = turned(nd.array(x.swapaxes(0, 1)), state)
    close(found, wanted.asnumpy().swapaxes(0, 1))
    close(after, end.asnumpy())


@MODES
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_sequences_may_end_early(kind: str, hybridize: bool) -> None:
    x, lengths = drawn(STEPS, BATCH, INPUTS), np.array([5, 1, 3])
    layer = layer_of(kind, num_layers=2, bidirectional=True, use_sequence_length=True)
    states = [drawn(4, BATCH, UNITS, seed=k) for k in range(len(layer.state_info()))]
    inputs = nd.array(x), [nd.array(s) for s in states], nd.array(lengths, dtype="int32")
    started(layer, hybridize, *inputs)
    wanted, ends = expected(kind, x, weights_of(layer, 2, 2), states, lengths)
    found, after = layer(*inputs)
    close(found, wanted)
    for a, b in zip(after, ends, strict=True):
        close(a, b)


@MODES
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_unrolled_cell(kind: str, hybridize: bool) -> None:
    x = drawn(STEPS, BATCH, INPUTS)
    layer = started(layer_of(kind), hybridize, nd.array(x))
    cell = {"lstm": rnn.LSTMCell, "gru": rnn.GRUCell}.get(kind)
    own = rnn.RNNCell(UNITS, activation=kind[4:]) if cell is None else cell(UNITS)
    started(own, False, nd.array(x[0]), own.begin_state(batch_size=BATCH))
    names = ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias")
    ours, theirs = layer.collect_params(), own.collect_params()
    for name in names:
        theirs[name].set_data(ours[f"l0_{name}"].data())
    arrays = [nd.array(x) for _ in range(2)]
    for array in arrays:
        array.attach_grad()
    states = [nd.array(drawn(BATCH, UNITS, seed=k)) for k in range(len(own.state_info()))]
    with autograd.record():
        found, ends = layer(arrays[0], [s.expand_dims(0) for s in states])
        loss = (found * found).sum() + sum((e * e * e).sum() for e in ends)
    loss.backward()
    with autograd.record():
        wanted, last = own.unroll(STEPS, arrays[1], states, "TNC", merge_outputs=True)
        loss = (wanted * wanted).sum() + sum((e * e * e).sum() for e in last)
    loss.backward()
    close(found, wanted.asnumpy())
    close(arrays[0].grad, arrays[1].grad.asnumpy(), 1e-4)
    for name in names:
        close(ours[f"l0_{name}"].grad(), theirs[name].grad().asnumpy(), 1e-4)


def test_names_and_shapes_of_parameters() -> None:
    layer = rnn.LSTM(UNITS, num_layers=2, bidirectional=True, input_size=INPUTS, prefix="lstm0_")
    found = {p.name: p.shape for p in layer.collect_params().values()}
    assert list(found)[:5] == [
        "lstm0_l0_i2h_weight", "lstm0_l0_h2h_weight", "lstm0_l0_i2h_bias", "lstm0_l0_h2h_bias",
        "lstm0_r0_i2h_weight",
    ]  # fmt: skip
    assert found["lstm0_l0_i2h_weight"] == (8, INPUTS)
    assert found["lstm0_r1_i2h_weight"] == (8, 2 * UNITS)
    assert found["lstm0_r1_h2h_weight"] == (8, UNITS)
    assert found["lstm0_l1_h2h_bias"] == (8,)
    assert list(layer.collect_params()) == [name.removeprefix("lstm0_") for name in found]
    assert repr(layer) == "LSTM(4 -> 2, TNC, num_layers=2, bidirectional)"
    assert [i["shape"] for i in layer.state_info(7)] == [(4, 7, 2)] * 2
    assert [s.shape for s in layer.begin_state(batch_size=7)] == [(4, 7, 2)] * 2
    ones = layer.begin_state(batch_size=1, func=nd.ones, ctx=graphc.cpu())
    assert ones[1].asnumpy().sum() == 8
    with nn.HybridSequential(prefix="net_").name_scope():
        assert rnn.GRUCell(2).prefix == "net_gru0_"


def test_initializers_and_dtype() -> None:
    layer = rnn.LSTM(
        UNITS, input_size=INPUTS, i2h_weight_initializer="ones", h2h_weight_initializer="zeros",
        i2h_bias_initializer=graphc.init.LSTMBias(2.0), h2h_bias_initializer="ones",
        dtype="float64",
    )  # fmt: skip
    layer.initialize()
    values = {n: p.data().asnumpy() for n, p in layer.collect_params().items()}
    assert (values["l0_i2h_weight"] == 1).all() and not values["l0_h2h_weight"].any()
    assert values["l0_i2h_bias"].tolist() == [0, 0, 2, 2, 0, 0, 0, 0]
    x = nd.array(drawn(2, 1, INPUTS), dtype="float64")
    outputs, states = layer(x, layer.begin_state(batch_size=1))
    assert {outputs.dtype, *(s.dtype for s in states)} == {np.float64}


def test_parameters_go_through_files(tmp_path: Any) -> None:
    x = nd.array(drawn(STEPS, BATCH, INPUTS))
    layer = started(rnn.LSTM(UNITS, num_layers=2), False, x)
    for file in ("layer.params", "layer.safetensors"):
        layer.save_parameters(tmp_path / file)
        other = rnn.LSTM(UNITS, num_layers=2)
        other.load_parameters(tmp_path / file)
        close(other(x), layer(x).asnumpy(), 0.0)


def test_one_program_serves_every_batch_and_length() -> None:
    layer = started(rnn.LSTM(UNITS), True, nd.array(drawn(STEPS, BATCH, INPUTS)))
    layer(nd.array(drawn(STEPS, BATCH, INPUTS)))
    before = graphc.stats()["programs_traced"]
    for shape in ((9, 1, INPUTS), (2, 33, INPUTS)):
        x = drawn(*shape)
        zeros = [np.zeros((1, shape[1], UNITS), np.float32)] * 2
        close(layer(nd.array(x)), expected("lstm", x, weights_of(layer, 1, 1), zeros)[0])
    assert graphc.stats()["programs_traced"] == before


def classifier() -> Any:
    graphc.random.seed(5)
    net = nn.HybridSequential()
    net.add(
        nn.Embedding(11, 6), rnn.LSTM(UNITS, num_layers=2, layout="NTC", bidirectional=True),
        nn.Dense(3),
    )  # fmt: skip
    net.initialize(graphc.init.Xavier())
    return net


def test_a_train_step_is_record_backward_and_step() -> None:
    words = nd.array(np.random.default_rng(0).integers(0, 11, (4, 7)), dtype="int32")
    labels, loss_of = nd.array([0, 1, 2, 1]), gluon.loss.SoftmaxCrossEntropyLoss()
    nets = classifier(), classifier()
    trainers = [gluon.Trainer(n.collect_params(), "adam", {"learning_rate": 0.05}) for n in nets]
    step, losses = gluon.TrainStep(nets[0], loss_of, trainers[0]), []
    for _ in range(3):
        losses.append(step(words, labels).asnumpy())
        with autograd.record():
            loss = loss_of(nets[1](words), labels)
        loss.backward()
        trainers[1].step(4)
        close(losses[-1], loss.asnumpy())
    assert losses[-1].mean() < losses[0].mean()
    for ours, theirs in zip(*(n.collect_params().values() for n in nets), strict=True):
        close(ours.data(), theirs.data().asnumpy(), 1e-4)


def test_neither_threads_nor_engines_change_a_bit() -> None:
    x = nd.array(drawn(6, 40, 20))
    found = []
    for threads, engine in ((1, "llvm"), (3, "llvm"), (2, "numba")):
        graphc.random.seed(2)
        with graphc.options(threads=threads, engine=engine):
            layer = rnn.LSTM(33)
            layer.initialize(graphc.init.Xavier())
            layer.hybridize()
            x.attach_grad()
            with autograd.record():
                y = layer(x)
            y.backward()
            weights = layer.collect_params().values()
            found.append([a.asnumpy() for a in (y, x.grad, *(w.grad() for w in weights))])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert (a == b).all()


@MODES
def test_inputs_of_further_layers_are_dropped_in_training(hybridize: bool) -> None:
    x = nd.array(drawn(STEPS, BATCH, INPUTS))
    layer = started(rnn.RNN(64, num_layers=2, dropout=0.5), hybridize, x)
    plain = layer(x).asnumpy()
    close(layer(x), plain, 0.0)
    with autograd.record():
        first, second = layer(x).asnumpy(), layer(x).asnumpy()
    assert np.abs(first - plain).max() > 1e-3 and np.abs(first - second).max() > 1e-3
    alone = started(rnn.RNN(64, dropout=0.5), hybridize, x)
    with autograd.record():
        close(alone(x), alone(x).asnumpy(), 0.0)


# -- the operator ------------------------------------------------------------------------------


def packed(layers: list[list[list[np.ndarray]]]) -> np.ndarray:
    rows = [weights for layer in layers for weights in layer]
    parts = [w for weights in rows for w in weights[:2]] + [
        b for weights in rows for b in weights[2:]
    ]
    return np.concatenate([p.ravel() for p in parts])


@pytest.mark.parametrize("kind", KINDS)
def test_the_operator_cuts_its_vector_as_mxnet(kind: str) -> None:
    x, gates = drawn(STEPS, BATCH, INPUTS), {"lstm": 4, "gru": 3}.get(kind, 1)
    shapes = [(INPUTS, 0), (INPUTS, 0), (2 * UNITS, 1), (2 * UNITS, 1)]
    rows = [
        [drawn(gates * UNITS, *size, seed=10 * n + k)
         for k, size in enumerate([(width,), (UNITS,), (), ()])]
        for n, (width, _) in enumerate(shapes)
    ]  # fmt: skip
    layers = [rows[:2], rows[2:]]
    states = [drawn(4, BATCH, UNITS, seed=k) for k in range(1 + (kind == "lstm"))]
    wanted, ends = expected(kind, x, layers, states)
    arrays = [nd.array(a) for a in (x, packed(layers), *states)]
    options = dict(state_size=UNITS, num_layers=2, bidirectional=True, mode=kind)
    close(nd.RNN(*arrays, **options), wanted)
    found, *after = nd.RNN(*arrays, state_outputs=True, **options)
    close(found, wanted)
    for a, b in zip(after, ends, strict=True):
        close(a, b)
    node = sym.RNN(sym.var("data"), name="r", state_outputs=True, **options)
    names = ["data", "r_parameters", "r_state", "r_state_cell"][: len(arrays)]
    assert node.list_arguments() == names
    inferred, outputs, _ = node.infer_shape(data=x.shape)
    assert inferred == [a.shape for a in arrays]
    assert outputs == [wanted.shape, *(s.shape for s in states)]
    close(node.bind(graphc.cpu(), dict(zip(names, arrays))).forward()[0], wanted)


def test_the_operator_refuses_what_does_not_fit() -> None:
    x, state = nd.zeros((2, 3, 4)), nd.zeros((1, 3, 5))
    options = dict(state_size=5, num_layers=1, mode="rnn_tanh")
    with pytest.raises(ShapeError, match=r"RNN takes a vector of 55 parameters, got shape \(54"):
        nd.RNN(x, nd.zeros((54,)), state, **options)
    with pytest.raises(ShapeError, match=r"RNN in mode 'rnn_tanh' takes states of shape \(1, 3, 5"):
        nd.RNN(x, nd.zeros((55,)), nd.zeros((3, 5)), **options)
    with pytest.raises(ArgumentError, match="RNN needs state_size= and num_layers="):
        nd.RNN(x, nd.zeros((55,)), state, mode="rnn_tanh")
    with pytest.raises(ArgumentError, match="RNN in mode 'lstm' takes 2 states, one is missing"):
        nd.RNN(x, nd.zeros((220,)), state, state_size=5, num_layers=1)
    with pytest.raises(ArgumentError, match=r"there is no mode 'lsmt'. Did you mean 'lstm'"):
        nd.RNN(x, nd.zeros((220,)), state, state_size=5, num_layers=1, mode="lsmt")
    with pytest.raises(ShapeError, match=r"RNN takes data \(T, N, C\), got shape \(3, 4\)"):
        nd.RNN(nd.zeros((3, 4)), nd.zeros((55,)), state, **options)


def test_layers_compose_symbols() -> None:
    x = drawn(STEPS, BATCH, INPUTS)
    layer = started(rnn.LSTM(UNITS, num_layers=2), False, nd.array(x))
    output = layer(sym.var("data"))
    arrays = {p.name: p.data() for p in layer.collect_params().values()}
    assert set(output.list_arguments()) == {"data", *arrays}
    found = output.bind(graphc.cpu(), {"data": nd.array(x), **arrays}).forward()[0]
    close(found, layer(nd.array(x)).asnumpy())


def test_sequence_reverse() -> None:
    x, lengths = drawn(3, 2, 2), nd.array([2, 3], dtype="int32")
    wanted = np.stack([x[[1, 0, 2], 0], x[[2, 1, 0], 1]], 1)
    close(nd.SequenceReverse(nd.array(x), lengths, use_sequence_length=True), wanted, 0.0)
    close(nd.SequenceReverse(nd.array(x)), x[::-1], 0.0)
    with pytest.raises(ArgumentError, match="SequenceReverse: axis is 0, got 1"):
        nd.SequenceReverse(nd.array(x), axis=1)


# -- errors ------------------------------------------------------------------------------------


def test_layers_refuse_what_does_not_fit() -> None:
    layer = rnn.LSTM(UNITS, input_size=INPUTS, prefix="lstm0_")
    layer.initialize()
    x = nd.zeros((STEPS, BATCH, INPUTS))
    with pytest.raises(ShapeError, match=r"lstm0 takes inputs of size 4, got 6 from data of shape"):
        layer(nd.zeros((STEPS, BATCH, 6)))
    with pytest.raises(ShapeError, match=r"lstm0 takes inputs \(T, N, C\), got shape \(3, 4\)"):
        layer(nd.zeros((BATCH, INPUTS)))
    with pytest.raises(ArgumentError, match="lstm0 takes 2 arrays of states, got 1"):
        layer(x, nd.zeros((1, BATCH, UNITS)))
    with pytest.raises(ShapeError, match=r"lstm0 takes states of shape \(1, 3, 2\), got \(1, 2, 2"):
        layer(x, layer.begin_state(batch_size=2))
    with pytest.raises(ArgumentError, match="lstm0 got no array"):
        layer([[[1.0]]])
    with pytest.raises(UninitializedError, match="has not been initialized"):
        rnn.LSTM(UNITS)(x)
    with pytest.raises(ArgumentError, match="LSTM.begin_state needs the size of the batch"):
        layer.begin_state()
    with pytest.raises(ArgumentError, match="lstm0 got sequence_length, it was made with"):
        layer(x, None, nd.ones((BATCH,)))
    with pytest.raises(ArgumentError, match="there is no layout 'NCT'"):
        rnn.GRU(UNITS, layout="NCT")
    with pytest.raises(ArgumentError, match="there is no activation 'rleu'. Did you mean 'relu'"):
        rnn.RNN(UNITS, activation="rleu")
    with pytest.raises(ArgumentError, match="dropout is a probability, got 1.5"):
        rnn.GRU(UNITS, dropout=1.5)
    with pytest.raises(ArgumentError, match="hidden_size must be a positive integer, got 0"):
        rnn.GRU(0)
    with pytest.raises(ArgumentError, match="LSTM has no argument 'num_layer'.*'num_layers'"):
        rnn.LSTM(UNITS, num_layer=2)


# -- a language model, as in Dive into Deep Learning ---------------------------------------------


class LanguageModel(nn.Block):
    def __init__(self, layer: Any, vocabulary: int) -> None:
        super().__init__()
        self.rnn, self.vocabulary = layer, vocabulary
        self.dense = nn.Dense(vocabulary)

    def forward(self, inputs: Any, state: Any) -> Any:
        hot = nd.one_hot(inputs.T, self.vocabulary)
        outputs, state = self.rnn(hot, state)
        return self.dense(outputs.reshape((-1, outputs.shape[-1]))), state

    def begin_state(self, *args: Any, **kwargs: Any) -> Any:
        return self.rnn.begin_state(*args, **kwargs)


@MODES
@pytest.mark.parametrize("kind", ["rnn_tanh", "lstm", "gru"])
def test_a_language_model_learns(kind: str, hybridize: bool) -> None:
    graphc.random.seed(3)
    text = "the time machine by h g wells " * 8
    letters = sorted(set(text))
    numbers = np.array([letters.index(letter) for letter in text])
    plain = rnn.RNN(32, activation="tanh")
    layer = {"lstm": rnn.LSTM(32), "gru": rnn.GRU(32)}.get(kind, plain)
    net = LanguageModel(layer, len(letters))
    net.initialize(graphc.init.Normal(0.1))
    if hybridize:
        net.hybridize()
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.02})
    rows = numbers[: 2 * 120].reshape(2, 120)
    losses: list[float] = []
    for _ in range(12):
        state = net.begin_state(batch_size=2, ctx=graphc.cpu())
        for start in range(0, 100, 20):
            x, y = (nd.array(rows[:, start + k : start + k + 20]) for k in range(2))
            state = [s.detach() for s in state]
            with autograd.record():
                found, state = net(x, state)
                loss = loss_of(found, y.T.reshape((-1,))).mean()
            loss.backward()
            trainer.step(1)
            losses.append(float(loss.asscalar()))
    assert losses[0] > 2.0 and losses[-1] < 0.3
