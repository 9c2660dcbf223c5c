"""Short forms of a list of competitors: clones with changes, series over values, and runs of one recipe.

    - {name: lora-hot, like: lora-r16, learning_rate: 4.0e-4}         a clone and what differs
    - {name: full, kind: sft, learning_rate: {each: [1.0e-4, 2.0e-4]}}  full-0.0001 and full-0.0002
    - {name: hot, like: lora-hot, repeats: 3}                           hot-1, hot-2 and hot-3, which repeat hot

All are expanded before the config is checked, so everything else sees plain recipes.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.errors import UserError
from cluster.records import nearest

Raw = dict[str, Any]

MOST_REPEATS = 16


def expand(items: list[Any], known: Mapping[str, Raw] | None = None) -> list[Any]:
    """`items` with every `like`, `each` and `repeats` written out, in order.

    `known` are recipes by name that a `like` may name besides the items themselves. What is no mapping is
    passed on, for the config's own check to refuse. UserError names the item.
    """
    written = {item["name"]: item for item in items if isinstance(item, dict) and isinstance(item.get("name"), str)}
    expanded: list[Any] = []
    for item in items:
        if not isinstance(item, dict):
            expanded.append(item)
        else:
            series = _series(_clone(item, {**(known or {}), **written}, ()))
            expanded += [run for recipe in series for run in _runs(recipe)]
    return expanded


def _clone(item: Raw, known: Mapping[str, Raw], through: tuple[str, ...]) -> Raw:
    """The item over what it is like, however many steps that is away."""
    if "like" not in item:
        return item
    name, original = item.get("name"), item["like"]
    if not name:
        raise UserError(f"competitors: the entry that is like {original} needs a name of its own")
    if original == name or original in through:
        raise UserError(f"competitors[{name}].like: {original} is like itself")
    if original not in known:
        raise UserError(f'competitors[{name}].like: no competitor "{original}"{nearest(str(original), known)}')
    base = _clone(known[original], known, (*through, name))
    base = {key: value for key, value in base.items() if key != "repeat_of"}  # like one run, and none itself
    return _merged(base, {key: value for key, value in item.items() if key != "like"})


def _merged(base: Raw, changes: Raw) -> Raw:
    """`changes` over `base`, sections merged key by key; `key: none` takes a whole section away."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict) and "each" not in value
        result[key] = _merged(base[key], value) if both else value
    return result


def _series(item: Raw) -> list[Raw]:
    """One recipe for each combination of the values that `each` lists, named after them."""
    axes = list(_axes(item, ()))
    if not axes:
        return [item]
    name = item.get("name")
    for path, values in axes:
        if not isinstance(values, list) or not values:
            raise UserError(f"competitors[{name}].{'.'.join(path)}.each: give a list of values")
    recipes = []
    for combination in itertools.product(*(values for _, values in axes)):
        recipe = item
        for (path, _), value in zip(axes, combination, strict=True):
            recipe = _with(recipe, path, value)
        suffix = "-".join(_word(value) for value in combination)
        recipes.append(recipe | {"name": f"{name}-{suffix}"})
    return recipes


def _runs(recipe: Raw) -> list[Raw]:
    """The recipe as often as it is repeated, numbered from 1: a competitor's random seed follows from its name."""
    if "repeats" not in recipe:
        return [recipe]
    name, count = recipe.get("name"), recipe["repeats"]
    if type(count) is not int or not 1 <= count <= MOST_REPEATS:
        raise UserError(f"competitors[{name}].repeats: give a whole number from 1 to {MOST_REPEATS}, not {count}")
    once = {key: value for key, value in recipe.items() if key != "repeats"}
    if count == 1 or not isinstance(name, str):  # what has no name is for the config's own check to refuse
        return [once]
    return [once | {"name": f"{name}-{number}", "repeat_of": name} for number in range(1, count + 1)]


def _axes(node: Raw, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            if set(value) == {"each"}:
                yield (*path, key), value["each"]
            else:
                yield from _axes(value, (*path, key))


def _with(node: Raw, path: tuple[str, ...], value: Any) -> Raw:
    key, *rest = path
    return node | {key: _with(node[key], tuple(rest), value) if rest else value}


def _word(value: Any) -> str:
    """A value as a part of a name."""
    text = f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text.replace("+", ""))
