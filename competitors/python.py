"""Competitor of kind `python`: the user's own function, called in the actor, for those who trust their code.

The function is `function(brief: Brief, report: Report) -> None` and writes its model into `brief.output_dir`.
It keeps the budget itself, counted from the moment it is called.
"""

import importlib
from collections.abc import Callable
from typing import Literal, cast

from pydantic import Field

from cluster.errors import UserError
from competitors.contract import Brief, RecipeBase
from competitors.events import Report


class PythonRecipe(RecipeBase):
    """`entrypoint: package.module:function`, importable on the workers."""

    kind: Literal["python"]
    entrypoint: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")

    @property
    def is_program(self) -> bool:
        """It is one."""
        return True

    @property
    def summary(self) -> str:
        """The function."""
        return self.entrypoint

    def check(self) -> None:
        """UserError when the entrypoint does not import."""
        resolve(self.entrypoint)


def resolve(entrypoint: str) -> Callable[[Brief, Report], None]:
    """The function that `package.module:function` names; UserError when it does not import."""
    module, _, name = entrypoint.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"entrypoint {entrypoint} does not import: {error}") from error
    return cast(Callable[[Brief, Report], None], function)


def run(brief: Brief, recipe: PythonRecipe, report: Report) -> None:
    """Call the user's function; whatever it raises forfeits the entry."""
    function = resolve(recipe.entrypoint)
    report({"event": "started"})
    function(brief, report)
