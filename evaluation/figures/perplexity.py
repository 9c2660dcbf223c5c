"""Perplexity: the exponential of the loss, among how many tokens the model is undecided."""

import math

from evaluation.figures import loss
from evaluation.figures.figure import Figure

LARGEST_EXPONENT = 700.0
"""exp of more is no float64 any more."""


def of_loss(mean: float) -> float:
    """exp(loss)."""
    return math.exp(min(mean, LARGEST_EXPONENT))


FIGURE = Figure("perplexity", "perplexity", "", "lower", loss.sums, ".2f", of_mean=of_loss)
