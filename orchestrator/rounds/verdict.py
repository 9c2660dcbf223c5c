"""The verdict of a round: who won it, what seeds the next round, who is champion, and why, in words.

Two things are settled, and kept apart. The winner, the entry with the lowest validation loss, seeds the next
round as soon as it is lower than the champion and the last seed: asking for proof there would throw away
the work of every round whose gain is small. The champion is a title: it changes only when the improvement
is proven at the configured confidence, corrected for having picked the best of N.
"""

from dataclasses import dataclass

from cluster.ranking import ranked
from evaluation.compare import Improvement, improvements
from evaluation.results import RowResults
from orchestrator.config.sections import Selection
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.records import Standing, Verdict


@dataclass(frozen=True)
class Candidate:
    """A scored model."""

    model: ModelRef
    validation: RowResults


def choose(
    lineage: str,
    number: int,
    champion: Candidate,
    seed: Candidate,
    entries: dict[str, RowResults],
    rules: Selection,
    random_seed: int,
    rounds_without_champion: int = 0,
) -> Verdict:
    """Settle a round. `entries` maps competitors to their validation losses. A pure function of its arguments."""
    gains = improvements(champion.validation, entries, rules.confidence, rules.resamples, random_seed)
    losses = {name: losses.loss for name, losses in entries.items()}
    ranking = ranked(losses)
    winner = ranking[0] if ranking else None
    dethroned = winner is not None and gains[winner].low > rules.margin_nats
    won = [] if winner is None else [Candidate(ModelRef(winner, number), entries[winner])]
    new_champion = won[0] if dethroned else champion
    candidates = [champion, seed, *won]
    # Stable: on equal losses the incumbent goes on.
    best = min(candidates, key=lambda c: c.validation.loss)
    next_seed = new_champion if rules.seed == "champion" else best
    without = 0 if dethroned else rounds_without_champion + 1
    ends = rules.patience is not None and without >= rules.patience
    reasons = [
        *_about_winner(winner, gains, champion, rules, dethroned),
        _about_seed(next_seed, winner, number, champion, rules),
    ]
    if ends:
        reasons.append(f"No new champion for {without} rounds: the lineage ends here (patience {rules.patience}).")
    return Verdict(
        lineage=lineage,
        round=number,
        winner=winner,
        seed_before=seed.model,
        seed_next=next_seed.model,
        champion_before=champion.model,
        champion=new_champion.model,
        dethroned=dethroned,
        validation_loss=new_champion.validation.loss,
        seed_validation_loss=next_seed.validation.loss,
        entries=[
            Standing(
                competitor=name,
                validation_loss=losses[name],
                improvement=gains[name].mean,
                improvement_low=gains[name].low,
            )
            for name in ranking
        ],
        rounds_without_champion=without,
        ends_lineage=ends,
        reasons=reasons,
    )


def beats_all(entries: dict[str, RowResults], rules: Selection, random_seed: int) -> bool:
    """Whether the entry of the lowest loss beats each other one beyond doubt.

    One-sided paired bootstrap bounds at `rules.confidence` for all comparisons together (Bonferroni).
    """
    if len(entries) < 2:
        return False
    best = ranked({name: losses.loss for name, losses in entries.items()})[0]
    others = [name for name in entries if name != best]
    confidence = 1 - (1 - rules.confidence) / len(others)
    ours = {best: entries[best]}
    return all(
        improvements(entries[name], ours, confidence, rules.resamples, random_seed)[best].low > rules.margin_nats
        for name in others
    )


def _about_winner(
    winner: str | None, gains: dict[str, Improvement], champion: Candidate, rules: Selection, dethroned: bool
) -> list[str]:
    if winner is None:
        return [f"Every entry forfeited: {champion.model.in_words} stays champion."]
    gain = gains[winner]
    sure = f"{rules.confidence:.0%} sure"
    floor = f" more than {rules.margin_nats:g}" if rules.margin_nats else ""
    if dethroned:
        return [
            f"{winner} won the round: its validation loss is {gain.mean:.4f} nats below the champion's"
            f" ({champion.model.in_words}), and we are {sure} that it is at least {gain.low:.4f} below, having"
            f" picked the best of {len(gains)}.",
            f"That is proven{floor}: {winner} takes the title.",
        ]
    if gain.mean > 0:
        return [
            f"{winner} won the round: its validation loss is {gain.mean:.4f} nats below the champion's"
            f" ({champion.model.in_words}), but that could be chance: having picked the best of {len(gains)}, we"
            f" can only be {sure} of {gain.low:+.4f}"
            f"{f', and more than {rules.margin_nats:g} is asked' if rules.margin_nats else ''}.",
            f"The champion, {champion.model.in_words}, keeps the title.",
        ]
    return [
        f"{winner} won the round among the entries, but its validation loss is {-gain.mean:.4f} nats above the"
        f" champion's: {champion.model.in_words} keeps the title."
    ]


def _about_seed(next_seed: Candidate, winner: str | None, number: int, champion: Candidate, rules: Selection) -> str:
    if rules.seed == "champion":
        return f"The champion seeds the next round ({next_seed.model.in_words}), as selection.seed asks."
    if next_seed.model == ModelRef(winner, number):
        return f"{winner} seeds the next round: nothing so far has a lower validation loss."
    what = "the champion" if next_seed.model == champion.model else "the last round's seed"
    return f"The next round starts from {what} again, {next_seed.model.in_words}: its validation loss is the lowest."
