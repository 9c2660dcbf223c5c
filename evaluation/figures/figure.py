"""What a figure is: one number of a model on a split, and how it is measured, written and compared."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from evaluation.results import Array, RowResults

if TYPE_CHECKING:
    import torch

NOTHING = "–"


@dataclass(frozen=True)
class Figure:
    """One number that a model's results on a split come to: a mean of its rows, or made of one.

    A figure that can be computed from what others measure needs nothing more. One that needs more of each token names
    the `column` of the row results that the sums of its `measure` over a row's tokens go into; one that needs what the
    model writes by itself, the column that its `judge` of a row's text goes into: no number on a row without a text.
    """

    name: str
    """As in scorecard.json."""
    title: str
    """As in tables."""
    unit: str
    better: Literal["lower", "higher"]
    sums: Callable[[RowResults], tuple[Array, Array]]
    """What is averaged: per row a sum and what it counts, (rows,) each. The mean is of all sums by all counts."""
    form: str
    """A format specification, as `.4f`."""
    measure: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None" = None
    """(float32 logits (chunk, vocabulary), target ids (chunk,)) -> one value a token (chunk,)."""
    judge: Callable[[str, str], float] | None = None
    """(what the model wrote, the row's completion) -> one value."""
    column: str = ""
    of_mean: Callable[[float], float] = float
    """What the mean is made into."""

    def __post_init__(self) -> None:
        assert (self.measure is None and self.judge is None) == (self.column == ""), self.name

    @property
    def heading(self) -> str:
        """Its title and its unit."""
        return self.title if self.unit in ("", self.title) else f"{self.title}, {self.unit}"

    def is_in(self, results: RowResults) -> bool:
        """Whether what it needs was measured."""
        return self.judge is None or bool(np.isfinite(results.columns.get(self.column, np.nan)).any())

    def compute(self, results: RowResults) -> float:
        """Its value; no number where a row is none, or nothing is counted."""
        return self.of_cost(self.costs(results).loss)

    def of_cost(self, mean: float) -> float:
        """Its value, from the mean of its costs."""
        return self.of_mean(mean * self._sign + 0.0)  # no -0.0

    def costs(self, results: RowResults) -> RowResults:
        """The same rows, with what this figure averages in the place of nats and tokens: lower is better.

        Whatever ranks and compares models by their loss does it by this figure, when it is given these.
        """
        values, counts = self.sums(results)
        return RowResults(values * self._sign, counts, group=results.group)

    def worse(self, before: float, after: float) -> float:
        """By how much the value has become worse; negative where it is better."""
        return (after - before) * self._sign

    def text(self, value: float | None) -> str:
        """The value as it is shown; a dash where there is none."""
        if value is None:
            return NOTHING
        return format(value, self.form) if math.isfinite(value) else str(value)  # not "nan%"

    @property
    def _sign(self) -> float:
        return 1.0 if self.better == "lower" else -1.0


def of_texts(column: str) -> Callable[[RowResults], tuple[Array, Array]]:
    """The `sums` of a figure whose `judge` fills that column: each row that there is a text of counts once."""

    def sums(results: RowResults) -> tuple[Array, Array]:
        values = results.columns[column]
        judged = np.isfinite(values)
        return np.where(judged, values, 0.0), judged.astype(np.float64)

    return sums
