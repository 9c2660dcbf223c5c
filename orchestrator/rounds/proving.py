"""The proof of a round: its winner against the champion, on rows that chose neither of them.

Only a winner that leads on the rows that choose has something to prove: others are not scored on the proof, and spend
nothing of the lineage's chance of a false title.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from competitors.contract import Brief
from evaluation.compare import Tail, gain, typical
from evaluation.evaluator import score_also
from evaluation.figures import figure_of
from evaluation.results import RowResults
from evaluation.scorecard import Scorecard, SplitScore
from orchestrator.config.sections import Selection
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.records import Guarded, Inspection, ModelFolder, Proof
from orchestrator.rounds.context import Context
from orchestrator.rounds.verdict import winner_of

Rows = tuple[RowResults, RowResults]
"""Of one model: its results on the rows that prove, and on those that choose, as the metric that chooses sees them."""


def prove(
    champion: Rows,
    winner: Rows,
    level: float,
    margin_nats: float,
    guardrails: Sequence[Guarded] = (),
    field: Sequence[RowResults] = (),
    earlier: Sequence[Tail] = (),
) -> Proof:
    """Whether the winner is better, with a chance of `level` to be wrong. The rows that choose, by which it was picked,
    lend no more than the shape of the gains: the winner's, and that of the whole `field` that it was picked from, and
    where that is small of `earlier` gains, the latest first."""
    tail = typical([gain(champion[1], one).tail for one in field], earlier)
    found = gain(champion[0], winner[0], (champion[1], winner[1])).of_a_field(tail)
    return Proof(
        improvement=found.mean,
        improvement_low=found.low(level),
        level=level,
        margin_nats=margin_nats,
        rows=int((winner[0].tokens > 0).sum()),
        groups=found.groups,
        doubt=found.doubt,
        unseen=found.unseen(level / 2),
        guardrails=list(guardrails),
    )


def guarded(rules: Selection, champion: SplitScore, winner: SplitScore) -> list[Guarded]:
    """What becomes of the figures that are looked after, from both models' scores on the rows that prove."""
    found = []
    for rule in rules.guardrails:
        before, after = champion.figures[rule.metric], winner.figures[rule.metric]
        # Not where either is no number; and 0.02 is no more than 0.02 in the last binary place either.
        kept = figure_of(rule.metric).worse(before, after) <= rule.max_drop + 1e-9
        found.append(Guarded(metric=rule.metric, before=before, after=after, max_drop=rule.max_drop, kept=kept))
    return found


def challenger(champion: RowResults, scored: Mapping[str, RowResults]) -> str | None:
    """The winner of a round, where it leads the champion on the rows that choose; None where nobody does."""
    winner = winner_of(scored)
    return winner if winner is not None and scored[winner].loss < champion.loss else None


async def score_for_proof(context: Context, tokenizer: Path, lineage: str, model: ModelRef) -> None:
    """Score an entry on the rows that prove, unless it is. Forfeit where that does not work, and it is to blame."""
    run, evaluators = context.run, context.evaluators
    folder = run.scores(lineage, model)
    card, brief = run.read(Scorecard, folder / "scorecard.json"), run.read(Brief, folder / "brief.json")
    inspection = run.read(Inspection, folder / "inspection.json")
    assert card is not None
    if card.proof is not None:
        return
    assert brief is not None
    assert inspection is not None
    seed = evaluators.job("its seed", brief.seed_model, tokenizer, folder / "seed-check")
    job = evaluators.job_of(brief, inspection.form, tokenizer)
    await evaluators.call_on_submission(seed, score_also, job, "proof")


async def score_champion_for_proof(context: Context, lineage: str, champion: ModelFolder, base: ModelFolder) -> None:
    """Score the champion on the rows that prove, where its scorecard was removed and made again since it did."""
    run, evaluators = context.run, context.evaluators
    scores = run.scores(lineage, champion.model)
    card = run.read(Scorecard, scores / "scorecard.json")
    assert card is not None
    if card.proof is not None:
        return
    assert champion.path is not None
    assert base.path is not None
    job = evaluators.job(str(champion.model), champion.path, base.path, scores)
    await evaluators.call(score_also, job, "proof")
