"""The contract between the tournament and a training recipe, and one file per kind of recipe.

`KINDS` is the table of kinds: adding one is adding its file, its record to `Recipe` and its line here.
"""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from competitors import command, python, sft, unchanged
from competitors.command import CommandRecipe
from competitors.python import PythonRecipe
from competitors.sft import SftRecipe
from competitors.unchanged import UnchangedRecipe

Recipe = Annotated[SftRecipe | PythonRecipe | CommandRecipe | UnchangedRecipe, Field(discriminator="kind")]

KINDS: dict[str, Callable[..., Any]] = {
    "sft": sft.run,
    "python": python.run,
    "command": command.run,
    "unchanged": unchanged.run,
}
