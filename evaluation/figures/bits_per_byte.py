"""Bits per byte of UTF-8 completion text: comparable across tokenizers, as the loss per token is not.

Rows whose completion was cut away count in neither sum.
"""

import math

import numpy as np

from evaluation.figures.figure import Figure
from evaluation.results import RowResults


def compute(results: RowResults) -> float:
    """The nats of the split as bits, by its bytes."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        return float(results.nats.sum() / math.log(2) / results.bytes[results.tokens > 0].sum())


FIGURE = Figure("bits_per_byte", "bits/byte", "bits/byte", "lower", compute, ".4f")
