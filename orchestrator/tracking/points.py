"""The numbers that MLflow shows, as points of metrics: scores over rounds, and what competitors report over tokens."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from cluster.errors import BrokenRecord
from competitors.contract import Submission
from competitors.events import Event
from evaluation.figures import measured
from evaluation.scorecard import Scorecard
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.record.records import Verdict
from orchestrator.record.snapshot import EntrySnapshot, LineageSnapshot

COSTS = ("train_tokens", "train_seconds", "device_seconds")
"""Of a submission."""


@dataclass(frozen=True)
class Point:
    """One value of a metric. The step is the round; of what a competitor reports, its training tokens."""

    name: str
    value: float
    step: int
    time_ms: int


def scores_of(card: Scorecard) -> dict[str, float]:
    """A model's scores by the names of their metrics: the loss of validation rows, which choose, and all figures of
    test rows, which report."""
    figures = {f"test_{figure.name}": card.test_figures[figure.name] for figure in measured([card.test_figures])}
    return {"validation_loss": card.validation.loss, **figures}


def costs_of(submission: Submission) -> dict[str, float]:
    """What an entry cost."""
    return {name: float(getattr(submission, name)) for name in COSTS}


def of_scorecard(card: Scorecard | None, step: int, time_ms: int) -> list[Point]:
    """A model's scores as points of the chart over rounds."""
    return [] if card is None else [Point(name, value, step, time_ms) for name, value in scores_of(card).items()]


def of_entry(number: int, time_ms: int, entry: EntrySnapshot, verdict: Verdict | None) -> list[Point]:
    """What an entry cost, its validation loss, and its improvement over the champion it met.

    Never its test rows, not even where it has become champion: those are its lineage's.
    """
    values = {} if entry.submission is None else costs_of(entry.submission)
    if entry.scorecard is not None:
        values |= {"validation_loss": entry.scorecard.validation.loss}
    if verdict is not None and (standing := verdict.standing(entry.name)) is not None:
        values["improvement"] = standing.improvement
    if verdict is not None and (proof := verdict.proof_of(entry.name)) is not None:
        values["improvement_low"] = proof.improvement_low
    return [Point(name, value, number, time_ms) for name, value in values.items()]


def champions(lineage: LineageSnapshot) -> Iterator[tuple[int, ModelRef, Scorecard]]:
    """A lineage's champion after each round, with its scores; round 0 is the base model."""
    if lineage.scorecard is not None:
        yield 0, BASE, lineage.scorecard
    for verdict in lineage.verdicts:
        card = lineage.scorecard_of(verdict.champion)
        if card is None:
            entry = lineage.entry(verdict.champion)
            folder = lineage.rounds[0].folder.with_name("round-000") if entry is None else entry.folder
            raise BrokenRecord(f"{folder / 'scorecard.json'}: is missing, though later records rest on it: put it back")
        yield verdict.round, verdict.champion, card


def of_lineage(lineage: LineageSnapshot) -> list[Point]:
    """A lineage's line in the chart."""
    times = [lineage.times, *(one.times for one in lineage.rounds)]
    return [
        point
        for number, _, card in champions(lineage)
        for point in of_scorecard(card, number, times[number]["verdict.json" if number else "scorecard.json"])
    ]


def of_event(event: Event) -> Iterator[Point]:
    """The metrics in one event, by tokens. A competitor of the user's own may leave out anything."""
    if event.event not in ("started", "step", "ended"):
        return
    values = {
        "train_loss": event.loss,
        "learning_rate": event.learning_rate,
        "system/memory_megabytes": event.memory_megabytes,
        "system/gpu_memory_megabytes": event.gpu_memory_megabytes,
    }
    if event.seconds and event.tokens is not None:
        values["tokens_per_second"] = event.tokens / event.seconds
    step = next((count for count in (event.tokens, event.step) if count is not None), 0)
    when = time.time() if event.time is None else event.time
    for name, value in values.items():
        if value is not None:
            yield Point(name, float(value), int(step), int(when * 1000))
