"""Reading the YAML of `tournament enter`: one competitor, or a list of them, as in a config."""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cluster.errors import UserError
from competitors.kinds import Recipe
from orchestrator.config import RESERVED_NAMES, check_soup, explain, read_yaml
from orchestrator.field.field import current
from orchestrator.field.shorthand import expand
from orchestrator.record.run_directory import RunDirectory


def load_entries(path: Path, run: RunDirectory) -> list[Recipe]:
    """The checked recipes in `path`, with `like` and `each` written out. UserError in one line for any mistake.

    A `like` may name whoever competes in `run` now. Relative paths are meant from the file's folder, and are
    made absolute, since the file is read only once.
    """
    raw = read_yaml(path)
    there = current(run.config, run)
    known = {name: recipe.model_dump(mode="json", by_alias=True) for name, recipe in there.items()}
    items: list[Any] = raw if isinstance(raw, list) else [raw]
    if not items or not all(isinstance(item, dict) for item in items):
        raise UserError(f"{path}: holds neither a competitor nor a list of them")
    try:
        items = expand(items, known)
        recipes = TypeAdapter(list[Recipe]).validate_python(items)
        names = [*there, *(recipe.name for recipe in recipes)]
        for recipe in recipes:
            if names.count(recipe.name) > 1:
                raise UserError(f"competitors[{recipe.name}].name: the name is taken")
            if recipe.name in RESERVED_NAMES:
                raise UserError(f"competitors[{recipe.name}].name: this is the name of a folder of ours")
            check_soup(recipe, names)
            recipe.located(path.absolute().parent).check()
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, items)}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return [recipe.located(path.absolute().parent) for recipe in recipes]
