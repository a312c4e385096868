"""The rows of the suite: sizes and goals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.record import Goal, Row
from benchmarks.workloads import ADAM, BERT, FUNCTIONS, GPT, LSTM, TEXT, inference, training


def function(name: str, workload: str, goal: Goal, sizes: Any, tiny: Any) -> Row:
    """Return a row of a function of arrays."""
    return Row(name, FUNCTIONS[workload], goal, sizes, tiny)


def matrices(name: str, workload: str, ratio: float, rows: int, columns: int) -> Row:
    """Return a row of a function of one matrix, or of one and what goes with it."""
    tiny = {"rows": 5, "columns": 37}
    sizes = {"rows": rows, "columns": columns}
    return function(f"{name} {rows}x{columns}", workload, Goal(ratio), sizes, tiny)


def dense(batch: int, ratio: float) -> Row:
    """Return a dense layer's row."""
    sizes = {"batch": batch, "inputs": 784, "units": 512}
    tiny = {"batch": min(batch, 3), "inputs": 20, "units": 7}
    name = f"dense + bias + relu 784x512, batch {batch}"
    return function(name, "dense_relu", Goal(ratio), sizes, tiny)


def train(name: str, model: str, optimizer: str, batch: int, ratio: float) -> Row:
    """Return a row of a network's training step."""
    options = {"model": model, "optimizer": optimizer, "rate": 0.01 if optimizer == "sgd" else 1e-3}
    title = f"{name} training step, {optimizer}, batch {batch}"
    return Row(title, training(model), Goal(ratio), {"batch": batch}, {"batch": 2}, options)


def infer(name: str, model: str, batch: int, ratio: float, side: int = 0) -> Row:
    """Return a row of a network's inference; the tests' images have ``side``, if that is given."""
    tiny = {"batch": min(batch, 2)} | ({"side": side} if side else {})
    title = f"{name} inference, batch {batch}"
    options = {"model": model}
    return Row(title, inference(model), Goal(ratio), {"batch": batch}, tiny, options)


ROWS: tuple[Row, ...] = (
    function("call of x + 1, 4 elements", "add_one", Goal(at_most_us=2), {"count": 4},
             {"count": 4}),
    *(function(f"GEMM {n}", "matmul", Goal(1.0), {"n": n}, {"n": 19}) for n in (512, 1024, 2048)),
    dense(1, 1.0),
    dense(32, 1.3),
    dense(128, 1.2),
    matrices("GELU chain of 12 ops", "gelu_chain", 1.3, 1024, 4096),
    matrices("softmax", "softmax", 1.8, 4096, 1024),
    matrices("layer norm forward + backward", "layer_norm_gradient", 2.5, 4096, 1024),
    matrices("cross entropy forward + backward", "cross_entropy_gradient", 2.5, 256, 10000),
    matrices("sum over axis 0,", "sum_columns", 1.6, 4096, 4096),
    matrices("max over axis 0,", "max_columns", 1.6, 4096, 4096),
    matrices("transpose copy", "transpose", 3.0, 4096, 4096),
    train("MLP", "mlp", "sgd", 64, 2.0),
    train("MLP", "mlp", "adam", 64, 2.0),
    train("MLP", "mlp", "sgd", 256, 1.5),
    train("MLP", "mlp", "adam", 256, 1.5),
    train("LeNet", "lenet", "sgd", 100, 3.0),
    infer("LeNet", "lenet", 1, 1.3),
    infer("LeNet", "lenet", 100, 1.3),
    train("ResNet-18 32x32", "resnet18_small", "sgd", 64, 1.4),
    infer("ResNet-18 224x224", "resnet18", 1, 1.1, side=32),
    infer("ResNet-50 224x224", "resnet50", 1, 1.1, side=32),
    infer("MobileNetV2 224x224", "mobilenet_v2", 1, 1.0, side=32),
    Row("LSTM 256, sequence 35, batch 32, forward + backward", LSTM, Goal(1.4),
        {"length": 35, "batch": 32}, {"length": 3, "batch": 2}, {"model": "lstm"}),
    Row("GPT stack training step, adam, batch 16", GPT, Goal(1.5), {"batch": 16, "length": 128},
        {"batch": 2, "length": 8}, {"model": "gpt", "optimizer": "adam", "rate": 1e-4}),
    *(Row(f"BERT-base layer inference, batch {batch}", BERT, Goal(1.2),
          {"batch": batch, "length": 128}, {"batch": min(batch, 2), "length": 8},
          {"model": "bert_layer"}) for batch in (1, 8)),
    Row("Adam over 50 M parameters in 100 tensors", ADAM, Goal(0.95),
        {"count": 100, "elements": 500_000}, {"count": 3, "elements": 40}, {"rate": 1e-3}),
    Row("text classifier training step, vocabulary 50,000", TEXT, Goal(1.0),
        {"batch": 64, "length": 64}, {"batch": 2, "length": 5},
        {"model": "text_classifier", "optimizer": "sgd", "rate": 0.5}),
)  # fmt: skip


def product(precision: str, ratio: float) -> Row:
    """Return a row of a product of float32 matrices on a GPU, factors rounded to a precision."""
    row = function(f"GEMM 4096, {precision}", "matmul", Goal(ratio), {"n": 4096}, {"n": 19})
    workload = replace(row.workload, tolerance=3e-2)
    return replace(row, workload=workload, options={"precision": precision})


def attend(name: str, workload: str, ratio: float) -> Row:
    """Return a row of causal attention on a GPU."""
    sizes = {"batch": 4, "heads": 16, "length": 2048}
    title = f"{name} 4x16x2048x64"
    return function(title, workload, Goal(ratio), sizes, {"batch": 2, "heads": 2, "length": 9})


GPU_ROWS: tuple[Row, ...] = (
    matrices("GELU chain of 12 ops", "gelu_chain", 1.2, 8192, 8192),
    matrices("softmax", "softmax", 1.2, 16384, 4096),
    matrices("layer norm forward + backward", "layer_norm_gradient", 1.2, 16384, 4096),
    function("GEMM 4096", "matmul", Goal(0.9), {"n": 4096}, {"n": 19}),
    product("tf32", 0.8),
    product("bfloat16", 0.8),
    attend("causal attention", "attention", 0.8),
    attend("causal attention forward + backward", "attention_gradient", 0.8),
    train("MLP", "mlp", "sgd", 64, 3.0),
    train("LeNet", "lenet", "sgd", 100, 3.0),
    train("ResNet-18 32x32", "resnet18_small", "sgd", 64, 1.0),
    Row("GPT stack training step", GPT, Goal(1.0), {"batch": 16, "length": 128},
        {"batch": 2, "length": 8}, {"model": "gpt", "optimizer": "adam", "rate": 1e-4}),
)  # fmt: skip
"""The rows that are measured on a GPU."""


def chosen(words: list[str], rows: tuple[Row, ...] = ROWS) -> list[Row]:
    """Return the rows whose name has one of the words, in any case; all without words."""
    return [r for r in rows if not words or any(w.lower() in r.name.lower() for w in words)]
