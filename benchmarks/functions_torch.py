"""The functions of arrays in PyTorch.

Each is built with ``wrap``: nothing for eager mode, `torch.compile` for the compiled one. What is
differentiated wraps its forward function only, as PyTorch compiles the backward one with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def add_one(wrap: Wrap) -> Callable[..., Any]:
    return wrap(lambda x: x + 1.0)


def matmul(wrap: Wrap) -> Callable[..., Any]:
    return wrap(lambda a, b: a @ b)


def dense_relu(wrap: Wrap) -> Callable[..., Any]:
    return wrap(lambda x, weight, bias: functional.relu(functional.linear(x, weight, bias)))


def gelu_chain(wrap: Wrap) -> Callable[..., Any]:
    def chain(x: Tensor) -> Tensor:
        y = x * 1.1 + 0.1
        return 0.5 * y * (1.0 + torch.tanh(0.7978845608 * (y + 0.044715 * y * y * y))) + x

    return wrap(chain)


def softmax(wrap: Wrap) -> Callable[..., Any]:
    return wrap(lambda x: torch.softmax(x, -1))


def layer_norm_gradient(wrap: Wrap) -> Callable[..., Any]:
    forward = wrap(lambda x, gamma, beta: functional.layer_norm(x, gamma.shape, gamma, beta))

    def both(x: Tensor, gamma: Tensor, beta: Tensor, cotangent: Tensor) -> tuple[Tensor, ...]:
        leaves = [t.detach().requires_grad_() for t in (x, gamma, beta)]
        with torch.enable_grad():
            y = forward(*leaves)
        return y.detach(), *torch.autograd.grad(y, leaves, cotangent)

    return both


def attention(wrap: Wrap) -> Callable[..., Any]:
    fused = functional.scaled_dot_product_attention
    return wrap(lambda query, key, value, _: fused(query, key, value, is_causal=True))


def attention_gradient(wrap: Wrap) -> Callable[..., Any]:
    forward = attention(wrap)

    def both(*arguments: Tensor) -> tuple[Tensor, ...]:
        leaves = [t.detach().requires_grad_() for t in arguments[:3]]
        with torch.enable_grad():
            y = forward(*leaves, None)
        return y.detach(), *torch.autograd.grad(y, leaves, arguments[3])

    return both


def cross_entropy_gradient(wrap: Wrap) -> Callable[..., Any]:
    forward = wrap(lambda x, labels: functional.cross_entropy(x, labels, reduction="sum"))

    def both(logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        leaf = logits.detach().requires_grad_()
        with torch.enable_grad():
            loss = forward(leaf, labels)
        return loss.detach(), *torch.autograd.grad(loss, leaf)

    return both


def sum_columns(wrap: Wrap) -> Callable[..., Any]:
    return wrap(lambda x: x.sum(0))


def max_columns(wrap: Wrap) -> Callable[..., Any]:
    return wrap(lambda x: x.amax(0))


def transpose(wrap: Wrap) -> Callable[..., Any]:
    return wrap(lambda x: x.t().contiguous())
