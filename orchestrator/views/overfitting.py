"""Validation against test: how much of what champions gain is gained only on the rows that chose them.

Compared are gains and not losses, so that it makes no difference how hard the rows of a split are; and over the
champion before, which does well and badly on the same rows, so that a small gap can be told.
"""

from dataclasses import dataclass

from evaluation.compare import Difference, Gain, gain, gap
from evaluation.data.split import Split
from evaluation.results import read_results
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.snapshot import LineageSnapshot, Snapshot

LEVEL = 0.05
"""The chance to err of each interval."""


@dataclass(frozen=True)
class Fit:
    """What a champion gained over an earlier one on the rows that chose it, and on the test rows."""

    champion: ModelRef
    over: ModelRef
    on_validation: Gain
    on_test: Gain

    @property
    def gap(self) -> Difference:
        """How much less it is on test."""
        return gap(self.on_validation, self.on_test, LEVEL)


def fits(snapshot: Snapshot, lineage: LineageSnapshot) -> list[Fit]:
    """Of every champion of a lineage over the one before it; then, where all were chosen by the same rows, of the last
    one over the first. Champions that have no test loss are passed over."""
    titles = [(v.champion_before, v.champion, v.round) for v in lineage.verdicts if v.dethroned]
    config = snapshot.config
    pairs = [(before, champion, config.choosing(number)) for before, champion, number in titles]
    if len(titles) > 2 and not config.data.rotates:
        pairs.append((titles[0][1], titles[-1][1], config.choosing(1)))
    return [_fit(snapshot, lineage, *pair) for pair in pairs if all(_is_tested(lineage, one) for one in pair[:2])]


def _is_tested(lineage: LineageSnapshot, model: ModelRef) -> bool:
    card = lineage.scorecard_of(model)
    return card is not None and card.test is not None


def _fit(snapshot: Snapshot, lineage: LineageSnapshot, before: ModelRef, champion: ModelRef, split: Split) -> Fit:
    theirs, ours = (snapshot.run.scores(lineage.name, model) / "losses.parquet" for model in (before, champion))
    chose, tested = (gain(read_results(theirs, one), read_results(ours, one)) for one in (split, "test"))
    return Fit(champion, before, chose, tested)
