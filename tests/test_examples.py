"""Every example runs, and ends with the line that it promises."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
TESTED = {"mnist.py", "symbol.py", "gluon_block.py"}

FIRST_PROGRAM = """
import graphc
from graphc import autograd, gluon, nd, sym
from graphc import nd as F
from graphc.gluon import nn

class Net(nn.Block):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv1 = nn.Conv2D(channels=20, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2D(channels=50, kernel_size=5, padding=2)
        self.fc1 = nn.Dense(units=500); self.fc2 = nn.Dense(units=10)
    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), pool_size=2, strides=2)
        x = F.max_pool2d(F.relu(self.conv2(x)), pool_size=2, strides=2)
        return self.fc2(F.relu(self.fc1(x.reshape((-1, 7 * 7 * 50)))))
to = gluon.data.vision.transforms.ToTensor()
train_data = gluon.data.DataLoader(
    gluon.data.vision.MNIST(train=True).transform_first(to), batch_size=100, shuffle=True)
net = Net(); net.initialize()
trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01})
for data, label in train_data:
    with autograd.record():
        loss = gluon.loss.SoftmaxCrossEntropyLoss()(net(data), label)
    loss.backward(); trainer.step(data.shape[0])
print("loss: %f" % loss.mean()); print(nd.sum(nd.argmax(net(data), axis=1) == label))
"""
"""The program that graphc's first user started from, but for line breaks."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with MNIST's files: 300 images to train on, the last 100 to test on."""
    folder = tmp_path_factory.mktemp("digits")
    generator = np.random.default_rng(0)
    labels = (np.arange(300) % 10).astype(np.uint8)
    images = generator.integers(0, 60, (300, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 8] += 190  # a bar whose height tells the class
    (folder / "mnist").mkdir()
    for split, first in (("train", 0), ("t10k", 200)):
        for name, kind, array in (("images", 3, images[first:]), ("labels", 1, labels[first:])):
            header = struct.pack(f">HBB{kind}I", 0, 8, kind, *array.shape)
            path = folder / "mnist" / f"{split}-{name}-idx{kind}-ubyte"
            path.write_bytes(header + array.tobytes())
    return folder


def run(*arguments: object, data: Path | None = None) -> list[str]:
    """Run Python with these arguments; return the lines it prints."""
    environment = {**os.environ, "GRAPHC_DATA": str(data or "")}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == TESTED


def test_mnist(tmp_path: Path) -> None:
    lines = run(EXAMPLES / "mnist.py", "--epochs", 1, "--out", tmp_path)
    last = re.fullmatch(r"test accuracy: (0\.\d{4})", lines[-1])
    assert last is not None and float(last[1]) > 0.85
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"lenet.params", "learning_curve.png", "misread.png"}
    command = next(line for line in lines if line.startswith("next: ")).removeprefix("next: ")
    assert run(*shlex.split(command)[1:])[0] == "graph @lenet("


def test_symbol() -> None:
    lines = run(EXAMPLES / "symbol.py")
    assert lines.count(" [10. 10. 10.]]") == 2
    assert lines[-1] == "<NDArray 2x3 @cpu(0)>"


def test_gluon_block(digits: Path) -> None:
    lines = run(EXAMPLES / "gluon_block.py", "--samples", 250, data=digits)
    ways = [re.fullmatch(r"(\w+) +loss: (\S+)  right: (\d+) of 50 +\S+ s", line) for line in lines]
    assert [way[1] for way in ways if way] == ["imperative", "hybridized", "TrainStep"]
    losses = [float(way[2]) for way in ways if way]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-3)


def test_gluon_block_on_the_digits_that_ship_with_graphc() -> None:
    assert len(run(EXAMPLES / "gluon_block.py", "--samples", 100)) == 3


def test_the_program_that_the_first_user_started_from(digits: Path) -> None:
    lines = run("-c", FIRST_PROGRAM, data=digits)
    assert re.fullmatch(r"loss: \d\.\d{6}", lines[0])
    assert lines[-1] == "<NDArray 1 @cpu(0)>"


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(
    ("name", "arguments", "last"),
    [
        ("mnist.py", ["--gpu", "--epochs", "1"], r"test accuracy: 0\.\d{4}"),
        ("symbol.py", [], r"<NDArray 2x3 @gpu\(0\)>"),
        ("gluon_block.py", ["--gpu", "--samples", "200"], r"TrainStep +loss: .*"),
    ],
)
def test_examples_run_on_a_gpu(
    name: str, arguments: list[str], last: str, digits: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("GRAPHC_DATA", str(digits))
    if name == "mnist.py":
        arguments += ["--data", str(digits / "mnist"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert re.fullmatch(last, capsys.readouterr().out.splitlines()[-1])
