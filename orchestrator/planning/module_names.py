"""Names of modules in recipes that no tensor of a base has: typing errors, found before anything is trained."""

from collections.abc import Callable, Iterable
from pathlib import Path

from cluster.text import plain
from competitors.sft.adapters import matches, names_target
from competitors.sft.recipe import SftRecipe
from orchestrator.config.tournament import TournamentConfig
from orchestrator.planning import model_sources
from orchestrator.planning.model_shape import describe_base

NOT_STORED = ("model", "transformer")
"""What the names of some architectures' modules begin with, and those of their tensors do not."""


def unmatched_names(config: TournamentConfig, config_folder: Path) -> list[str]:
    """A line for each name in `freeze`, `train_only` or an adapter's `target_modules` that a base lacks, of the bases
    whose weights are here. A regular expression is not looked at."""
    lines = []
    for lineage in config.lineages:
        modules = _modules(lineage.base, config_folder)
        if not modules:
            continue
        ends = {name.rpartition(".")[2] for name in modules}
        there = plain(", ".join(sorted(end for end in ends if not end.isdigit())), 160)
        for recipe in config.competitors:
            if isinstance(recipe, SftRecipe):
                where = f"competitors[{recipe.name}] on {lineage.name} will forfeit"
                lines += [f"{where}: {one}; the base has {there}" for one in _unmatched(recipe, modules)]
    return lines


def _modules(base: str, config_folder: Path) -> set[str]:
    """The names of all modules; none where they are not known."""
    folder = model_sources.locate(base, config_folder)
    is_here = folder is not None and any(folder.glob("*.safetensors"))
    if not is_here and not base.startswith(model_sources.BUILTIN):
        return set()
    shape = describe_base(base, config_folder)
    names = {"lm_head.weight", *shape.tensors} if shape else set()  # a tied head is not stored
    return {name[:end] for name in names for end, letter in enumerate(name) if letter == "."}


def _unmatched(recipe: SftRecipe, modules: set[str]) -> list[str]:
    targets = recipe.adapter.target_modules if recipe.adapter else None
    whole = modules | {f"{prefix}.{name}" for prefix in NOT_STORED for name in modules}
    return [
        *_said("freeze", recipe.freeze, lambda one: any(matches(one, name) for name in whole)),
        *_said("train_only", recipe.train_only, lambda one: any(matches(one, name) for name in whole)),
        *_said(
            "adapter.target_modules",
            targets if isinstance(targets, list) else [],
            lambda one: any(names_target([one], name) for name in modules),
        ),
    ]


def _said(key: str, names: Iterable[str], is_there: Callable[[str], bool]) -> list[str]:
    return [f"{key}: no module is named {plain(name, 60)}" for name in names if not is_there(name)]
