"""The smallest whole budget that a field can do something with. Pure functions.

What a step takes follows from the recipe's batch where the budget is of tokens. Where it is of time nobody knows before
it runs, and a second is taken. Of a program's steps nothing is known: it takes what it is given.
"""

from collections.abc import Sequence
from math import ceil, floor, log10

from cluster.errors import UserError
from competitors.kinds import Recipe
from competitors.search.recipe import SearchRecipe
from competitors.sft.recipe import SftRecipe
from orchestrator.field.whole_budget import Corpus, Whole

SECONDS_OF_A_STEP = 1.0
HOUR = 3600.0


def cost_of_steps(steps: int, recipe: Recipe, whole: Whole, corpus: Corpus, has_gpus: bool) -> float:
    """What `steps` optimizer steps take of the budget, in its unit; of a search as many in each of its trials. 0 where
    nothing is known of them."""
    if isinstance(recipe, SearchRecipe):
        one = recipe.largest(lambda trial: trial.batch)
        return cost_of_steps(steps, one, whole, corpus, has_gpus) * recipe.trials / recipe.share
    if not isinstance(recipe, SftRecipe):
        return 0.0
    if whole.unit == "tokens":
        return steps * recipe.batch * corpus.tokens_per_row
    return steps * SECONDS_OF_A_STEP * (recipe.resources.resolved(has_gpus).devices or 1.0)


def smallest_total(least: Sequence[float], share: float, most: float) -> float:
    """From which total on all entries together take no more than `most` of it, each the larger of its `least` and
    `share` of the total. Their sum is convex in the total, the largest over how many of them take the share."""
    ranked = sorted(least, reverse=True)
    return max(sum(ranked[: len(ranked) - count]) / (most - count * share) for count in range(len(ranked)))


def smallest_of_equal_rounds(
    recipes: Sequence[Recipe], rounds: int, whole: Whole, corpus: Corpus, has_gpus: bool
) -> float:
    """With which total each entry of each round makes a step."""
    trains = [recipe for recipe in recipes if recipe.trains]
    step = max((cost_of_steps(1, recipe, whole, corpus, has_gpus) for recipe in trains), default=0.0)
    return step * len(trains) * rounds


def refuse_less(whole: Whole, least: float, why: str) -> None:
    """UserError where `whole` is less than `least`, in the unit that the user gave, with the reason `why`."""
    if whole.total >= least:
        return
    if whole.unit == "tokens":
        key, is_there, needed = "total_tokens", f"{whole.total:,.0f}", f"{ceil(least):,}"
    else:
        hours = least / HOUR
        step = 10.0 ** (floor(log10(hours)) - 2)
        key, is_there, needed = "total_gpu_hours", f"{whole.total / HOUR:g}", f"{ceil(hours / step) * step:g}"
    raise UserError(f"budget.{key}: {is_there} are too few for {why}: give at least {needed}")
