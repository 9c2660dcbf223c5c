"""What a tournament's run directory comes to on disk, from the shapes of its bases. Pure functions.

Kept are every entry's submission, the merged model of a round that an adapter may win, and the models that are fetched
from the hub; whole models that are the same are hard links of one. What would lose its change in the 16 bits of its
seed is stored in float32, so that is what a whole model is taken to need. While a round runs there is more: each
entry's trunk with its optimizer's state, which the next round needs of one of them, and its checkpoints, two for a
moment.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

from cluster.records import Record
from competitors.kinds import Recipe
from competitors.search.recipe import SearchRecipe
from competitors.sft.recipe import SftRecipe
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.roster import Roster
from orchestrator.planning.memory import state_bytes, trained_tensors
from orchestrator.planning.model_shape import BaseShape, describe_base
from orchestrator.planning.model_sources import is_away

FLOAT32, ADAM = 4.0, 8.0
"""Bytes of a parameter, and of its two moments."""
CHECKPOINTS = 2
"""Of an entry, at a moment: the new one lies whole beside the old before it takes its place."""


class Disk(Record):
    """In GB of 2**30 bytes, at most."""

    kept: float
    """When the tournament has ended."""
    round: float
    """More than that while a round runs."""


def disk(
    config: TournamentConfig,
    config_folder: Path,
    rounds: Mapping[str, Sequence[Roster]],
    shapes: Mapping[str, BaseShape | None],
) -> Disk | None:
    """Of the rounds of each lineage; None where the shape of a model is not known."""
    fetched = _fetched(config, config_folder)
    if fetched is None or None in shapes.values():
        return None
    kept, passing = fetched, 0.0
    for lineage, base in shapes.items():
        assert base is not None
        for roster in rounds[lineage]:
            recipes = [entry.recipe for entry in roster.entries]
            kept += sum(_submission(recipe, base) for recipe in recipes)
            kept += _whole(base) * any(_is_adapter(_trains(recipe, base)) for recipe in recipes)
        passing += max((sum(_passing(e.recipe, base) for e in r.entries) for r in rounds[lineage]), default=0.0)
    return Disk(kept=kept / 2**30, round=passing / 2**30)


def in_words(one: Disk) -> str:
    """Both, in a line."""
    return f"disk: at most {one.kept:,.1f} GB in the run directory, and {one.round:,.1f} GB more while a round runs"


def _fetched(config: TournamentConfig, config_folder: Path) -> float | None:
    """Bytes of the models that come from the hub; None where one's shape is not known."""
    named = {one.base for one in config.lineages} | {one.model for one in config.references if one.model}
    shapes = [describe_base(one, config_folder) for one in named if is_away(one, config_folder)]
    return None if None in shapes else float(sum(shape.stored_bytes for shape in shapes if shape))


def _trains(recipe: Recipe, base: BaseShape) -> SftRecipe | None:
    """The recipe whose training is ours, of a search the largest of its trials; None of other kinds."""
    if isinstance(recipe, SearchRecipe):
        return recipe.largest(lambda trial: float(sum(trained_tensors(trial, base))))
    return recipe if isinstance(recipe, SftRecipe) else None


def _is_adapter(one: SftRecipe | None) -> TypeGuard[SftRecipe]:
    return one is not None and one.adapter is not None


def _submission(recipe: Recipe, base: BaseShape) -> float:
    """Bytes of what is handed in: an adapter as it was trained, else a whole model."""
    one = _trains(recipe, base)
    return FLOAT32 * sum(trained_tensors(one, base)) if _is_adapter(one) else _whole(base)


def _whole(base: BaseShape) -> float:
    return max(float(base.stored_bytes), FLOAT32 * base.parameters)


def _passing(recipe: Recipe, base: BaseShape) -> float:
    """Bytes of what an entry leaves besides until the verdict: its checkpoints, which are trunks with their moments."""
    one = _trains(recipe, base)
    if one is None:  # of a soup, the means of trunks and moments; of a program of one's own, nothing is known
        return (FLOAT32 + ADAM) * base.parameters if recipe.kind == "soup" else _whole(base)
    average = FLOAT32 if one.score_weights == "tail_average" else 0.0
    return CHECKPOINTS * (FLOAT32 + state_bytes(one) + average) * sum(trained_tensors(one, base))
