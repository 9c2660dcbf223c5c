"""Competitor of kind `unchanged`: hands in its seed as it is.

A control: whatever it gains or loses is chance, and a round that it wins taught nothing.
"""

from typing import Literal

from cluster.resources import Resources
from cluster.store import LOCAL
from competitors.contract import Brief, RecipeBase
from competitors.events import Report


class UnchangedRecipe(RecipeBase):
    """No settings of its own, and no GPU."""

    kind: Literal["unchanged"]
    resources: Resources = Resources(gpus=0)

    @property
    def trains(self) -> bool:
        """A control does nothing."""
        return False

    @property
    def summary(self) -> str:
        """What it is for."""
        return "the seed as it is, a control"


def run(brief: Brief, recipe: UnchangedRecipe, report: Report) -> str:
    """Link the seed's files; nothing is loaded."""
    report({"event": "started"})
    LOCAL.link_folder(brief.seed_model, brief.output_dir)
    return "the seed as it is"
