"""A failure in words."""

import pytest

from cluster.errors import Forfeit
from competitors.failure_words import describe


class OutOfMemoryError(RuntimeError):
    """As torch calls it."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Forfeit("its own words\nand more"), "its own words"),
        (ValueError("bad\nsecond line"), "raised ValueError: bad"),
        (KeyError(), "raised KeyError"),
        (MemoryError(), "ran out of memory"),
        (OutOfMemoryError("CUDA out of memory. Tried to"), "ran out of memory: CUDA out of memory. Tried to"),
    ],
)
def test_one_line_on_what_was_raised(error: BaseException, words: str):
    assert describe(error) == words
