"""The networks of the suite in graphc; models_torch and models_jax hold the same ones.

A name here is the name there, and the parameters come in one order, so that all sides can start
from equal weights. Two layouts of weights differ nowhere: Dense keeps (out, in), as Linear does.
"""

from __future__ import annotations

from typing import Any

from graphc import nd
from graphc.gluon import nn, rnn
from graphc.gluon.nn import HybridBlock, HybridSequential


def sequential(*layers: Any) -> HybridSequential:
    """Return the layers in a row."""
    net = HybridSequential()
    net.add(*layers)
    return net


def mlp() -> HybridSequential:
    """Return three layers, 784-512-256-10."""
    return sequential(
        nn.Dense(512, activation="relu"), nn.Dense(256, activation="relu"), nn.Dense(10)
    )


def lenet(pad: int = 0) -> HybridSequential:
    """Return LeNet for 28 x 28 images with one channel; examples/mnist.py pads by 2."""
    return sequential(
        nn.Conv2D(20, kernel_size=5, padding=pad, activation="relu"),
        nn.MaxPool2D(2, 2),
        nn.Conv2D(50, kernel_size=5, padding=pad, activation="relu"),
        nn.MaxPool2D(2, 2),
        nn.Dense(500, activation="relu"),
        nn.Dense(10),
    )


def convolution(channels: int, window: int, stride: int = 1, groups: int = 1) -> list[Any]:
    """Return a convolution that keeps the image's size, but for its stride, and its norm."""
    conv = nn.Conv2D(
        channels, window, strides=stride, padding=window // 2, groups=groups, use_bias=False
    )
    return [conv, nn.BatchNorm()]


class Residual(HybridBlock):
    """``activation(body(x) + shortcut(x))``."""

    def __init__(self, body: Any, shortcut: Any = None, activation: str | None = "relu") -> None:
        super().__init__()
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def forward(self, x: Any) -> Any:
        """Add both ways."""
        total = self.body(x) + (x if self.shortcut is None else self.shortcut(x))
        return nd.relu(total) if self.activation else total


def basic_block(channels: int, stride: int, widen: bool) -> Residual:
    """Return ResNet-18's block."""
    relu = nn.Activation("relu")
    body = [*convolution(channels, 3, stride), relu, *convolution(channels, 3)]
    return Residual(
        sequential(*body), sequential(*convolution(channels, 1, stride)) if widen else None
    )


def bottleneck(channels: int, stride: int, widen: bool) -> Residual:
    """Return ResNet-50's block, with the stride in its 3 x 3 convolution."""
    body = [
        *convolution(channels, 1), nn.Activation("relu"),
        *convolution(channels, 3, stride), nn.Activation("relu"),
        *convolution(4 * channels, 1),
    ]  # fmt: skip
    return Residual(
        sequential(*body), sequential(*convolution(4 * channels, 1, stride)) if widen else None
    )


def resnet(block: Any, depths: tuple[int, ...], classes: int, large: bool) -> HybridSequential:
    """Return a residual network; ``large`` images are cut to a quarter by the first layers."""
    stem = convolution(64, 7, 2) if large else convolution(64, 3)
    layers = [*stem, nn.Activation("relu"), *([nn.MaxPool2D(3, 2, 1)] if large else [])]
    wide = block is bottleneck
    for stage, depth in enumerate(depths):
        for place in range(depth):
            stride = 2 if stage and not place else 1
            layers.append(block(64 << stage, stride, not place and (stage > 0 or wide)))
    return sequential(*layers, nn.GlobalAvgPool2D(), nn.Dense(classes))


def resnet18_small() -> HybridSequential:
    """Return ResNet-18 for 32 x 32 images and 10 classes."""
    return resnet(basic_block, (2, 2, 2, 2), 10, large=False)


def resnet18() -> HybridSequential:
    """Return ResNet-18 for 224 x 224 images."""
    return resnet(basic_block, (2, 2, 2, 2), 1000, large=True)


def resnet50() -> HybridSequential:
    """Return ResNet-50 for 224 x 224 images."""
    return resnet(bottleneck, (3, 4, 6, 3), 1000, large=True)


class ReLU6(HybridBlock):
    """``min(max(x, 0), 6)``."""

    def forward(self, x: Any) -> Any:
        """Clip."""
        return nd.clip(x, 0.0, 6.0)


def inverted_residual(inputs: int, channels: int, stride: int, factor: int) -> Any:
    """Return MobileNetV2's block: widen, filter each channel, narrow."""
    hidden = inputs * factor
    widen = [*convolution(hidden, 1), ReLU6()] if factor > 1 else []
    body = sequential(
        *widen, *convolution(hidden, 3, stride, hidden), ReLU6(), *convolution(channels, 1)
    )
    return Residual(body, activation=None) if stride == 1 and inputs == channels else body


def mobilenet_v2() -> HybridSequential:
    """Return MobileNetV2 for 224 x 224 images."""
    layers, inputs = [*convolution(32, 3, 2), ReLU6()], 32
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
             (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
    for factor, channels, depth, first in table:
        for place in range(depth):
            layers.append(inverted_residual(inputs, channels, 1 if place else first, factor))
            inputs = channels
    return sequential(*layers, *convolution(1280, 1), ReLU6(), nn.GlobalAvgPool2D(), nn.Dense(1000))


class Attention(HybridBlock):
    """Self-attention with several heads; ``causal``: none looks ahead."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.width, self.heads, self.causal = width, heads, causal
        self.joint = nn.Dense(3 * width, flatten=False)
        self.out = nn.Dense(width, flatten=False)

    def forward(self, x: Any) -> Any:
        """Mix the positions of each sequence."""
        split = nd.reshape(self.joint(x), (0, 0, 3, self.heads, -1))
        mixed = nd.scaled_dot_product_attention(
            *(split[:, :, part] for part in range(3)), causal=self.causal
        )
        return self.out(nd.reshape(mixed, (0, 0, -1)))


class TransformerLayer(HybridBlock):
    """Attention and two dense layers, normalized before each (GPT) or after (BERT)."""

    def __init__(self, width: int, heads: int, before: bool) -> None:
        super().__init__()
        self.before = before
        self.attention = Attention(width, heads, causal=before)
        self.norm1, self.norm2 = nn.LayerNorm(), nn.LayerNorm()
        self.wide = nn.Dense(4 * width, flatten=False)
        self.gelu = nn.GELU()
        self.narrow = nn.Dense(width, flatten=False)

    def forward(self, x: Any) -> Any:
        """Run the layer."""
        if self.before:
            x = x + self.attention(self.norm1(x))
            return x + self.narrow(self.gelu(self.wide(self.norm2(x))))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.narrow(self.gelu(self.wide(x))))


class Gpt(HybridBlock):
    """Four layers between an embedding of bytes and places, and scores of the next byte."""

    def __init__(self, width: int, heads: int, longest: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, width), nn.Embedding(longest, width)
        self.layers = sequential(*(TransformerLayer(width, heads, True) for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(), nn.Dense(256, flatten=False)

    def forward(self, x: Any) -> Any:
        """Return scores of each place's next byte."""
        places = nd.expand_dims(self.places(nd.arange(x.shape[1])), 0)
        return self.head(self.norm(self.layers(nd.broadcast_add(self.tokens(x), places))))


def gpt() -> Gpt:
    """Return the GPT stack: four layers of width 256."""
    return Gpt(256, 4, 128)


def bert_layer() -> TransformerLayer:
    """Return one layer of BERT-base."""
    return TransformerLayer(768, 12, before=False)


def lstm() -> rnn.LSTM:
    """Return an LSTM with as many units as inputs."""
    return rnn.LSTM(256)


class TextClassifier(HybridBlock):
    """The mean of the words' vectors, and a dense layer."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(vocabulary, width), nn.Dense(2)

    def forward(self, x: Any) -> Any:
        """Return scores of the classes."""
        return self.out(nd.mean(self.words(x), axis=1))


def text_classifier() -> TextClassifier:
    """Return the classifier of texts, vocabulary 50,000."""
    return TextClassifier(50_000, 100)
