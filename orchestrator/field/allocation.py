"""How a whole budget is shared out: look briefly, then commit. Pure functions of the config and of what happened.

    race    every competitor from the base, a miniature of the whole plan each, on the same rows in the same order
    climb   children of the winner, from its weights and with its optimizer's state, at other rates
    line    the best of them over everything that is left, its rate linearly to zero, in as many rounds as there are,
            on as many workers as the cluster has for it

At equal tokens in all, what a champion ends at follows loss = loss(whole budget) + s·ln(1/p), p the share of the
tokens that lies on its own line: docs/allocation.md. Short data, which the line would pass over many times, is in
short_data.py.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

from cluster.errors import UserError
from cluster.resources import Resources
from competitors.contract import Allowance
from competitors.kinds import Recipe
from competitors.sft.recipe import SftRecipe
from orchestrator.field.evolution import child_name
from orchestrator.field.growth import Room, one_worker, resources_of_a_line
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import Phase, Roster, RosterEntry
from orchestrator.field.scaling import at_rate, carried, going_on, miniature, part_of_a_line, rate_at, spread
from orchestrator.field.short_data import LONGEST_LINE_PASSES, batch_of_a_line, lengths, soups
from orchestrator.field.smallest import cost_of_steps, refuse_less, smallest_total
from orchestrator.field.trunk import RANK_FACTOR, factors, order_of, recipe_of
from orchestrator.field.whole_budget import Allocation, Corpus, Past, Whole

STEPS_OF_A_MINIATURE = 32
"""A probe of fewer optimizer steps does not rank recipes: at batch 16 and 5,000 tokens it had two."""
RACE_AT_MOST, SMALLEST_AT_MOST = 0.10, 0.25
"""The share of the budget that all miniatures of a race may take; and where they have to be so large to have their
steps, the share from which on the budget is too small for the field."""
CLIMB_AT_MOST = 0.03
"""The share of the budget that children may cost which do not go on."""
ROOT_PER_ROW = 30
"""A line of R rows takes √R / 30 of them a step: the batch from which on larger ones waste tokens grows with the data,
about as its root (Zhang et al. 2024, arXiv:2410.21676). docs/LOG.md, 2026-11-28, has the figures of the factor."""
QUIET_BYTES = 160
"""Where the completions of the race's steps hold fewer, the line's rate is carried from a step of so many: the noise of
such steps limits it, and a race is too short to show that. On five sets of 22 to 172 bytes a row the rates that won the
race were about the same, and those that were best over the line went with the root of these bytes. Bytes, since how
much a row says does not depend on the tokenizer. docs/LOG.md, 2026-11-30, has the figures."""
COOLER = 1 / 8
"""What all rates are multiplied with when no recipe has come below the base."""
GPU_STEP_TOKENS = 2048
"""On a GPU a smaller step does not take less time (an optimizer's step reads and writes all weights)."""


@dataclass(frozen=True)
class Plan:
    """What the fields of one lineage follow from, and stays the same over its rounds."""

    lineage: str
    rules: Allocation
    whole: Whole
    corpus: Corpus
    rounds: int
    has_gpus: bool
    room: Room = one_worker
    lineages: int = 1
    """That share the cluster."""

    def next_roster(self, recipes: Sequence[Recipe], history: Sequence[Past]) -> Roster:
        """Who enters the next round, with what budget, from what. UserError where the budget is too small."""
        left = self.whole.total - sum(sum(past.spent.values()) for past in history)
        if not history:
            return self._race(recipes, 1, 1.0)
        last, rounds_left = history[-1], self.rounds - len(history)
        if last.trunk.is_base and last.roster.phase == "race" and rounds_left > 1:
            return self._race(recipes, len(history) + 1, COOLER ** len(history))
        is_short = self._is_short(left, history)
        to_finish = 2 if is_short else 1  # lines and their soup, or the line
        rates = factors(history) if self.rules.climb and rounds_left > to_finish else ()
        trunk = recipe_of(last.trunk, history)
        if rates and isinstance(trunk, SftRecipe) and (children := self._children(trunk, rates, history, is_short)):
            return self._roster(len(history) + 1, "climb", children)
        if isinstance(trunk, SftRecipe) and is_short:
            return self._lines(trunk, history, left, rounds_left)
        return self._line(trunk, history, left, rounds_left)

    def _roster(self, number: int, phase: Phase, entries: list[RosterEntry]) -> Roster:
        return Roster(lineage=self.lineage, round=number, phase=phase, entries=entries, reasons=[])

    def _race(self, recipes: Sequence[Recipe], number: int, rate: float) -> Roster:
        """Every competitor from the base, at `rate` times its learning rate. The runs of a recipe that is repeated
        differ in the order of the data: the first of each sees the one that all others see."""
        entries, runs = [], Counter[str | None]()
        for recipe, amount in zip(recipes, self.miniatures(recipes), strict=True):
            order = runs[recipe.repeat_of] if recipe.repeat_of else 0
            runs[recipe.repeat_of] += 1
            if isinstance(recipe, SftRecipe):
                recipe = miniature(at_rate(carried(recipe, self.smallest_batch(recipe)), rate))
            allowance = self.whole.allowance(amount, recipe, self.has_gpus)
            entry = RosterEntry(recipe=recipe, budget=allowance, span=(0.0, 1.0), data_order=order, since=number)
            entries.append(entry)
        return self._roster(number, "race", entries)

    def smallest_batch(self, recipe: SftRecipe) -> int:
        """Sequences of a step, as few as pay: many small steps make more of the same tokens than few large ones."""
        step_tokens = self.rules.step_tokens or (GPU_STEP_TOKENS if self.has_gpus else 1)
        batch = min(recipe.batch, max(recipe.resources.workers, round(step_tokens / self.corpus.tokens_per_row)))
        return self._shared_evenly(batch, recipe)

    def _shared_evenly(self, batch: int, recipe: SftRecipe) -> int:
        """What a line's workers can share of `batch`, so that it goes on at the very batch."""
        return batch - batch % min(batch, self.on_the_cluster(recipe).workers)

    def on_the_cluster(self, recipe: SftRecipe, part: float = 1.0) -> Resources:
        """What `recipe` holds as a line, or as that part of several that run side by side."""
        return resources_of_a_line(recipe, self.rules, self.room, part / self.lineages, self.has_gpus)

    def miniatures(self, recipes: Sequence[Recipe]) -> list[float]:
        """How much of the budget each of `recipes` races with. UserError where that is not enough to rank them."""
        trains = sum(recipe.trains for recipe in recipes)
        if not trains:
            raise UserError("competitors: none of them trains, so there is nothing to give a whole budget to")
        share = min(self.rules.share, RACE_AT_MOST / trains)
        least = [self._least(recipe) for recipe in recipes if recipe.trains]
        steps = f"{STEPS_OF_A_MINIATURE} steps{'' if self.whole.unit == 'tokens' else ' of a second'}"
        why = f"{trains} competitors, which race for a quarter of it at most and need {steps} each"
        refuse_less(self.whole, smallest_total(least, share, SMALLEST_AT_MOST), why)
        return [max(share * self.whole.total, self._least(recipe)) if recipe.trains else 1.0 for recipe in recipes]

    def _least(self, recipe: Recipe) -> float:
        """Below which its training says nothing."""
        if isinstance(recipe, SftRecipe):
            recipe = carried(recipe, self.smallest_batch(recipe))
        return cost_of_steps(STEPS_OF_A_MINIATURE, recipe, self.whole, self.corpus, self.has_gpus)

    def _children(
        self, trunk: SftRecipe, rates: Sequence[float], history: Sequence[Past], is_short: bool
    ) -> list[RosterEntry]:
        """The trunk itself a little further, whoever the race could not tell from it, and children of the trunk: as
        many as are worth their tokens, all of which but the first one's are lost to the line. None where that is none,
        except on short data: there all lines share what their trunk has learnt.
        """
        last, number = history[-1], len(history) + 1
        taken = {entry.recipe.name for past in history for entry in past.roster.entries}
        steady, *others = [self._child(trunk, last.trunk, factor, number, taken) for factor in rates]
        if last.roster.phase == "race":
            for name in last.tied[:1]:
                rival = recipe_of(ModelRef(name, number - 1), history)
                if isinstance(rival, SftRecipe):
                    others.insert(0, self._child(rival, ModelRef(name, number - 1), 1.0, number, taken))
            if trunk.adapter is not None and trunk.adapter.rank is not None:
                others.append(self._wider(trunk, number, taken))
        climbs = [past for past in history if past.roster.phase == "climb"]
        lost = sum(sum(past.spent.values()) - past.spent.get(past.trunk.competitor or "", 0) for past in climbs)
        # As much as the trunk has behind it: for a shorter while, a rate looks too high that is not.
        amount = 2 ** len(climbs) * self.miniatures([trunk])[0]
        others = others[: max(0, int((CLIMB_AT_MOST * self.whole.total - lost) / amount))]
        children = (steady, *others) if others or is_short else ()
        return [self._given(amount, one, order_of(one.continues or last.trunk, history)) for one in children]

    def _given(self, amount: float, entry: RosterEntry, data_order: int) -> RosterEntry:
        allowance = self.whole.allowance(amount, entry.recipe, self.has_gpus)
        return entry.model_copy(update={"budget": allowance, "data_order": data_order})

    def _going_on(self, recipe: SftRecipe) -> SftRecipe:
        return going_on(miniature(recipe), self.rules.keep_optimizer)

    def _child(self, parent: SftRecipe, start: ModelRef, factor: float, number: int, taken: set[str]) -> RosterEntry:
        rate = at_rate(parent, factor)
        name = child_name(parent.name, number, 0, taken)
        said = {"learning_rate": f"{parent.learning_rate:g} of {parent.name} × {factor:g}"} if factor != 1 else {}
        return self._entry(self._going_on(rate), name, parent.name, number, start, said)

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
            recipe=recipe.model_copy(update={"name": name, "repeat_of": None}),
            made_by="allocation",
            parent=parent,
            since=number,
            origins=said,
            continues=start,
            span=(0.0, 1.0),
        )

    def _is_short(self, left: float, history: Sequence[Past]) -> bool:
        """Whether one line would pass over the data too often; once there are several, it stays so."""
        is_begun = any(past.roster.phase == "lines" for past in history)
        is_much = left > LONGEST_LINE_PASSES * self._pass(history)
        return self.rules.several_lines and not history[-1].trunk.is_base and (is_begun or is_much)

    def _pass(self, history: Sequence[Past]) -> float:
        """What a pass over the data takes of the budget, at the pace so far where that is time; without one no end."""
        if self.whole.unit == "tokens":
            return self.corpus.tokens
        costs = [(spent, past.tokens.get(name, 0)) for past in history for name, spent in past.spent.items()]
        told = [one for one in costs if one[1]] or costs  # of what reports no tokens, no pace is known
        pace = sum(spent for spent, _ in told) / max(sum(tokens for _, tokens in told), 1)
        return self.corpus.tokens * pace or inf

    def _batch_of_a_line(self, recipe: SftRecipe, left: float, history: Sequence[Past]) -> int:
        """Sequences of a step of a line over everything that is left."""
        rows = left / self._pass(history) * self.corpus.rows
        return self._shared_evenly(max(recipe.batch, round(sqrt(rows) / ROOT_PER_ROW)), recipe)

    def _quieter(self, recipe: SftRecipe) -> tuple[SftRecipe, dict[str, str]]:
        """A recipe that raced, at the rate for a line, and why in words."""
        a_step = recipe.batch * (self.corpus.completion_bytes or inf) / self.corpus.rows
        if a_step >= QUIET_BYTES:
            return recipe, {}
        factor = rate_at(a_step / QUIET_BYTES, recipe)
        words = f"{recipe.learning_rate:g} × {factor:.2g}, for {a_step:.0f} bytes of completions a step"
        return at_rate(recipe, factor), {"learning_rate": words}

    def _lines(self, trunk: SftRecipe, history: Sequence[Past], left: float, rounds_left: int) -> Roster:
        """Several lines from the trunk, each on its own order of the data; after them, soups of their ends."""
        number, start, one = len(history) + 1, history[-1].trunk, self._pass(history)
        taken = {entry.recipe.name for past in history for entry in past.roster.entries}
        quiet, said = self._quieter(trunk)
        recipe, entries = carried(quiet, batch_of_a_line(self.corpus.rows, trunk.batch)), []
        of_each = lengths(left / one, rounds_left, history)
        for index, passes in enumerate(of_each):
            name = child_name(trunk.name, number, index, taken)
            grown = spread(recipe, self.on_the_cluster(recipe, passes / sum(of_each)))
            entry = self._entry(self._going_on(grown), name, trunk.name, number, start, said)
            entries.append(self._given(min(passes * one, left), entry, 100 * number + index))
        if entries:
            return self._roster(number, "lines", entries)
        if not (blends := soups(history)):
            return self._line(trunk, history, left, rounds_left)
        nothing = Allowance(tokens=1)
        soup = {"made_by": "allocation", "since": number, "budget": nothing, "continues": start}
        return self._roster(number, "soup", [RosterEntry(recipe=recipe, **soup) for recipe in blends])

    def _line(self, recipe: Recipe, history: Sequence[Past], left: float, rounds_left: int) -> Roster:
        """The trunk over its part of what is left."""
        number, last = len(history) + 1, history[-1]
        before = sum(sum(past.spent.values()) for past in history if past.roster.phase == "line")
        amount, whole_line = left / rounds_left, max(before + left, 1.0)
        start, said = None if last.trunk.is_base else last.trunk, dict[str, str]()
        if isinstance(recipe, SftRecipe):
            line = part_of_a_line(recipe, rounds_left == 1, self.rules.keep_optimizer)
            if start is None or history[start.round - 1].roster.phase != "line":
                quiet, said = self._quieter(line)
                line = carried(quiet, self._batch_of_a_line(quiet, left, history))
            recipe = spread(line, self.on_the_cluster(line))
        entry = RosterEntry(
            recipe=recipe.model_copy(update={"repeat_of": None}),
            made_by="allocation",
            parent=recipe.name,
            since=number,
            origins=said,
            budget=self.whole.allowance(amount, recipe, self.has_gpus),
            continues=start if isinstance(recipe, SftRecipe) else None,
            span=(before / whole_line, min(1.0, (before + amount) / whole_line)),
            data_order=order_of(last.trunk, history),
        )
        return self._roster(number, "line", [entry])
