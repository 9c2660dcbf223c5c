"""From a round's scores to its verdict: who won, what is exploited, what repeats say of recipes. Pure functions."""

from dataclasses import dataclass

from cluster.ranking import ranked
from evaluation.compare import gain
from evaluation.results import RowResults
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field import exploit
from orchestrator.field.roster import Roster
from orchestrator.field.trunk import trunk_after
from orchestrator.field.whole_budget import Lead
from orchestrator.record.records import Proof, Verdict
from orchestrator.rounds.recipes import compare_recipes
from orchestrator.rounds.verdict import Candidate, beats_all, choose


@dataclass(frozen=True)
class Settled:
    """A round that is over."""

    roster: Roster
    verdict: Verdict


def judge(
    config: TournamentConfig,
    roster: Roster,
    champion: Candidate,
    seed: Candidate,
    scored: dict[str, RowResults],
    proof: Proof | None,
    history: list[Settled],
    seen: dict[str, RowResults] | None = None,
) -> Verdict:
    """The verdict of the round of `roster`, given the rounds before it and how its winner compares with the champion
    on the rows that prove.

    `scored` are the entries' results on the rows that choose, `seen` the same as the metric that chooses sees them;
    None where that is the loss. A whole budget is shared out by the loss whatever chooses.
    """
    seen = scored if seen is None else seen
    losses = {name: results.loss for name, results in scored.items()}
    last = history[-1].verdict if history else None
    so_far = (last.spent, last.rounds_without_champion) if last else (0.0, 0)
    verdict = choose(roster.lineage, roster.round, champion, seed, seen, config.selection, proof, *so_far, losses)
    recipes = compare_recipes(roster, scored, config.selection.confidence)
    verdict = verdict.model_copy(update={"recipes": recipes})
    if config.is_allocated:
        return _and_trunk(config, verdict, roster, seed, scored)
    return _and_exploit(config, verdict, roster, seen, history)


def _and_trunk(
    config: TournamentConfig, verdict: Verdict, roster: Roster, seed: Candidate, scored: dict[str, RowResults]
) -> Verdict:
    """The verdict with what the allocation goes on with in the place of the lowest loss so far."""
    rules = config.selection

    def lead(name: str, over: str) -> Lead:
        found = gain(scored[over], scored[name])
        return Lead(found.mean, found.low(1 - rules.confidence))

    losses = {name: results.loss for name, results in scored.items()}
    losses = {name: losses[name] for name in ranked(losses)}  # whatever the verdict goes by
    trunk, tied, why = trunk_after(config.allocation, roster, losses, seed.model, seed.loss, lead)
    own = trunk.competitor is not None and trunk.round == roster.round
    loss = losses[str(trunk.competitor)] if own else seed.loss
    # The last reason is about the seed by the rule of the lowest loss.
    return verdict.model_copy(
        update={
            "seed_next": trunk,
            "seed_validation_loss": loss,
            "tied": tied,
            "ends_lineage": roster.phase == "soup",
            "reasons": [*verdict.reasons[:-1], why],
        }
    )


def _and_exploit(
    config: TournamentConfig, verdict: Verdict, roster: Roster, scored: dict[str, RowResults], history: list[Settled]
) -> Verdict:
    """The verdict with what the rounds that follow exploit, if one recipe has proved itself by now."""
    rules, verdicts = config.exploit, [*(before.verdict for before in history), verdict]
    already = history[-1].verdict.exploits if history else None
    if rules is None or already is not None:
        return verdict.model_copy(update={"exploits": already})
    trained = [e.recipe.name for e in roster.entries if e.recipe.trains and e.recipe.name in scored]
    separated = rules.when is not None and beats_all({name: scored[name] for name in trained}, config.selection)
    winners, rankings = [one.winner for one in verdicts], [one.ranking for one in verdicts]
    decided = exploit.decide(rules, roster, winners, rankings, separated)
    if decided is None:
        return verdict
    name, why = decided
    reason = f"{why}: from the next round on, all entries run {name} or its neighbours."
    return verdict.model_copy(update={"exploits": name, "reasons": [*verdict.reasons, reason]})
