"""What storing an update in fewer bits takes from it, and when that is too much."""

import pytest
import torch

from cluster.rounding import MOST_LOST, Rounding, rounding


def lost(update: float, dtype: torch.dtype) -> Rounding:
    """Of weights around 1 that all move by about so much."""
    torch.manual_seed(0)
    before = {"w": (1 + torch.rand(10_000)).to(torch.bfloat16)}
    after = before["w"].float() + update * (1 + torch.rand(10_000)) * torch.randn(10_000).sign()
    return rounding(before, [("w", after)], dtype)


@pytest.mark.parametrize(
    ("update", "dtype", "low", "high", "stored"),
    [
        (0.0001, torch.bfloat16, 0.999, 1.0, "float32"),  # less than half a step of 1/128: nothing is left
        (0.002, torch.bfloat16, 0.9, 1.1, "float32"),
        (0.05, torch.bfloat16, 0.01, 0.1, "bfloat16"),
        (0.0001, torch.float16, MOST_LOST, 1.0, "float32"),
        (0.05, torch.float16, 0.0, 0.01, "float16"),
        (0.0001, torch.float32, 0.0, 0.0, "float32"),
        (0.0, torch.bfloat16, 0.0, 0.0, "bfloat16"),
    ],
)
def test_small_updates_are_kept_whole(update: float, dtype: torch.dtype, low: float, high: float, stored: str):
    found = lost(update, dtype)
    assert low <= found.lost <= high
    assert found.stored == stored
    assert (found.in_words != "") == (stored != found.dtype)


def test_it_is_said_in_words():
    words = "stored in float32: bfloat16 would lose 92% of what it adds to its seed"
    assert Rounding(dtype="bfloat16", lost=0.92).in_words == words
