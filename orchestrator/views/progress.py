"""What a competitor reports while it trains, as far as a view shows it: its newest numbers, and its curve."""

import math
from dataclasses import dataclass
from pathlib import Path

from competitors.contract import Allowance
from competitors.events import read_events

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
    progress = Progress(budget)
    for event in read_events(path):
        progress = Progress(
            budget=budget,
            tokens=progress.tokens if event.tokens is None else event.tokens,
            step=progress.step if event.step is None else event.step,
            loss=progress.loss if event.loss is None else event.loss,
            seconds=progress.seconds if event.seconds is None else event.seconds,
        )
    return progress


def train_curve(path: Path) -> list[tuple[float, float]]:
    """(tokens, train loss) of one entry, averaged down to so many points that lines stay readable."""
    steps = [event for event in read_events(path) if event.event == "step"]
    points = [(event.tokens, event.loss) for event in steps if event.tokens is not None and event.loss is not None]
    size = max(1, math.ceil(len(points) / CURVE_POINTS))
    bins = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], sum(loss for _, loss in part) / len(part)) for part in bins]
