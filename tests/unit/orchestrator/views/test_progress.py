"""An entry's newest numbers, and its curve."""

from pathlib import Path

import pytest

from competitors.contract import Allowance
from competitors.events import reporter
from orchestrator.views.progress import CURVE_POINTS, Progress, read_progress, train_curve


def test_the_share_is_that_of_the_nearest_limit():
    budget = Allowance(tokens=100, seconds=10, steps=4)
    assert Progress(budget, tokens=50, step=3, seconds=2).share == 0.75
    assert Progress(budget, tokens=500).share == 1.0
    assert Progress(Allowance(steps=4), tokens=50).share == 0.0


def test_there_is_a_pace_only_once_there_is_one():
    budget = Allowance(tokens=100)
    assert (Progress(budget).speed, Progress(budget).seconds_left) == (0.0, None)
    half = Progress(budget, tokens=50, seconds=5)
    assert (half.speed, half.seconds_left) == (10.0, 5.0)


def test_the_newest_of_each_number_counts(tmp_path: Path):
    report = reporter(tmp_path / "progress.jsonl")
    for event in ({"tokens": 10, "loss": 3.0}, {"tokens": 20, "step": 2}, {"seconds": 4.0}):
        report({"event": "step", **event})
    budget = Allowance(tokens=40)
    assert read_progress(tmp_path / "progress.jsonl", budget) == Progress(budget, 20, 2, 3.0, 4.0)
    assert read_progress(tmp_path / "absent.jsonl", budget) == Progress(budget)


def test_a_curve_is_averaged_down_to_what_can_be_drawn(tmp_path: Path):
    report = reporter(tmp_path / "progress.jsonl")
    for step in range(1, 4 * CURVE_POINTS + 1):
        report({"event": "step", "tokens": step, "loss": float(step % 2)})
    report({"event": "step", "tokens": 9999})  # without a loss
    curve = train_curve(tmp_path / "progress.jsonl")
    assert len(curve) == CURVE_POINTS
    assert curve[0] == (4, pytest.approx(0.5))
    assert curve[-1][0] == 4 * CURVE_POINTS
