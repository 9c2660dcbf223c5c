"""Evolution: after a round the worst share of the sft recipes makes way for perturbed copies of the best one.

The explore step of population-based training (Jaderberg et al. 2017, arXiv:1711.09846) on recipes: each key is
multiplied with one of a few factors. The exploit step is the tournament's own: everyone starts from the
winner's weights. Decisions follow from the tournament's seed, the lineage and the round, so a run repeats.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field, ValidationError, field_validator

from cluster.records import Settings, nearest
from competitors.contract import OF_EVERY_KIND
from competitors.search.space import parts
from competitors.sft.recipe import SftRecipe
from orchestrator.field.roster import MadeBy, RosterEntry

FACTORS = [0.8, 1.25]
LONGEST_ROOT = 50
"""Characters of its recipe's name that a child's begins with."""
DRAWS = 16
"""So often other factors are drawn where a child would be the twin of a recipe that competes already."""


class Evolution(Settings):
    """`replace` is the share of sft recipes that make way, at least one; `perturb` maps keys to factors."""

    replace: float = Field(0.25, gt=0, lt=1)
    perturb: dict[str, list[float]] = {"learning_rate": FACTORS}

    @field_validator("perturb")
    @classmethod
    def _known_keys(cls, value: dict[str, list[float]]) -> dict[str, list[float]]:
        for key, factors in value.items():
            check_key(key)
            if not factors or min(factors) <= 0:
                raise ValueError(f"{key}: give factors above 0, such as {FACTORS}")
        return value


def check_key(key: str) -> None:
    """ValueError unless `key` names a number of an sft recipe, such as `adapter.rank`."""
    known = list(_numbers(SftRecipe))
    if key not in known and not key.startswith(("optimizer_args.", "schedule_args.")):
        raise ValueError(f'no number "{key}" in an sft recipe{nearest(key, known)}')


def _numbers(section: type[Settings], prefix: str = "") -> Iterator[str]:
    """The keys of a section, and of those inside it, that hold a number."""
    for name, field in section.model_fields.items():
        if prefix or name not in OF_EVERY_KIND:
            key, kinds = f"{prefix}{field.alias or name}", set(parts(field))
            if kinds & {int, float} and not kinds & {tuple, list}:
                yield key
            for inner in kinds:
                if issubclass(inner, Settings):
                    yield from _numbers(inner, f"{key}.")


def evolve(
    entries: list[RosterEntry], ranking: list[str], rules: Evolution, random_seed: int, lineage: str, number: int
) -> tuple[list[RosterEntry], list[str]]:
    """The entries of round `number`, and what changed in words.

    `ranking` names the competitors scored in the round before, best first; who is not in it came last.
    """
    place = {name: rank for rank, name in enumerate(ranking)}
    ours = [entry for entry in entries if isinstance(entry.recipe, SftRecipe)]
    ours.sort(key=lambda entry: (place.get(entry.recipe.name, len(place)), entry.recipe.name))
    if len(ours) < 2 or ours[0].recipe.name not in place:
        return entries, []
    best, count = ours[0], min(len(ours) - 1, max(1, round(rules.replace * len(ours))))
    rng = seeded(random_seed, lineage, number)
    names = {entry.recipe.name for entry in entries}
    children: dict[str, RosterEntry] = {}
    reasons = []
    for index, loser in enumerate(ours[-count:]):
        name = child_name(best.recipe.name, number, index, names)
        there = [entry.recipe for entry in (*ours[:-count], *children.values())]
        for _ in range(DRAWS):
            factors = {key: rng.choice(choices) for key, choices in rules.perturb.items()}
            child = copy(best, name, factors, "evolution", number)
            if all(child.recipe != recipe.model_copy(update={"name": name}) for recipe in there):
                break
        children[loser.recipe.name] = child
        reasons.append(f"{child.recipe.name} takes the place of {loser.recipe.name}: {child.origin}.")
    return [children.get(entry.recipe.name, entry) for entry in entries], reasons


def seeded(random_seed: int, lineage: str, number: int) -> random.Random:
    """A generator that depends on these three alone."""
    key = f"{random_seed}/{lineage}/{number}/evolution"
    return random.Random(hashlib.sha256(key.encode()).digest())


def root_name(name: str) -> str:
    """The recipe that a chain of children began with: `full` for `full.3a`."""
    return re.sub(r"\.\d+[a-z]+$", "", name)


def child_name(parent: str, number: int, index: int, taken: set[str]) -> str:
    """A name that says whose child of which round it is: `full.3a` for a copy of `full` or of `full.2b`."""
    root = root_name(parent)[:LONGEST_ROOT]
    while (name := f"{root}.{number}{_letters(index)}") in taken:
        index += 1
    taken.add(name)
    return name


def _letters(index: int) -> str:
    return ("" if index < 26 else _letters(index // 26 - 1)) + "abcdefghijklmnopqrstuvwxyz"[index % 26]


def copy(parent: RosterEntry, name: str, factors: dict[str, float], made_by: MadeBy, number: int) -> RosterEntry:
    """A copy of `parent` under another name, its keys multiplied with `factors` where it has them.

    A value that the recipe would refuse stays the parent's. Each changed value's origin is recorded.
    """
    recipe, origins = parent.recipe, {}
    for key, factor in factors.items():
        before = _value(recipe, key)
        if before is None or factor == 1:
            continue
        after = max(1, round(before * factor)) if isinstance(before, int) else float(f"{before * factor:.6g}")
        try:
            changed = _changed(recipe, key, after)
        except ValidationError:
            continue
        if after != before:
            recipe, origins[key] = changed, f"{before:g} of {parent.recipe.name} × {factor:g}"
    return RosterEntry(
        recipe=recipe.model_copy(update={"name": name}),
        made_by=made_by,
        parent=parent.recipe.name,
        since=number,
        origins=origins,
    )


def _value(recipe: Any, key: str) -> float | int | None:
    node = recipe.model_dump(by_alias=True)
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node if isinstance(node, int | float) and not isinstance(node, bool) else None


def _changed(recipe: Any, key: str, value: float | int) -> Any:
    raw = recipe.model_dump(by_alias=True)
    *parents, last = key.split(".")
    node = raw
    for part in parents:
        node = node[part]
    node[last] = value
    return type(recipe).model_validate(raw)
