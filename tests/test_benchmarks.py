"""The benchmark suite: each row of graphc's computes what the others compute, in a tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import first_batch, report, runner
from benchmarks.record import Goal, Measured, Row, Side
from benchmarks.rows import GPU_ROWS, ROWS, chosen
from benchmarks.sides import GRAPHC, PEERS, REFERENCE
from benchmarks.workloads import FUNCTIONS, NETWORKS
from graphc.runtime import limits
from graphc.runtime.limits import Limits

LIMITS = Limits(2, 1e9, {1 << 20: 4e9, 1 << 28: 1e9})
# One row for each tiny computation: rows that differ in size only share it.
DISTINCT = {(r.workload.name, r.workload.kind, *r.tiny.values(), *r.options.values()): r
            for r in reversed((*ROWS, *GPU_ROWS))}  # fmt: skip
# Dozens of kernels to compile.
LARGE = ("ResNet-18 32x32", "ResNet-50", "MobileNetV2")
RUNNABLE = [
    pytest.param(row, id=row.name, marks=[pytest.mark.slow] if row.name.startswith(LARGE) else [])
    for row in reversed(DISTINCT.values())
]


@pytest.mark.parametrize("row", RUNNABLE)
def test_a_row_runs_and_agrees_with_a_reference(row: Row) -> None:
    checks = [p for p in PEERS if p.name == "torch" and not p.missing()] + [REFERENCE]
    sides = runner.prepare(row, row.tiny, [GRAPHC, *checks])
    if len(sides) > 1:
        runner.verify(row, sides)
        return
    for found in sides["graphc"].outputs(sides["graphc"].run()):
        assert np.isfinite(found).all() and np.any(found != 0)
    pytest.skip("it runs; torch, which this network is compared with, is not installed")


def test_every_row_has_sizes_and_a_goal() -> None:
    for rows in (ROWS, GPU_ROWS):
        assert len({r.name for r in rows}) == len(rows)
    for row in (*ROWS, *GPU_ROWS):
        assert (row.goal.ratio is None) != (row.goal.at_most_us is None), row.name
        assert row.sizes.keys() <= row.tiny.keys(), row.name
    used = {r.workload.name for r in (*ROWS, *GPU_ROWS)}
    assert FUNCTIONS.keys() | NETWORKS.keys() <= used


def test_work_counts_the_products_of_the_networks() -> None:
    torch = pytest.importorskip("torch", reason="torch counts the products of a network")
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks import models_torch

    for name, network in NETWORKS.items():
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            getattr(models_torch, name)()(torch.empty(2, *network.shape))
        assert counter.get_total_flops() == pytest.approx(4 * network.products, rel=0.01), name


def test_a_side_that_computes_something_else_is_found() -> None:
    row = chosen(["softmax"])[0]
    sides = runner.prepare(row, row.tiny, [GRAPHC])
    wrong = {**sides, "wrong": Side(lambda: 0, lambda _: [np.ones((5, 37))])}
    with pytest.raises(runner.Disagreement, match="graphc and wrong differ"):
        runner.verify(row, wrong)
    nan = {**sides, "nan": Side(lambda: 0, lambda _: [np.full((5, 37), np.nan)])}
    with pytest.raises(runner.Disagreement, match="differ by inf"):
        runner.verify(row, nan)


def test_a_row_that_fails_is_shown_with_its_reason() -> None:
    row = Row("broken", FUNCTIONS["softmax"], Goal(1.0), {"rows": 3, "columns": -1})
    found = runner.measure(row, [GRAPHC], LIMITS, 1, 0.1)
    assert "ValueError" in found.problem
    assert "failed: ValueError" in report.line(found, ["graphc"])


def measured(seconds: Mapping[str, list[float]]) -> Measured:
    row = Row("matrix", FUNCTIONS["matmul"], Goal(1.5), {"n": 100})
    return Measured(row, seconds, 0.001)


def test_the_ratio_is_to_the_fastest_peer_by_medians() -> None:
    found = measured({"graphc": [0.002, 0.002, 9.0], "a": [0.008] * 3, "b": [0.004, 0.004, 0.001]})
    assert (found.best_peer, found.ratio) == ("b", pytest.approx(2.0))
    text = report.line(found, ["graphc", "a", "b", "absent"])
    for part in ("2 ms", "8 ms", "4 ms", "1 GFLOP/s", "50 %", "2.00x", "1.5x met"):
        assert part in text
    assert Goal(3.0).met(found.ratio, 0.002) is False
    assert Goal(at_most_us=2).met(None, 1.9e-6) is True
    assert measured({"graphc": [1.0]}).ratio is None


def test_the_limit_is_arithmetic_or_memory_at_that_size() -> None:
    assert LIMITS.least_s(2e9, 8) == 2.0
    assert LIMITS.least_s(0, 1 << 20) == pytest.approx((1 << 20) / 4e9)
    assert LIMITS.least_s(0, 1 << 30) == pytest.approx((1 << 30) / 1e9)


def test_the_machine_is_measured() -> None:
    assert limits.peak_flops_per_s(1, steps=1 << 12) > 1e9
    assert limits.copy_bytes_per_s(2, 1 << 20) > 1e8
    assert limits.side_by_side_s([lambda: time.sleep(0.01)] * 2, rounds=2) >= 0.01


def test_the_command_writes_json_and_a_plot(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "measure", lambda threads: LIMITS)
    monkeypatch.setattr(command, "limit_processors", lambda threads: None)
    file, options = tmp_path / "figures.json", ["--peers", "--repeats", "3", "--threads", "1"]
    picture = tmp_path / "ratios.png"
    try:
        import matplotlib  # noqa: F401

        options += ["--plot", str(picture)]
    except ImportError:
        with pytest.raises(SystemExit, match="matplotlib is not installed"):
            command.main(["--plot", str(picture)])
    assert command.main(["call of", "GEMM 512", "--json", str(file), *options]) == 0
    assert "GEMM 512" in capsys.readouterr().out
    call, product = json.loads(file.read_text())["rows"]
    assert len(call["seconds"]["graphc"]) == 3
    assert product["goal"] == "1x"
    assert picture.exists() == ("--plot" in options)


def test_what_the_command_cannot_do() -> None:
    with pytest.raises(SystemExit, match="no row has one of the words nothing"):
        command.main(["nothing"])
    with pytest.raises(SystemExit, match="--peers: tensorflow cannot run here"):
        command.main(["--peers", "tensorflow", "--threads", "1"])


def test_the_first_batch_is_trained_in_graphc(capsys: pytest.CaptureFixture[str]) -> None:
    row = first_batch.row_of("mlp")
    assert row.name == "MLP training step, sgd, batch 64"
    first_batch.train(row, "graphc", 1)
    assert first_batch.peak_bytes() > 10e6


def test_scripts_beside_the_suite_find_what_they_import() -> None:
    scripts = ("compile_time", "contraction", "dispatch", "mnist_accuracy", "peak_memory")
    code = "; ".join(f"import benchmarks.{name}" for name in scripts)
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
