"""Validation against test: how much of what champions gain is gained only on the rows that chose them."""

from collections.abc import Iterator
from dataclasses import dataclass

from evaluation.compare import Difference, Gain, gain, gap
from evaluation.results import read_results
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.record.snapshot import LineageSnapshot, Snapshot

LEVEL = 0.05
"""The chance to err of each interval."""


@dataclass(frozen=True)
class Fit:
    """A champion on the rows that chose it, and on the test rows."""

    champion: ModelRef
    validation_loss: float
    test_loss: float
    on_validation: Gain
    """Over the base, as the one below."""
    on_test: Gain
    gap: Difference


def fits(snapshot: Snapshot, lineage: LineageSnapshot) -> Iterator[Fit]:
    """Of every champion of a lineage that is scored on the test rows, in order of its round."""
    run, config = snapshot.run, snapshot.config
    base = run.scores(lineage.name, BASE) / "losses.parquet"
    for champion in (verdict.champion for verdict in lineage.verdicts if verdict.dethroned):
        card = lineage.scorecard_of(champion)
        if card is None or card.test is None:
            continue
        rows = run.scores(lineage.name, champion) / "losses.parquet"
        splits = (config.choosing(champion.round), "test")
        chose, tested = (gain(read_results(base, split), read_results(rows, split)) for split in splits)
        yield Fit(champion, card.validation.loss, card.test.loss, chose, tested, gap(chose, tested, LEVEL))
