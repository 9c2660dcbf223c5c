"""The contract between the tournament and a training recipe, and one file per kind of recipe.

`KINDS` is the table of kinds: adding one is adding its file, its record to `Recipe` and its line here.
"""

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from competitors import command, python, search, sft, soup, unchanged
from competitors.command import CommandRecipe
from competitors.python import PythonRecipe
from competitors.search import SearchRecipe
from competitors.sft import SftRecipe
from competitors.soup import SoupRecipe
from competitors.unchanged import UnchangedRecipe

Recipe = Annotated[
    SftRecipe | SearchRecipe | CommandRecipe | PythonRecipe | SoupRecipe | UnchangedRecipe,
    Field(discriminator="kind"),
]

KINDS: dict[str, Callable[..., str | None]] = {
    "sft": sft.run,
    "search": search.run,
    "command": command.run,
    "python": python.run,
    "soup": soup.run,
    "unchanged": unchanged.run,
}
"""Each takes (brief, recipe, report), writes the submission, and may return how it ended, in words."""
