"""The networks of the suite in PyTorch: as `benchmarks.models`, parameters in the same order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def lenet(pad: int = 0) -> nn.Module:
    side = (28 + 2 * pad - 4) // 2
    side = (side + 2 * pad - 4) // 2
    return nn.Sequential(
        nn.Conv2d(1, 20, 5, padding=pad), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Conv2d(20, 50, 5, padding=pad), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Flatten(), nn.Linear(50 * side * side, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


def convolution(
    inputs: int, channels: int, window: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, channels, window, stride, window // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


class Residual(nn.Module):
    def __init__(self, body: Any, shortcut: Any = None, activation: bool = True) -> None:
        super().__init__()
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def forward(self, x: Tensor) -> Tensor:
        total = self.body(x) + (x if self.shortcut is None else self.shortcut(x))
        return torch.relu(total) if self.activation else total


def basic_block(inputs: int, channels: int, stride: int, widen: bool) -> tuple[nn.Module, int]:
    body = [*convolution(inputs, channels, 3, stride), nn.ReLU(),
            *convolution(channels, channels, 3)]  # fmt: skip
    shortcut = nn.Sequential(*convolution(inputs, channels, 1, stride)) if widen else None
    return Residual(nn.Sequential(*body), shortcut), channels


def bottleneck(inputs: int, channels: int, stride: int, widen: bool) -> tuple[nn.Module, int]:
    outputs = 4 * channels
    body = [
        *convolution(inputs, channels, 1), nn.ReLU(),
        *convolution(channels, channels, 3, stride), nn.ReLU(), *convolution(channels, outputs, 1),
    ]  # fmt: skip
    shortcut = nn.Sequential(*convolution(inputs, outputs, 1, stride)) if widen else None
    return Residual(nn.Sequential(*body), shortcut), outputs


def resnet(block: Any, depths: tuple[int, ...], classes: int, large: bool) -> nn.Module:
    layers = [*(convolution(3, 64, 7, 2) if large else convolution(3, 64, 3)), nn.ReLU()]
    layers += [nn.MaxPool2d(3, 2, 1)] if large else []
    width = 64
    for stage, depth in enumerate(depths):
        for place in range(depth):
            stride = 2 if stage and not place else 1
            widen = not place and (stage > 0 or block is bottleneck)
            made, width = block(width, 64 << stage, stride, widen)
            layers.append(made)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def resnet18_small() -> nn.Module:
    return resnet(basic_block, (2, 2, 2, 2), 10, large=False)


def resnet18() -> nn.Module:
    return resnet(basic_block, (2, 2, 2, 2), 1000, large=True)


def resnet50() -> nn.Module:
    return resnet(bottleneck, (3, 4, 6, 3), 1000, large=True)


def inverted_residual(inputs: int, channels: int, stride: int, factor: int) -> nn.Module:
    hidden = inputs * factor
    widen = [*convolution(inputs, hidden, 1), nn.ReLU6()] if factor > 1 else []
    body = nn.Sequential(
        *widen, *convolution(hidden, hidden, 3, stride, hidden), nn.ReLU6(),
        *convolution(hidden, channels, 1),
    )  # fmt: skip
    return Residual(body, activation=False) if stride == 1 and inputs == channels else body


def mobilenet_v2() -> nn.Module:
    layers, inputs = [*convolution(3, 32, 3, 2), nn.ReLU6()], 32
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
             (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
    for factor, channels, depth, first in table:
        for place in range(depth):
            layers.append(inverted_residual(inputs, channels, 1 if place else first, factor))
            inputs = channels
    return nn.Sequential(
        *layers, *convolution(inputs, 1280, 1), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000),
    )  # fmt: skip


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.joint, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.joint(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class TransformerLayer(nn.Module):
    def __init__(self, width: int, heads: int, before: bool) -> None:
        super().__init__()
        self.before = before
        self.attention = Attention(width, heads, causal=before)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            x = x + self.attention(self.norm1(x))
            return x + self.narrow(functional.gelu(self.wide(self.norm2(x))))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.narrow(functional.gelu(self.wide(x))))


class Gpt(nn.Module):
    def __init__(self, width: int, heads: int, longest: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, width), nn.Embedding(longest, width)
        self.layers = nn.Sequential(*(TransformerLayer(width, heads, True) for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256)

    def forward(self, x: Tensor) -> Tensor:
        places = self.places(torch.arange(x.shape[1]))
        return self.head(self.norm(self.layers(self.tokens(x) + places)))


def gpt() -> nn.Module:
    return Gpt(256, 4, 128)


def bert_layer() -> nn.Module:
    return TransformerLayer(768, 12, before=False)


class Lstm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.LSTM(width, width)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(x)[0]
        return outputs


def lstm() -> nn.Module:
    return Lstm(256)


def text_classifier() -> nn.Module:
    words = nn.EmbeddingBag(50_000, 100, mode="mean", sparse=True)
    return nn.Sequential(words, nn.Linear(100, 2))
