"""Train LeNet on handwritten digits with kernels that graphc generates itself.

    python examples/mnist.py                    9,000 digits that ship with graphc, 1,000 to test on
    python examples/mnist.py --data DIR         the full MNIST (IDX files, plain or .gz) in DIR
    python examples/mnist.py --gpu              on the first NVIDIA GPU
    python examples/mnist.py --out DIR          where the model and the pictures go

The last line is ``test accuracy: 0.xxxx``.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from graphc import gluon, nd
from graphc.gluon import nn
from graphc.gluon.data import vision

BATCH = 100


def lenet() -> nn.HybridSequential:
    """Return LeNet for 28 x 28 images with one channel."""
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(20, kernel_size=5, padding=2, activation="relu"),
        nn.MaxPool2D(2, 2),
        nn.Conv2D(50, kernel_size=5, padding=2, activation="relu"),
        nn.MaxPool2D(2, 2),
        nn.Dense(500, activation="relu"),
        nn.Dense(10),
    )
    return net


def digits(folder: str | None) -> tuple[Any, Any]:
    """Return the data sets to train and to test on, as float images in (1, 28, 28)."""
    to_tensor = vision.transforms.ToTensor()
    if folder is None:
        sets = [vision.MNISTSample(split) for split in ("train", "test")]
    else:
        sets = [vision.MNIST(root=folder, train=train) for train in (True, False)]
    return tuple(s.transform_first(to_tensor) for s in sets)  # type: ignore[return-value]


def progress(epoch: int, done: int, total: int, loss: float) -> None:
    """Draw the progress bar of an epoch, where there is a terminal to draw it on."""
    if not sys.stdout.isatty() and done < total:
        return
    filled = 30 * done // total
    bar = "#" * filled + "." * (30 - filled)
    print(f"\repoch {epoch} [{bar}] {done}/{total}  loss {loss:.4f}", end="", flush=True)


def train(
    net: nn.HybridSequential, data: Any, test: Any, epochs: int, ctx: graphc.Context
) -> list[dict[str, float]]:
    """Train and return loss and accuracy of each epoch."""
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 1e-3})
    step = gluon.TrainStep(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer)
    loader = gluon.data.DataLoader(data, batch_size=BATCH, shuffle=True, ctx=ctx)
    history = []
    for epoch in range(1, epochs + 1):
        if epoch == epochs:
            trainer.set_learning_rate(2e-4)
        started, total = time.perf_counter(), 0.0
        for number, (images, labels) in enumerate(loader, 1):
            total += float(step(images, labels).mean())
            progress(epoch, number, len(loader), total / number)
        loss, seconds = total / len(loader), time.perf_counter() - started
        accuracy, _ = evaluate(net, test, ctx)
        print(f"  test accuracy {accuracy:.4f}  {seconds:.1f} s")
        history.append({"loss": loss, "accuracy": accuracy})
    return history


def evaluate(net: nn.HybridSequential, data: Any, ctx: graphc.Context) -> tuple[float, np.ndarray]:
    """Return the accuracy, and the predicted digit of every image."""
    predicted, labels = [], []
    for images, label in gluon.data.DataLoader(data, batch_size=500, ctx=ctx):
        predicted.append(nd.argmax(net(images), axis=1).asnumpy())
        labels.append(label.asnumpy())
    found = np.concatenate(predicted).astype(np.int32)
    return float((found == np.concatenate(labels)).mean()), found


def draw(history: list[dict[str, float]], data: Any, predicted: np.ndarray, out: Path) -> None:
    """Draw the learning curve, and up to 24 digits that were misread."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5))
    epochs = range(1, len(history) + 1)
    left.plot(epochs, [h["loss"] for h in history], marker="o")
    left.set(xlabel="epoch", ylabel="training loss", xticks=list(epochs))
    right.plot(epochs, [h["accuracy"] for h in history], marker="o")
    right.set(xlabel="epoch", ylabel="test accuracy", xticks=list(epochs))
    figure.tight_layout()
    figure.savefig(out / "learning_curve.png", dpi=120)

    batches = list(gluon.data.DataLoader(data, batch_size=500))
    images = np.concatenate([b[0].asnumpy() for b in batches])[:, 0]
    labels = np.concatenate([b[1].asnumpy() for b in batches])
    wrong = np.flatnonzero(predicted != labels)[:24]
    figure, axes = pyplot.subplots(3, 8, figsize=(9, 4))
    for axis in axes.flat:
        axis.axis("off")
    for axis, place in zip(axes.flat, wrong):
        axis.imshow(images[place], cmap="gray_r")
        axis.set_title(f"{labels[place]} read as {predicted[place]}", fontsize=8)
    figure.tight_layout()
    figure.savefig(out / "misread.png", dpi=120)


def from_here(path: str) -> str:
    """Return a path as one types it in the current folder."""
    whole, here = Path(path).absolute(), Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


def main() -> None:
    """Train, save, draw, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with the four MNIST files")
    parser.add_argument("--epochs", type=int, default=None, help="passes over the data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gpu", action="store_true", help="train on the first NVIDIA GPU")
    parser.add_argument("--out", type=Path, default=Path("mnist-out"))
    options = parser.parse_args()

    graphc.random.seed(options.seed)
    data, test = digits(options.data)
    net = lenet()
    ctx = graphc.gpu(0) if options.gpu else graphc.cpu()
    net.initialize(graphc.init.Xavier(), ctx=ctx)
    net.hybridize()
    epochs = options.epochs or (8 if options.data is None else 3)
    print(f"{len(data)} digits to train on, {len(test)} to test on")
    started = time.perf_counter()
    history = train(net, data, test, epochs, ctx)
    seconds = time.perf_counter() - started
    accuracy, predicted = evaluate(net, test, ctx)

    options.out.mkdir(parents=True, exist_ok=True)
    net.save_parameters(str(options.out / "lenet.params"))
    if importlib.util.find_spec("matplotlib"):
        draw(history, test, predicted, options.out)
    else:
        print("no pictures, for these need matplotlib: pip install matplotlib")
    counts = graphc.stats()
    compiled, loaded = counts["kernels_compiled"], counts["kernels_loaded"]
    print(f"trained in {seconds:.1f} s; kernels: {compiled:.0f} compiled, {loaded:.0f} loaded")
    print(f"what was made is in {options.out}{'/' if options.out.name else ''}")
    dump = f"{from_here(sys.executable)} -m graphc dump {from_here(__file__)}:lenet"
    print(f"next: {dump} --shape 'x=f32[100,1,28,28]' --stage fuse")
    print(f"test accuracy: {accuracy:.4f}")


if __name__ == "__main__":
    main()
