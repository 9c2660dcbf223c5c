"""The table of kinds: the record that each kind's section of a config becomes, and what runs it.

Adding a kind is adding its file or room, its record to `Recipe` and its line to `RUN`.
"""

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from competitors import python, unchanged
from competitors.command import run as command
from competitors.command.recipe import CommandRecipe
from competitors.python import PythonRecipe
from competitors.search import run as search
from competitors.search.recipe import SearchRecipe
from competitors.sft import run as sft
from competitors.sft.recipe import SftRecipe
from competitors.soup import run as soup
from competitors.soup.recipe import SoupRecipe
from competitors.unchanged import UnchangedRecipe

Recipe = Annotated[
    SftRecipe | SearchRecipe | CommandRecipe | PythonRecipe | SoupRecipe | UnchangedRecipe,
    Field(discriminator="kind"),
]

RUN: dict[str, Callable[..., str | None]] = {
    "sft": sft.run,
    "search": search.run,
    "command": command.run,
    "python": python.run,
    "soup": soup.run,
    "unchanged": unchanged.run,
}
"""Each takes (brief, recipe, report), writes the submission, and may return how it ended, in words."""

RESUMES = ("sft",)
"""Kinds that go on from what an earlier try of the entry has saved in its scratch folder; the others start over."""
STARTS_CLEAN = ("search", "soup", "unchanged")
"""Those to which what an earlier try left in the output folder is of no use. A user's own code decides for itself."""
