"""The verdict of a round: who won it, what seeds the next round, who is champion, and why, in words.

Two things are settled, and kept apart. The winner, the entry with the lowest validation loss (or the best of what
`selection.metric` names), seeds the next round as soon as it is lower than the champion and the last seed: asking for
proof there would throw away the work of every round whose gain is small. The champion is a title: it changes only when
the winner's gain is proven on rows that chose nothing, so that no price is due for having picked the best of N. Over
all rounds of a lineage together the chance of a false title is at most 1 − `selection.confidence` (spending.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.ranking import ranked
from evaluation.compare import gain
from evaluation.figures import figure_of
from evaluation.figures.figure import Figure
from evaluation.results import RowResults
from orchestrator.config.sections import Selection
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.records import Guarded, Proof, Standing, Verdict


@dataclass(frozen=True)
class Candidate:
    """A scored model, with its results on the rows that choose, as the metric that chooses sees them: lower is better.

    `validation_loss` is its loss there; None where that is the metric.
    """

    model: ModelRef
    validation: RowResults
    validation_loss: float | None = None

    @property
    def loss(self) -> float:
        """Nats per completion token on the rows that choose."""
        return self.validation.loss if self.validation_loss is None else self.validation_loss


def winner_of(entries: Mapping[str, RowResults]) -> str | None:
    """Who is best on the rows that choose, given the results as the metric that chooses sees them."""
    ranking = ranked({name: results.loss for name, results in entries.items()})
    return ranking[0] if ranking else None


def choose(
    lineage: str,
    number: int,
    champion: Candidate,
    seed: Candidate,
    entries: dict[str, RowResults],
    rules: Selection,
    proof: Proof | None,
    spent: float = 0.0,
    rounds_without_champion: int = 0,
    losses: Mapping[str, float] | None = None,
) -> Verdict:
    """Settle a round. `entries` maps competitors to their results on the rows that choose, in the roster's order, as
    the metric that chooses sees them, and `losses` to their losses where that is not the loss; `proof` is how a winner
    that leads the champion there compares with it on those that prove. A pure function.

    `spent` is what tests of earlier rounds that proved nothing have taken of the lineage's chance of a false title.
    """
    costs = {name: results.loss for name, results in entries.items()}
    losses, metric = costs if losses is None else losses, figure_of(rules.metric)
    ranking = ranked(costs)
    winner = ranking[0] if ranking else None
    dethroned = proof is not None and proof.takes_the_title
    won = [] if winner is None else [Candidate(ModelRef(winner, number), entries[winner], losses[winner])]
    new_champion = won[0] if dethroned else champion
    candidates = [champion, seed, *won]
    # Stable: on equal losses the incumbent goes on.
    best = min(candidates, key=lambda c: c.validation.loss)
    next_seed = new_champion if rules.seed == "champion" else best
    without = 0 if dethroned else rounds_without_champion + 1
    ends = rules.patience is not None and without >= rules.patience
    gains = {name: champion.validation.loss - cost for name, cost in costs.items()}
    reasons = [
        *_about_winner(winner, gains, proof, champion, metric),
        _about_seed(next_seed, winner, number, champion, rules, metric),
    ]
    if ends:
        reasons.append(f"No new champion for {without} rounds: the lineage ends here (patience {rules.patience}).")
    return Verdict(
        lineage=lineage,
        round=number,
        metric=rules.metric,
        winner=winner,
        seed_before=seed.model,
        seed_next=next_seed.model,
        champion_before=champion.model,
        champion=new_champion.model,
        dethroned=dethroned,
        proof=proof,
        spent=spent if proof is None or dethroned else spent + proof.level,
        validation_loss=new_champion.loss,
        seed_validation_loss=next_seed.loss,
        entries=[_standing(name, losses[name], entries[name], champion, metric) for name in ranking],
        rounds_without_champion=without,
        ends_lineage=ends,
        reasons=reasons,
    )


def _standing(name: str, loss: float, results: RowResults, champion: Candidate, metric: Figure) -> Standing:
    value = None if metric.name == "loss" else metric.of_cost(results.loss)
    improvement = champion.validation.loss - results.loss
    tail = gain(champion.validation, results).tail
    return Standing(
        competitor=name,
        validation_loss=loss,
        metric=value,
        improvement=improvement,
        skewness=tail.skewness,
        worst=tail.worst,
    )


FLOOR_NATS = 1e-3
"""A smaller lead is none: copies lead each other by rounding."""


def beats_all(entries: dict[str, RowResults], rules: Selection) -> bool:
    """Whether the best entry beats each other one beyond doubt, and by more than a floor, by the metric that chooses.

    The best was picked on the same rows, so each of the N (N − 1) ordered pairs has its part of
    the chance to err (Bonferroni): the claim holds whichever of them is picked.
    """
    best = winner_of(entries)
    if best is None or len(entries) < 2:
        return False
    level = (1 - rules.confidence) / (len(entries) * (len(entries) - 1))
    gains = [gain(entries[name], entries[best]) for name in entries if name != best]
    return all(not one.doubt and one.low(level) > max(rules.margin_nats, FLOOR_NATS) for one in gains)


def _about_winner(
    winner: str | None, gains: dict[str, float], proof: Proof | None, champion: Candidate, metric: Figure
) -> list[str]:
    if winner is None:
        return [f"Every entry forfeited: {champion.model.in_words} stays champion."]
    lead = gains[winner]
    if metric.name == "loss":
        compared = f"loss is {abs(lead):.4f} nats {'below' if lead > 0 else 'above'}"
    else:
        compared = f"{metric.title} is {abs(lead):.4f} {'better' if lead > 0 else 'worse'} than"
    won = f"{winner} won the round: on the rows that choose its {compared} the champion's ({champion.model.in_words})."
    if proof is None:
        return [won, f"So it has nothing to prove: {champion.model.in_words} keeps the title."]
    sure = f"{1 - proof.level:.2%} sure"
    floor = f" more than {proof.margin_nats:g}" if proof.margin_nats else ""
    seen = f"On the {proof.rows} rows that prove, which chose nothing, its gain is {proof.improvement:+.4f}"
    kept = f"{champion.model.in_words} keeps the title."
    if proof.is_proven:
        better = (
            f"{seen}, and we are {sure} that it is at least {proof.improvement_low:.4f}{_unseen(proof)}: this model is"
            f" better{floor}"
        )
        if proof.takes_the_title:
            return [won, f"{better}, and {winner} takes the title."]
        return [won, f"{better}. But {_worse(proof.guardrails)}: {kept}"]
    if proof.doubt:
        return [won, f"{seen}, which proves nothing: {proof.doubt}. {kept}"]
    low = f"{proof.improvement_low:+.4f}{_unseen(proof)}"
    return [won, f"{seen}; we can only be {sure} of {low}, which proves no gain{floor}. {kept}"]


def _unseen(proof: Proof) -> str:
    """What the bound allows for rows that may not have been met, in words."""
    if not proof.unseen:
        return ""
    return (
        f" (it or its field is much worse on a few rows: {proof.unseen:.4f} are taken off for such rows that were"
        " not met)"
    )


def _worse(guardrails: Sequence[Guarded]) -> str:
    """What a winner has become worse in."""
    words = []
    for one in guardrails:
        if not one.kept:
            figure = figure_of(one.metric)
            words.append(
                f"its {figure.title} there goes from {figure.text(one.before)} to {figure.text(one.after)},"
                f" worse by more than selection.guardrails allow ({one.max_drop:g})"
            )
    return " and ".join(words)


def _about_seed(
    next_seed: Candidate, winner: str | None, number: int, champion: Candidate, rules: Selection, metric: Figure
) -> str:
    if rules.seed == "champion":
        return f"The champion seeds the next round ({next_seed.model.in_words}), as selection.seed asks."
    if next_seed.model == ModelRef(winner, number):
        return f"{winner} seeds the next round: nothing so far has a {metric.better} validation {metric.title}."
    what = "the champion" if next_seed.model == champion.model else "the last round's seed"
    best = "lowest" if metric.better == "lower" else "highest"
    which = f"its validation {metric.title} is the {best}"
    return f"The next round starts from {what} again, {next_seed.model.in_words}: {which}."
