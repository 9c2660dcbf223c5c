"""One recipe, trained on so many tokens by the project's own code, followed on the way and scored at the end."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from cluster.resources import Resources
from competitors.contract import Allowance, Brief
from competitors.sft.recipe import SftRecipe
from competitors.sft.trainer import RecipeTrainer
from competitors.sft.training import train
from evaluation.scorecard import Scorecard
from tests.experiments.cells import Cell
from tests.experiments.results import Point


def marks(cell: Cell) -> tuple[float, ...]:
    """Shares of the budget at which a recipe that trains alone is looked at: an early stop would be at one of these.

    More of them where the rows are passed often and a recipe may overfit.
    """
    count = 4 if cell.setting.rows is None else 8
    return tuple(mark / count for mark in range(1, count + 1))


def brief_for(cell: Cell, recipe: SftRecipe, tokens: int, folder: Path) -> Brief:
    """What a competitor of a tournament gets, for this recipe. One seed and name, one order of the rows."""
    key = f"{cell.seed}/{cell.setting.name}/{recipe.name}"
    return Brief(
        tournament="experiment",
        lineage=cell.setting.name,
        round=1,
        competitor=recipe.name,
        seed_model=cell.base,
        seed_sha256="0",
        seed_continuation=None,
        train_data=cell.train_data,
        max_tokens=cell.setting.max_tokens,
        budget=Allowance(tokens=tokens),
        progress=(0.0, 1.0),
        output_dir=folder / "submission",
        random_seed=int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) % 2**31,
        resources=Resources(gpus=0, cpus=1),
    )


def train_and_score(
    cell: Cell, recipe: SftRecipe, tokens: int, folder: Path, marks: Sequence[float] = ()
) -> tuple[Scorecard, list[Point]]:
    """Train from the base and score what is handed in; also the losses at `marks`, shares of the tokens."""
    points: list[Point] = []
    folder.mkdir(parents=True, exist_ok=True)

    def watch(trainer: RecipeTrainer, spent: float) -> None:
        if sum(spent >= mark for mark in marks) > len(points):
            points.append(point(cell, trainer))

    train(brief_for(cell, recipe, tokens, folder), recipe, lambda event: None, watch)
    return cell.score(folder / "submission", folder), points


def point(cell: Cell, trainer: RecipeTrainer) -> Point:
    """Where a training is now. A loss that is no number counts as endless."""
    losses = cell.judge.losses(trainer.model)
    validation, test = (loss if math.isfinite(loss) else math.inf for loss in losses)
    return Point(tokens=trainer.meter.tokens(trainer.step), validation=validation, test=test)
