"""Bits per byte of UTF-8 completion text: comparable across tokenizers, as the loss per token is not.

Rows whose completion was cut away count in neither sum.
"""

import math

import numpy as np

from evaluation.figures.figure import Figure
from evaluation.results import Array, RowResults


def sums(results: RowResults) -> tuple[Array, Array]:
    """A row's nats as bits, and its bytes."""
    return results.nats / math.log(2), np.where(results.tokens > 0, results.bytes, 0.0)


FIGURE = Figure("bits_per_byte", "bits/byte", "bits/byte", "lower", sums, ".4f")
