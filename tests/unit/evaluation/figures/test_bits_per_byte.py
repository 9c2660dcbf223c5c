"""Bits per byte counts the bytes of what was scored."""

import math

import numpy as np
import pytest

from evaluation.figures.bits_per_byte import FIGURE
from evaluation.results import RowResults


def test_rows_that_count_no_token_count_no_byte():
    results = RowResults(np.array([0.0, 6.0]), np.array([0.0, 2.0]), np.array([9.0, 4.0]))
    assert FIGURE.compute(results) == pytest.approx(6 / math.log(2) / 4)


@pytest.mark.filterwarnings("error")
def test_no_bytes_have_no_figure():
    assert math.isnan(FIGURE.compute(RowResults(np.zeros(1), np.zeros(1))))
