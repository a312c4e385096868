"""Learning rate schedules against MXNet 1.9's stateful definitions, written out here."""

from __future__ import annotations

import math

import pytest

from graphc.errors import ArgumentError
from graphc.frontend.lr_scheduler import (
    CosineScheduler,
    FactorScheduler,
    LRScheduler,
    MultiFactorScheduler,
    PolyScheduler,
)


def factor_by_loop(updates, step, factor, stop, rate):
    count = 0
    for update in updates:
        while update > count + step:
            count += step
            rate = max(rate * factor, stop)
        yield rate


def test_factor_follows_the_loop_of_mxnet_down_to_its_floor():
    schedule = FactorScheduler(step=7, factor=0.5, stop_factor_lr=0.01, base_lr=1.0)
    expected = factor_by_loop(range(100), 7, 0.5, 0.01, 1.0)
    assert [schedule(n) for n in range(100)] == pytest.approx(list(expected))
    assert schedule(7) == 1.0 and schedule(8) == 0.5 and schedule(99) == 0.01


def test_multi_factor_changes_after_each_step():
    schedule = MultiFactorScheduler(step=[5, 8], factor=0.1, base_lr=2.0)
    rates = [schedule(n) for n in (0, 5, 6, 8, 9, 1000)]
    assert rates == pytest.approx([2.0, 2.0, 0.2, 0.2, 0.02, 0.02])


def test_poly_and_cosine_reach_the_final_rate_and_stay():
    poly = PolyScheduler(max_update=100, base_lr=1.0, pwr=2, final_lr=0.2)
    assert poly(0) == 1.0 and poly(50) == pytest.approx(0.2 + 0.8 * 0.25)
    assert poly(100) == poly(500) == 0.2
    cosine = CosineScheduler(max_update=100, base_lr=1.0, final_lr=0.2)
    assert cosine(0) == 1.0 and cosine(50) == pytest.approx(0.6)
    assert cosine(25) == pytest.approx(0.2 + 0.4 * (1 + math.cos(math.pi / 4)))
    assert cosine(100) == pytest.approx(0.2) and cosine(500) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "make",
    [
        lambda **kw: FactorScheduler(step=1000, factor=0.5, **kw),
        lambda **kw: MultiFactorScheduler(step=[1000], factor=0.5, **kw),
        lambda **kw: PolyScheduler(max_update=1000, **kw),
        lambda **kw: CosineScheduler(max_update=1000, **kw),
    ],
)
def test_warm_up_is_linear_or_constant_and_ends_at_the_base_rate(make):
    linear = make(base_lr=1.0, warmup_steps=10, warmup_begin_lr=0.5)
    assert [linear(n) for n in (0, 5, 10)] == pytest.approx([0.5, 0.75, 1.0])
    constant = make(base_lr=1.0, warmup_steps=10, warmup_begin_lr=0.5, warmup_mode="constant")
    assert [constant(n) for n in (0, 9, 10)] == [0.5, 0.5, 1.0]


def test_poly_counts_from_the_end_of_the_warm_up():
    schedule = PolyScheduler(max_update=30, base_lr=1.0, pwr=1, warmup_steps=10)
    assert schedule(20) == pytest.approx(0.5)


def test_a_new_base_rate_moves_the_whole_schedule():
    schedule = CosineScheduler(max_update=100, base_lr=0.01, warmup_steps=10)
    schedule.base_lr = 1.0
    assert schedule(5) == 0.5 and schedule(10) == 1.0


def test_calls_keep_no_state():
    schedule = FactorScheduler(step=2, factor=0.5, base_lr=1.0)
    late = schedule(100)
    assert schedule(1) == 1.0 and schedule(100) == late


def test_the_base_class_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="defines neither rate nor"):
        LRScheduler()(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FactorScheduler(step=0), "step must be 1"),
        (lambda: FactorScheduler(step=1, factor=1.5), "at most 1"),
        (lambda: MultiFactorScheduler(step=5), "list of numbers"),
        (lambda: MultiFactorScheduler(step=[5, 5]), "must increase"),
        (lambda: MultiFactorScheduler(step=[0, 5]), "must increase"),
        (lambda: PolyScheduler(max_update=0), "max_update"),
        (lambda: CosineScheduler(max_update=10.5), "max_update"),
        (lambda: CosineScheduler(max_update=10, warmup_steps=10), "leaves nothing"),
        (lambda: LRScheduler(base_lr=0.1, warmup_begin_lr=0.2), "above base_lr"),
        (lambda: MultiFactorScheduler(step=[5, "8"]), "step of MultiFactorScheduler must be a num"),
        (lambda: FactorScheduler(step="7"), "step of FactorScheduler must be a number, got '7'"),
        (lambda: CosineScheduler(max_update=9, base_lr=None), "base_lr .* must be a number, got N"),
        (lambda: PolyScheduler(max_update=9, pwr=math.nan), "pwr .* must be a number, got nan"),
        (lambda: LRScheduler(warmup_steps=-1), "warmup_steps"),
        (lambda: LRScheduler(warmup_mode="liner"), "Did you mean 'linear'"),
    ],
)
def test_a_wrong_argument_is_named_with_the_line(make, message):
    with pytest.raises(ArgumentError, match=f"{message}.*test_lr_scheduler.py"):
        make()
