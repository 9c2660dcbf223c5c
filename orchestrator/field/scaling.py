"""An sft recipe at another batch or rate, as a gang, or as a part of a whole plan. Pure functions.

The square-root rule for Adam and its kin (Malladi et al. 2022, "On the SDEs and scaling rules for adaptive gradient
algorithms", arXiv:2205.10287): at `f` times the batch the rate is multiplied with √f, and β₂ is raised to the power
of `f`, so that moments are averaged over as many sequences as before. Plain SGD's rate goes with `f` (Goyal et al.
2017, arXiv:1706.02677). Weight decay is kept per sequence.
"""

from math import sqrt
from typing import Any

from cluster.resources import Resources
from competitors.sft.recipe import SftRecipe


def carried(recipe: SftRecipe, batch: int) -> SftRecipe:
    """`recipe` at about `batch` sequences per optimizer step: at least one, and as many for each worker."""
    workers = recipe.resources.workers
    rows = max(1, round(batch / workers))
    factor = rows * workers / recipe.batch
    if factor == 1:
        return recipe
    rate = rate_at(factor, recipe)
    changes: dict[str, Any] = {
        "learning_rate": _rounded(recipe.learning_rate * rate),
        "betas": (recipe.betas[0], _rounded(recipe.betas[1] ** factor)),
        "weight_decay": _rounded(recipe.weight_decay * factor / rate),
    }
    return recipe.model_copy(update=changes | _cut(rows, recipe.batch_size))


def rate_at(factor: float, recipe: SftRecipe) -> float:
    """What `recipe`'s rate is multiplied with where steps are of `factor` times as much."""
    return factor if "sgd" in recipe.optimizer else sqrt(factor)


def spread(recipe: SftRecipe, resources: Resources) -> SftRecipe:
    """`recipe` with these resources, at the global batch that it has: the same training on another number of workers.

    A batch that they cannot share evenly is carried to the nearest that they can, one sequence for each at least.
    """
    own, workers = recipe.resources.workers, resources.workers
    if workers == own:
        return recipe
    alone = {
        "gradient_accumulation": recipe.gradient_accumulation * own,
        "resources": resources.model_copy(update={"workers": 1}),
    }
    rows = max(1, round(recipe.batch / workers))
    whole = carried(recipe.model_copy(update=alone), rows * workers)
    return whole.model_copy(update={"resources": resources} | _cut(rows, recipe.batch_size))


def at_rate(recipe: SftRecipe, factor: float) -> SftRecipe:
    """`recipe` at `factor` times its learning rate."""
    return recipe.model_copy(update={"learning_rate": _rounded(recipe.learning_rate * factor)})


def miniature(recipe: SftRecipe) -> SftRecipe:
    """`recipe` as a miniature of the whole plan: its rate goes linearly to zero within its small share, so that it can
    be judged as it ends, and nothing that it has learnt is thrown away when another goes on from it."""
    plan = {"schedule": "linear", "schedule_args": {}, "schedule_spans": "round", "score_weights": "last"}
    return recipe.model_copy(update=plan | {"continue_": False})


def going_on(recipe: SftRecipe, keep_optimizer: bool = True) -> SftRecipe:
    """`recipe` as it goes on from a trunk, which has been warmed up."""
    return recipe.model_copy(update={"continue_": True if keep_optimizer else "weights", "warmup": 0.0})


def part_of_a_line(recipe: SftRecipe, is_last: bool, keep_optimizer: bool = True) -> SftRecipe:
    """One round of a line whose one schedule goes linearly to zero. What is scored before its end is a tail average."""
    scored = "last" if is_last else "tail_average"
    return going_on(miniature(recipe), keep_optimizer).model_copy(
        update={"schedule_spans": "lineage", "score_weights": scored}
    )


def _cut(rows: int, most: int) -> dict[str, int]:
    """How a worker takes its `rows` of a step in equal batches of `most` at most."""
    at_once = next(size for size in range(min(rows, most), 0, -1) if rows % size == 0)
    return {"batch_size": at_once, "gradient_accumulation": rows // at_once}


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")
