"""The proof of a round: its winner against the champion, on rows that chose neither of them."""

from evaluation.compare import gain
from evaluation.results import RowResults, read_results
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.records import Proof
from orchestrator.record.run_directory import RunDirectory

Rows = tuple[RowResults, RowResults]
"""Of one model: its results on the rows that prove, and on those that choose."""


def prove(champion: Rows, winner: Rows, level: float, margin_nats: float) -> Proof:
    """Whether the winner is better, with a chance of `level` to be wrong. The rows that choose, by which it was picked,
    lend no more than the shape of the gains."""
    found = gain(champion[0], winner[0], (champion[1], winner[1]))
    return Proof(
        improvement=found.mean,
        improvement_low=found.low(level),
        level=level,
        margin_nats=margin_nats,
        rows=len(winner[0].tokens),
        groups=found.groups,
        doubt=found.doubt,
    )


def rows_of(run: RunDirectory, lineage: str, model: ModelRef) -> Rows:
    """A scored model's results on the held-out rows of both kinds."""
    file = run.scores(lineage, model) / "losses.parquet"
    return read_results(file, "proof"), read_results(file, "validation")
