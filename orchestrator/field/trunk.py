"""What goes on after a round of a whole budget, and at which rates its children run next. Pure functions."""

from collections.abc import Callable, Mapping, Sequence
from math import inf, log2

from competitors.kinds import Recipe
from competitors.sft.recipe import SftRecipe
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.field.roster import Roster
from orchestrator.field.scaling import carried
from orchestrator.field.whole_budget import Allocation, Lead, Past

UP, DOWN, SAME = (1.0, 2.0, 4.0), (1.0, 0.5, 0.25), (1.0,)
"""What the children's rates are in multiples of the trunk's."""
BESIDE = (1.4, 4.2)
"""How many times the winner's rate one lies that raced beside it: children would take 2 and 4 times."""
MAX_CLIMBS = 3
MARGIN_TO_GO_DOWN = 0.02
"""Nats by which the double rate has to be worse before lower ones are tried."""
RANK_FACTOR = 4


def recipe_of(model: ModelRef, history: Sequence[Past]) -> Recipe:
    """The recipe that made `model`, for a search what it found; for the base the best that raced last."""
    past = history[model.round - 1] if model.round else history[-1]
    name = model.competitor or min(past.losses, key=lambda name: (past.losses[name], name), default=None)
    trained = [entry.recipe for entry in past.roster.entries if entry.recipe.trains]
    recipe = next((recipe for recipe in trained if recipe.name == name), trained[0])
    return past.found.get(recipe.name, recipe)


def order_of(model: ModelRef, history: Sequence[Past]) -> int:
    """The order of the data that `model` was trained in: what goes on from it takes the rest of that."""
    if model.is_base:
        return 0
    entries = history[model.round - 1].roster.entries
    return next((entry.data_order or 0 for entry in entries if entry.recipe.name == model.competitor), 0)


def factors(history: Sequence[Past]) -> Sequence[float]:
    """At which rates the next children of the trunk run; none once the rate is settled."""
    last, climbs = history[-1], sum(past.roster.phase == "climb" for past in history)
    if last.roster.phase == "race":
        above, below = _raced_beside(last, recipe_of(last.trunk, history))
        return UP if not above else SAME if below else DOWN
    if last.roster.phase != "climb" or climbs >= MAX_CLIMBS:
        return ()
    ran = rates(last.roster)
    taken = ran.get(last.trunk.competitor or "")
    if taken == max(ran.values()) > 1:
        return UP
    if taken == min(ran.values()) < 1:
        return DOWN
    steady = next(name for name, factor in ran.items() if factor == 1)
    doubled = [last.losses.get(name, inf) for name, factor in ran.items() if factor == UP[1]]
    downwards = climbs == 1 and taken == 1 and steady in last.losses and doubled
    return DOWN if downwards and doubled[0] - last.losses[steady] > MARGIN_TO_GO_DOWN else ()


def _raced_beside(race: Past, winner: Recipe) -> tuple[bool, bool]:
    """Whether a recipe like the winner's lost the race at a rate somewhat above its own, and at one below. A second
    look at such a rate, as brief as the first, would say no more: on short completions it took twice the rate on a
    lead that the whole line showed to be wrong (docs/LOG.md, 2026-11-30)."""
    if not isinstance(winner, SftRecipe):
        return False, False
    raced = [entry.recipe for entry in race.roster.entries if entry.recipe.name in race.losses]
    times = [
        carried(recipe, winner.batch).learning_rate / winner.learning_rate
        for recipe in raced
        if isinstance(recipe, SftRecipe) and (recipe.optimizer, recipe.adapter) == (winner.optimizer, winner.adapter)
    ]
    near, far = BESIDE
    return any(near <= one <= far for one in times), any(near <= 1 / one <= far for one in times)


def rates(roster: Roster) -> dict[str, float]:
    """Of a climb: the children of the trunk with what their rate is in multiples of the first one's, which kept it."""
    first = roster.entries[0]
    assert isinstance(first.recipe, SftRecipe)
    return {
        entry.recipe.name: float(f"{entry.recipe.learning_rate / first.recipe.learning_rate:.3g}")
        for entry in roster.entries
        if isinstance(entry.recipe, SftRecipe)
        and entry.parent == first.parent
        and entry.recipe.adapter == first.recipe.adapter
    }


def trunk_after(
    rules: Allocation,
    roster: Roster,
    losses: Mapping[str, float],
    before: ModelRef,
    base_loss: float,
    lead: Callable[[str, str], Lead],
) -> tuple[ModelRef, list[str], str]:
    """What goes on after a round, of whom the race could not tell it apart, and why in words: all of models, since
    losses on rows say nothing of another run of a recipe.

    `losses` are those of the scored entries, best first; `before` is what went on until now, and `lead` says how
    far the first of two entries lies below the second on the rows that choose.
    """
    trains = [name for name in losses if any(e.recipe.name == name and e.recipe.trains for e in roster.entries)]
    if roster.phase == "soup" and losses:
        best = next(iter(losses))
        return ModelRef(best, roster.round), [], f"{best} is the best of them: the budget is spent."
    if roster.phase == "lines" and trains:
        return before, [], f"All lines go on from {before.in_words}; {trains[0]} is the best so far."
    if not trains:
        return before, [], f"Nothing was scored: {before.in_words} goes on."
    number = roster.round
    if roster.phase == "race":
        winner = trains[0]
        if losses[winner] >= base_loss:
            return BASE, [], "No entry came below the base model: the rates are too high."
        rivals = [name for name in trains[1:] if not _are_runs_of_one_recipe(roster, winner, name)]
        tied = [name for name in rivals if lead(winner, name).low <= 0]
        doubt = f"; {tied[0]} cannot be told from it yet" if tied else ""
        return ModelRef(winner, number), tied, f"{winner} won the race and goes on{doubt}."
    if roster.phase == "climb":
        return _after_climb(rules, roster, losses, trains, before, lead)
    return ModelRef(trains[0], number), [], f"{trains[0]} goes on from here."


def _are_runs_of_one_recipe(roster: Roster, *names: str) -> bool:
    """Whether these repeat one recipe: none of them is another's rival, since its tokens would try nothing else."""
    repeated = {entry.recipe.repeat_of for entry in roster.entries if entry.recipe.name in names}
    return len(repeated) == 1 and None not in repeated


def _after_climb(
    rules: Allocation,
    roster: Roster,
    losses: Mapping[str, float],
    trains: Sequence[str],
    before: ModelRef,
    lead: Callable[[str, str], Lead],
) -> tuple[ModelRef, list[str], str]:
    """The child that kept the rate, unless another leads it: a child at another rate by more than chance and the
    margin, one that the race could not tell from it by anything, since neither was there first."""
    steady, number = roster.entries[0], roster.round
    name = steady.recipe.name
    if name not in losses:
        return ModelRef(trains[0], number), [], f"{trains[0]} goes on: {name} was not scored."
    best, why = name, f"{name} goes on at the rate that it had."
    factors = rates(roster)
    for other in reversed(trains):
        if other == name or losses[other] >= losses[best]:
            continue
        entry = next(entry for entry in roster.entries if entry.recipe.name == other)
        ahead = lead(other, name)
        if entry.parent != steady.parent:
            best, why = other, f"{other} goes on: it leads by {ahead.mean:.4f} nats, after a race that left it open."
            continue
        asked = rules.margin_nats * abs(log2(factors.get(other, RANK_FACTOR)))
        if ahead.mean > asked and ahead.low > 0:
            best, why = other, f"{other} goes on: it leads by {ahead.mean:.4f} nats, and {asked:g} were asked."
    return ModelRef(best, number), [], why
