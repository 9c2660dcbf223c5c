"""The rounds of an allocation before any of them has run, if nothing surprises: what `plan` shows. Pure functions."""

from collections.abc import Sequence

from competitors.kinds import Recipe
from orchestrator.field.allocation import Plan
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.field.whole_budget import Past


def forecast(plan: Plan, recipes: Sequence[Recipe]) -> list[Roster]:
    """The rosters where the first recipe that trains wins beyond doubt, keeps its rate, everybody spends what they
    are given, and of several lines the longest prove best, which spend most. UserError where the budget is too small.

    A budget of time does not say how many tokens it will be: it is taken not to be short of data.
    """
    history: list[Past] = []
    while len(history) < plan.rounds:
        roster = plan.next_roster(recipes, history)
        history.append(_gone_as_expected(plan, roster, history))
        if roster.phase == "soup":
            break
    return [past.roster for past in history]


def on_champions_line(rosters: Sequence[Roster], plan: Plan) -> tuple[float, float]:
    """Of what these rounds spend, the shares on the champion's own line and on what a soup of it blends."""
    spent = [[amount(plan, entry) for entry in roster.entries if entry.recipe.trains] for roster in rosters]
    are_blended = [roster.phase == "lines" and rosters[-1].phase == "soup" for roster in rosters]
    blended = sum(sum(amounts) for amounts, is_blended in zip(spent, are_blended, strict=True) if is_blended)
    own = sum(sum(amounts[:1]) for amounts, is_blended in zip(spent, are_blended, strict=True) if not is_blended)
    total = sum(sum(amounts) for amounts in spent)
    return own / total, blended / total


def amount(plan: Plan, entry: RosterEntry) -> float:
    """What an entry is given, in the budget's unit."""
    if entry.budget is None or not entry.recipe.trains:
        return 0.0
    if plan.whole.unit == "tokens":
        return float(entry.budget.tokens or 0)
    return (entry.budget.seconds or 0.0) * (entry.recipe.resources.resolved(plan.has_gpus).devices or 1.0)


def _gone_as_expected(plan: Plan, roster: Roster, history: Sequence[Past]) -> Past:
    spent = {entry.recipe.name: amount(plan, entry) for entry in roster.entries if entry.recipe.trains}
    names = list(spent)
    winner = ModelRef(names[0], roster.round) if names else None
    trunk = history[-1].trunk if roster.phase == "lines" or winner is None else winner
    # Of lines the last one of the first round is the longest: then no more is ever spent.
    best = names[-1:] if roster.phase == "lines" else names[:1]
    losses = {name: 1.0 + (name not in best) / 100 for name in names}
    tokens = {name: int(one) for name, one in spent.items()} if plan.whole.unit == "tokens" else {}
    return Past(roster, losses, trunk, (), spent, tokens, {})
