"""The rounds of an allocation before any of them has run, if nothing surprises: what `plan` shows. Pure functions."""

from collections.abc import Sequence

from competitors.kinds import Recipe
from orchestrator.field.allocation import Plan
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import Roster
from orchestrator.field.whole_budget import Past


def forecast(plan: Plan, recipes: Sequence[Recipe]) -> list[Roster]:
    """The rosters where the first recipe that trains wins beyond doubt, keeps its rate, and everybody spends what they
    are given. UserError where the budget is too small.

    A budget of time does not say how many tokens it will be: it is taken not to be short of data.
    """
    history: list[Past] = []
    while len(history) < plan.rounds:
        roster = plan.next_roster(recipes, history)
        history.append(_gone_as_expected(plan, roster, history))
        if roster.phase == "soup":
            break
    return [past.roster for past in history]


def on_champions_line(rosters: Sequence[Roster]) -> tuple[float, float]:
    """Of what these rounds spend, the shares on the champion's own line and on what a soup of it blends."""
    spent = [[_amount(entry.budget) for entry in roster.entries if entry.recipe.trains] for roster in rosters]
    are_blended = [roster.phase == "lines" and rosters[-1].phase == "soup" for roster in rosters]
    blended = sum(sum(amounts) for amounts, is_blended in zip(spent, are_blended, strict=True) if is_blended)
    own = sum(sum(amounts[:1]) for amounts, is_blended in zip(spent, are_blended, strict=True) if not is_blended)
    total = sum(sum(amounts) for amounts in spent)
    return own / total, blended / total


def _gone_as_expected(plan: Plan, roster: Roster, history: Sequence[Past]) -> Past:
    trains = [entry for entry in roster.entries if entry.recipe.trains]
    names = [entry.recipe.name for entry in trains]
    held = {e.recipe.name: e.recipe.resources.resolved(plan.has_gpus).devices for e in trains}
    tokens = {e.recipe.name: int(_amount(e.budget)) for e in trains}
    by_time = plan.whole.unit != "tokens"
    spent = {name: tokens[name] * (held[name] if by_time else 1.0) for name in names}
    winner = ModelRef(names[0], roster.round) if names else None
    trunk = history[-1].trunk if roster.phase == "lines" or winner is None else winner
    losses = {name: 1.0 + (name != names[0]) / 100 for name in names}
    return Past(roster, losses, trunk, (), spent, {} if by_time else tokens, {})


def _amount(budget: object) -> float:
    return float(getattr(budget, "tokens", None) or getattr(budget, "seconds", None) or 0.0)
