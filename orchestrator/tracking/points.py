"""The numbers that MLflow shows, as points of metrics: scores over rounds, and what competitors report over tokens."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from competitors.contract import Event, Submission
from evaluation.scorecard import Scorecard
from orchestrator.rounds.verdict import Verdict

REPORTED = {
    "loss": "train_loss",
    "learning_rate": "learning_rate",
    "memory_megabytes": "system/memory_megabytes",
    "gpu_memory_megabytes": "system/gpu_memory_megabytes",
}
"""Keys of a competitor's events, and the metrics that they become."""


@dataclass(frozen=True)
class Point:
    """One value of a metric. The step is the round; of what a competitor reports, its training tokens."""

    name: str
    value: float
    step: int
    time_ms: int


def of_scorecard(card: Scorecard | None, step: int, when: int) -> list[Point]:
    """A model's scores as points of the chart over rounds."""
    if card is None:
        return []
    values = {
        "validation_loss": card.validation.loss,
        "test_loss": card.test.loss,
        "test_bits_per_byte": card.test.bits_per_byte,
        "test_perplexity": card.test.perplexity,
    }
    return [Point(name, value, step, when) for name, value in values.items()]


def of_entry(
    name: str, number: int, when: int, submission: Submission | None, card: Scorecard | None, verdict: Verdict | None
) -> list[Point]:
    """What an entry cost, its scores, and its improvement over the champion it met."""
    values: dict[str, float] = {}
    if submission is not None:
        values |= {key: float(getattr(submission, key)) for key in ("train_tokens", "train_seconds", "device_seconds")}
    standing = next((s for s in verdict.entries if s.competitor == name), None) if verdict else None
    if standing is not None:
        values |= {"improvement": standing.improvement, "improvement_low": standing.improvement_low}
    return [Point(key, value, number, when) for key, value in values.items()] + of_scorecard(card, number, when)


def of_event(event: Event) -> Iterator[Point]:
    """The metrics in one event, by tokens. A competitor of the user's own may report anything."""
    if event["event"] not in ("started", "step", "ended"):
        return
    numbers = {k: float(v) for k, v in event.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    step = int(numbers.get("tokens", numbers.get("step", 0.0)))
    when = int(numbers.get("time", time.time()) * 1000)
    values = {metric: numbers[key] for key, metric in REPORTED.items() if key in numbers}
    if numbers.get("seconds") and "tokens" in numbers:
        values["tokens_per_second"] = numbers["tokens"] / numbers["seconds"]
    yield from (Point(name, value, step, when) for name, value in values.items())


def written_ms(path: Path) -> int:
    """When a file was written, in milliseconds since the epoch: MLflow's unit."""
    return path.stat().st_mtime_ns // 1_000_000


def now_ms() -> int:
    """The same for this moment."""
    return time.time_ns() // 1_000_000
