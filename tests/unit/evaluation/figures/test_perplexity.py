"""Perplexity is the exponential of the loss."""

import math

import numpy as np
import pytest

from evaluation.figures.perplexity import FIGURE
from evaluation.results import RowResults


@pytest.mark.parametrize(("loss", "expected"), [(0.0, 1.0), (2.0, math.exp(2)), (1e9, math.exp(700))])
def test_perplexity(loss: float, expected: float):
    assert FIGURE.compute(RowResults(np.array([3 * loss]), np.array([3.0]))) == pytest.approx(expected)
