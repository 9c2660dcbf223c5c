"""Competitor of kind `python`: the user's own function, called in the actor, for those who trust their code.

The function is `function(brief: Brief, report: Report) -> None` and writes its model into `brief.output_dir`.
It keeps the budget itself, counted from the moment it is called.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self, cast

from pydantic import Field

from cluster.errors import UserError
from cluster.text import said_by
from competitors.contract import Brief, RecipeBase
from competitors.events import Report


class PythonRecipe(RecipeBase):
    """`entrypoint: package.module:function`, importable on the workers or found in `folder` there."""

    kind: Literal["python"]
    entrypoint: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    folder: Path = Field(Path("."), description="where its modules lie if nowhere else, from the config's folder")

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
        resolve(self.entrypoint, self.folder)

    def located(self, config_folder: Path) -> Self:
        """With its folder made absolute."""
        return self.model_copy(update={"folder": (config_folder / self.folder.expanduser()).absolute()})


def resolve(entrypoint: str, folder: Path) -> Callable[[Brief, Report], None]:
    """The function that `package.module:function` names; UserError when it does not import.

    What lies in `folder` comes after all that can be imported anyway: nothing there takes the place of a library.
    """
    module, _, name = entrypoint.partition(":")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        found = importlib.import_module(module)
        function = getattr(found, name)
    except Exception as error:  # whatever a module of the user's says as it is imported
        raise UserError(f"entrypoint {entrypoint} does not import, also not from {folder}: {said_by(error)}") from error
    place, file = folder.joinpath(*module.split(".")), getattr(found, "__file__", None)
    own = next((one for one in (place.with_suffix(".py"), place / "__init__.py") if one.is_file()), None)
    # By its text: of what a job's folder holds each node of a cluster has a copy of its own.
    if own is not None and file is not None and Path(file).read_bytes() != own.read_bytes():
        raise UserError(f"entrypoint {entrypoint}: {module} is {file}, not {own}: give that another name")
    return cast(Callable[[Brief, Report], None], function)


def run(brief: Brief, recipe: PythonRecipe, report: Report) -> None:
    """Call the user's function; whatever it raises forfeits the entry."""
    function = resolve(recipe.entrypoint, recipe.folder)
    report({"event": "started"})
    function(brief, report)
