"""Perplexity: the exponential of the loss, among how many tokens the model is undecided."""

import math

from evaluation.figures.figure import Figure
from evaluation.results import RowResults

LARGEST_EXPONENT = 700.0
"""exp of more is no float64 any more."""


def compute(results: RowResults) -> float:
    """exp(loss)."""
    return math.exp(min(results.loss, LARGEST_EXPONENT))


FIGURE = Figure("perplexity", "perplexity", "", "lower", compute, ".2f")
