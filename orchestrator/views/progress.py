"""What a competitor reports while it trains, as far as a view shows it: its newest numbers, and its curve.

What it reports is its own affair: a value may be missing, or be no number.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competitors.contract import Allowance, read_events

CURVE_POINTS = 120


@dataclass(frozen=True)
class Progress:
    """How far an entry's training has come."""

    budget: Allowance
    tokens: int = 0
    step: int = 0
    loss: float | None = None
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """Of the budget, 0 to 1, by whichever limit is nearest."""
        limits = (
            (self.tokens, self.budget.tokens),
            (self.seconds, self.budget.seconds),
            (self.step, self.budget.steps),
        )
        return min(1.0, max((spent / limit for spent, limit in limits if limit), default=0.0))

    @property
    def speed(self) -> float:
        """Training tokens per second since the first step."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Until the budget is spent at this pace; None before there is a pace."""
        return self.seconds * (1 - self.share) / self.share if self.share > 0.02 and self.seconds else None


def read_progress(path: Path, budget: Allowance) -> Progress:
    """The newest of each number in a progress.jsonl."""
    newest: dict[str, float] = {}
    for event in read_events(path):
        for key in ("tokens", "step", "loss", "seconds"):
            if (value := _number(event, key)) is not None:
                newest[key] = value
    return Progress(
        budget=budget,
        tokens=int(newest.get("tokens", 0)),
        step=int(newest.get("step", 0)),
        loss=newest.get("loss"),
        seconds=newest.get("seconds", 0.0),
    )


def train_curve(path: Path) -> list[tuple[float, float]]:
    """(tokens, train loss) of one entry, averaged down to so many points that lines stay readable."""
    steps = [event for event in read_events(path) if event.get("event") == "step"]
    both = ((_number(event, "tokens"), _number(event, "loss")) for event in steps)
    points = [(tokens, loss) for tokens, loss in both if tokens is not None and loss is not None]
    size = max(1, math.ceil(len(points) / CURVE_POINTS))
    bins = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], sum(loss for _, loss in part) / len(part)) for part in bins]


def _number(event: Any, key: str) -> float | None:
    value = event.get(key)
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable else None
