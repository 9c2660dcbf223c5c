"""How much of a lineage's chance of a false title each round may take. A pure function.

All tests of a lineage together may err with a chance of α = 1 − confidence. Each round's test takes an equal part of
what is left for the rounds there are to be, and a test that proves its claim has spent nothing: its part is left to
those that follow (Bretz et al. 2009, "A graphical approach to sequentially rejective multiple test procedures", with
equal weights). A part is held back for rounds by which a lineage is extended; each extension gets half of it.
"""

from collections.abc import Sequence
from itertools import pairwise

HELD_BACK = 0.2


def level(alpha: float, planned: Sequence[int], spent: float) -> float:
    """The chance with which the next round's test may err.

    `planned` is how many rounds there were to be as each round began, this one last; `spent` what tests that
    proved nothing have taken.
    """
    extensions = sum(before != after for before, after in pairwise(planned))
    left = alpha * (1 - HELD_BACK * 0.5**extensions) - spent
    return left / (planned[-1] - len(planned) + 1)
