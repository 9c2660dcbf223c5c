"""What a figure is: one number of a model on a split, and how it is measured, written and compared."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evaluation.results import RowResults

if TYPE_CHECKING:
    import torch

NOTHING = "–"


@dataclass(frozen=True)
class Figure:
    """One number that a model's results on a split come to.

    A figure that can be computed from what others measure has no `measure`. One that needs more of each token
    names the `column` of the row results that the sums of its `measure` over a row's tokens go into.
    """

    name: str
    """As in scorecard.json."""
    title: str
    """As in tables."""
    unit: str
    better: Literal["lower", "higher"]
    compute: Callable[[RowResults], float]
    form: str
    """A format specification, as `.4f`."""
    measure: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None" = None
    """(float32 logits (chunk, vocabulary), target ids (chunk,)) -> one value a token (chunk,)."""
    column: str = ""

    def __post_init__(self) -> None:
        assert (self.measure is None) == (self.column == ""), self.name

    @property
    def heading(self) -> str:
        """Its title and its unit."""
        return self.title if self.unit in ("", self.title) else f"{self.title}, {self.unit}"

    def text(self, value: float | None) -> str:
        """The value as it is shown; a dash where there is none."""
        if value is None:
            return NOTHING
        return format(value, self.form) if math.isfinite(value) else str(value)  # not "nan%"
