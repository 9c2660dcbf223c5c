"""How a whole budget is shared out: look briefly, then commit. Pure functions of the config and of what happened.

    race    every competitor from the base, a miniature of the whole plan each, on the same rows in the same order
    climb   children of the winner, from its weights and with its optimizer's state, at other rates
    line    the best of them over everything that is left, its rate linearly to zero, in as many rounds as there are

At equal tokens in all, what a champion ends at follows loss = loss(whole budget) + s·ln(1/p), p the share of the
tokens that lies on its own line: docs/allocation.md. Short data, which the line would pass over many times, is in
short_data.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Literal

from pydantic import Field

from cluster.errors import UserError
from cluster.records import Record, Settings
from competitors.contract import Allowance, RecipeBase
from competitors.kinds import Recipe
from competitors.search.recipe import SearchRecipe
from competitors.sft.recipe import SftRecipe
from orchestrator.field.evolution import child_name
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.field.scaling import at_rate, carried, going_on, miniature, part_of_a_line

STEPS_OF_A_MINIATURE = 32
"""A probe of fewer optimizer steps does not rank recipes: at batch 16 and 5,000 tokens it had two."""
RACE_AT_MOST, SMALLEST_AT_MOST = 0.10, 0.25
"""The share of the budget that all miniatures of a race may take; and where they have to be so large to have their
steps, the share from which on the budget is too small for the field."""
UP, DOWN = (1.0, 2.0, 4.0), (1.0, 0.5, 0.25)
RANK_FACTOR = 4
MAX_CLIMBS = 3
COOLER = 1 / 8
"""What all rates are multiplied with when no recipe has come below the base."""
GPU_STEP_TOKENS = 2048
"""On a GPU a smaller step does not take less time (an optimizer's step reads and writes all weights)."""


class Allocation(Settings):
    """How a whole budget is shared out among competitors and rounds."""

    kind: Literal["race", "equal"] = "race"
    share: float = Field(0.005, gt=0, lt=0.5, description="of the whole budget, for each miniature")
    step_tokens: int | None = Field(None, ge=1, description="of a step, at least; none: a sequence, 2,048 on a GPU")
    climb: bool = True
    margin_nats: float = Field(0.02, ge=0, description="a doubling of the rate has to lead by so much to be taken")
    keep_optimizer: bool = True


class Corpus(Record):
    """corpus.json: how much there is to train on, for one base's tokenizer."""

    rows: int
    """That have a completion within max_tokens."""
    tokens: int
    """Of one pass over them, prompts included."""

    @property
    def tokens_per_row(self) -> float:
        """On average."""
        return self.tokens / self.rows


@dataclass(frozen=True)
class Whole:
    """A whole budget of one lineage: training tokens, or seconds of a device."""

    total: float
    unit: Literal["tokens", "device_seconds"] = "tokens"

    def allowance(self, amount: float, recipe: RecipeBase, has_gpus: bool) -> Allowance:
        """`amount` of it for one entry."""
        if self.unit == "tokens":
            return Allowance(tokens=max(1, int(amount)))
        return Allowance(seconds=amount / recipe.resources.resolved(has_gpus).devices)


@dataclass(frozen=True)
class Past:
    """A round that is over, as far as it matters for those that follow."""

    roster: Roster
    losses: Mapping[str, float]
    """Validation losses of the scored entries."""
    trunk: ModelRef
    """What the next round goes on from."""
    tied: Sequence[str]
    """Of a race: those that its winner does not beat beyond doubt, best first."""
    spent: Mapping[str, float]
    """By every entry, in the budget's unit, what was lost with a process included."""
    tokens: Mapping[str, int]
    found: Mapping[str, SftRecipe]
    """What a search has found."""


@dataclass(frozen=True)
class Lead:
    """How far one entry's loss lies below another's on the same rows, in nats; `low` is its one-sided bound."""

    mean: float
    low: float


@dataclass(frozen=True)
class Plan:
    """What the fields of one lineage follow from, and stays the same over its rounds."""

    lineage: str
    rules: Allocation
    whole: Whole
    corpus: Corpus
    rounds: int
    has_gpus: bool

    def next_roster(self, recipes: Sequence[Recipe], history: Sequence[Past]) -> Roster:
        """Who enters the next round, with what budget, from what. UserError where the budget is too small."""
        left = self.whole.total - sum(sum(past.spent.values()) for past in history)
        if not history:
            return self._race(recipes, 1, 1.0)
        last, rounds_left = history[-1], self.rounds - len(history)
        if last.trunk.is_base and last.roster.phase == "race" and rounds_left > 1:
            return self._race(recipes, len(history) + 1, COOLER ** len(history))
        factors = _factors(history) if self.rules.climb and rounds_left > 1 else ()
        trunk = recipe_of(last.trunk, history)
        if factors and isinstance(trunk, SftRecipe):
            return self._climb(trunk, factors, history)
        return self._line(trunk, history, left, rounds_left)

    def _roster(self, number: int, phase: Literal["race", "climb", "line"], entries: list[RosterEntry]) -> Roster:
        return Roster(lineage=self.lineage, round=number, phase=phase, entries=entries, reasons=[])

    def _race(self, recipes: Sequence[Recipe], number: int, rate: float) -> Roster:
        """Every competitor from the base, at `rate` times its learning rate."""
        entries = []
        for recipe, amount in zip(recipes, self.miniatures(recipes), strict=True):
            if isinstance(recipe, SftRecipe):
                recipe = miniature(at_rate(carried(recipe, self.smallest_batch(recipe)), rate))
            allowance = self.whole.allowance(amount, recipe, self.has_gpus)
            entries.append(RosterEntry(recipe=recipe, budget=allowance, span=(0.0, 1.0), data_order=0, since=number))
        return self._roster(number, "race", entries)

    def smallest_batch(self, recipe: SftRecipe) -> int:
        """Sequences of a step, as few as pay: many small steps make more of the same tokens than few large ones."""
        step_tokens = self.rules.step_tokens or (GPU_STEP_TOKENS if self.has_gpus else 1)
        return min(recipe.batch, max(recipe.resources.workers, round(step_tokens / self.corpus.tokens_per_row)))

    def miniatures(self, recipes: Sequence[Recipe]) -> list[float]:
        """How much of the budget each of `recipes` races with. UserError where that is not enough to rank them."""
        trains = sum(recipe.trains for recipe in recipes)
        share = min(self.rules.share, RACE_AT_MOST / max(trains, 1)) * self.whole.total
        least = [self._least(recipe) for recipe in recipes]
        amounts = [max(share, floor) if recipe.trains else 1.0 for recipe, floor in zip(recipes, least, strict=True)]
        if sum(amounts) > SMALLEST_AT_MOST * self.whole.total:
            needed = ceil(sum(least) / SMALLEST_AT_MOST)
            raise UserError(
                f"budget.total_tokens: {self.whole.total:,.0f} are too few for {trains} competitors, which take"
                f" {sum(least):,.0f} to be told apart, a quarter at most: give at least {needed:,}"
            )
        return amounts

    def _least(self, recipe: Recipe) -> float:
        """Below which its training says nothing; 0 where nothing is known of its steps, or of the tokens of an hour."""
        if self.whole.unit != "tokens":
            return 0.0
        if isinstance(recipe, SftRecipe):
            batch = carried(recipe, self.smallest_batch(recipe)).batch
            return STEPS_OF_A_MINIATURE * batch * self.corpus.tokens_per_row
        if isinstance(recipe, SearchRecipe):
            one = recipe.largest(lambda trial: trial.batch)
            return STEPS_OF_A_MINIATURE * one.batch * self.corpus.tokens_per_row * recipe.trials / recipe.share
        return 0.0

    def _climb(self, trunk: SftRecipe, factors: Sequence[float], history: Sequence[Past]) -> Roster:
        """Children of the trunk at other rates, and one of whoever the race could not tell from it."""
        last, number = history[-1], len(history) + 1
        taken = {entry.recipe.name for past in history for entry in past.roster.entries}
        entries = [self._child(trunk, last.trunk, factor, number, taken) for factor in factors]
        if trunk.adapter is not None and trunk.adapter.rank is not None and last.roster.phase == "race":
            entries.append(self._wider(trunk, number, taken))
        if last.roster.phase == "race":
            for name in last.tied[:1]:
                other = recipe_of(ModelRef(name, last.roster.round), history)
                if isinstance(other, SftRecipe):
                    entries.append(self._child(other, ModelRef(name, last.roster.round), 1.0, number, taken))
        return self._roster(number, "climb", entries)

    def _child(self, parent: SftRecipe, start: ModelRef, factor: float, number: int, taken: set[str]) -> RosterEntry:
        rate = at_rate(parent, factor)
        name = child_name(parent.name, number, 0, taken)
        said = {"learning_rate": f"{parent.learning_rate:g} of {parent.name} × {factor:g}"} if factor != 1 else {}
        return self._entry(going_on(miniature(rate)), name, parent.name, number, start, said)

    def _wider(self, parent: SftRecipe, number: int, taken: set[str]) -> RosterEntry:
        """A child with a wider adapter, which starts afresh on the merged seed: matrices have one rank."""
        assert parent.adapter is not None
        assert parent.adapter.rank is not None
        rank = parent.adapter.rank * RANK_FACTOR
        alpha = None if parent.adapter.alpha is None else parent.adapter.alpha * RANK_FACTOR
        adapter = parent.adapter.model_copy(update={"rank": rank, "alpha": alpha})
        recipe = miniature(parent).model_copy(update={"adapter": adapter})
        said = {"adapter.rank": f"{parent.adapter.rank} of {parent.name} × {RANK_FACTOR}"}
        return self._entry(recipe, child_name(parent.name, number, 0, taken), parent.name, number, None, said)

    def _entry(
        self, recipe: SftRecipe, name: str, parent: str, number: int, start: ModelRef | None, said: dict[str, str]
    ) -> RosterEntry:
        return RosterEntry(
            recipe=recipe.model_copy(update={"name": name}),
            made_by="allocation",
            parent=parent,
            since=number,
            origins=said,
            budget=self.whole.allowance(self.miniatures([recipe])[0], recipe, self.has_gpus),
            continues=start if self.rules.keep_optimizer else None,
            span=(0.0, 1.0),
            data_order=0,
        )

    def _line(self, recipe: Recipe, history: Sequence[Past], left: float, rounds_left: int) -> Roster:
        """The trunk over its part of what is left."""
        number, last = len(history) + 1, history[-1]
        before = sum(sum(past.spent.values()) for past in history if past.roster.phase == "line")
        amount = left / rounds_left
        start = None if last.trunk.is_base or not self.rules.keep_optimizer else last.trunk
        if isinstance(recipe, SftRecipe):
            recipe = part_of_a_line(recipe, is_last=rounds_left == 1)
        entry = RosterEntry(
            recipe=recipe,
            made_by="allocation",
            parent=recipe.name,
            since=number,
            budget=self.whole.allowance(amount, recipe, self.has_gpus),
            continues=start if isinstance(recipe, SftRecipe) else None,
            span=(before / (before + left), (before + amount) / (before + left)),
            data_order=0,
        )
        return self._roster(number, "line", [entry])


def recipe_of(model: ModelRef, history: Sequence[Past]) -> Recipe:
    """The recipe that made `model`, for a search what it found; for the base the best that raced last."""
    past = history[model.round - 1] if model.round else history[-1]
    name = model.competitor or min(past.losses, key=lambda name: (past.losses[name], name), default=None)
    trained = [entry.recipe for entry in past.roster.entries if entry.recipe.trains]
    recipe = next((recipe for recipe in trained if recipe.name == name), trained[0])
    return past.found.get(recipe.name, recipe)


def _factors(history: Sequence[Past]) -> Sequence[float]:
    """At which rates the next children of the trunk run; none once the rate is settled."""
    last, climbs = history[-1], sum(past.roster.phase == "climb" for past in history)
    if last.roster.phase == "race":
        return UP
    if last.roster.phase != "climb" or climbs >= MAX_CLIMBS:
        return ()
    ran = rates(last.roster)
    taken = ran.get(last.trunk.competitor or "")
    if taken == max(ran.values()) > 1:
        return UP
    if taken == min(ran.values()) < 1:
        return DOWN
    steady = next(name for name, factor in ran.items() if factor == 1)
    above = [last.losses.get(name, float("inf")) for name, factor in ran.items() if factor == UP[1]]
    downwards = climbs == 1 and taken == 1 and steady in last.losses and above
    return DOWN if downwards and above[0] - last.losses[steady] > MARGIN_TO_GO_DOWN else ()


MARGIN_TO_GO_DOWN = 0.02
"""Nats by which the double rate has to be worse before lower ones are tried."""


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
    """What goes on after a round, of whom the race could not tell it apart, and why in words.

    `losses` are those of the scored entries, best first; `before` is what went on until now, and `lead` says how
    far the first of two entries lies below the second on the rows that choose.
    """
    trains = [name for name in losses if any(e.recipe.name == name and e.recipe.trains for e in roster.entries)]
    if not trains:
        return before, [], f"Nothing was scored: {before.in_words} goes on."
    number = roster.round
    if roster.phase == "race":
        winner = trains[0]
        if losses[winner] >= base_loss:
            return BASE, [], "No recipe came below the base model: its rates are too high."
        tied = [name for name in trains[1:] if lead(winner, name).low <= 0]
        doubt = f"; {tied[0]} cannot be told from it yet" if tied else ""
        return ModelRef(winner, number), tied, f"{winner} won the race and goes on{doubt}."
    if roster.phase == "climb":
        return _after_climb(rules, roster, losses, trains, before, lead)
    return ModelRef(trains[0], number), [], f"{trains[0]} goes on from here."


def _after_climb(
    rules: Allocation,
    roster: Roster,
    losses: Mapping[str, float],
    trains: Sequence[str],
    before: ModelRef,
    lead: Callable[[str, str], Lead],
) -> tuple[ModelRef, list[str], str]:
    """The child that kept the rate, unless another leads it by more than chance and by more than the margin."""
    steady, number = roster.entries[0], roster.round
    name = steady.recipe.name
    if name not in losses:
        return ModelRef(trains[0], number), [], f"{trains[0]} goes on: {name} was not scored."
    best, why = name, f"{name} goes on at the rate that it had."
    factors = rates(roster)
    for other in reversed(trains):
        if other == name:
            continue
        entry = next(entry for entry in roster.entries if entry.recipe.name == other)
        asked = 0.0
        if entry.parent == steady.parent:
            asked = rules.margin_nats * abs(log2(factors.get(other, RANK_FACTOR)))
        ahead = lead(other, name)
        if ahead.mean > asked and ahead.low > 0 and losses[other] < losses[best]:
            best, why = other, f"{other} goes on: it leads by {ahead.mean:.4f} nats, and {asked:g} were asked."
    return ModelRef(best, number), [], why
