"""How the chance of a false title is spread over a lineage's rounds."""

import pytest

from orchestrator.field.spending import HELD_BACK, level

ALPHA = 0.05


def spend(planned: list[int], titles: list[bool]) -> list[float]:
    """The levels of so many rounds, in which a title was proven or not."""
    levels, spent = [], 0.0
    for number, title in enumerate(titles, 1):
        levels.append(level(ALPHA, planned[:number], spent))
        spent += 0.0 if title else levels[-1]
    return levels


def test_without_titles_every_round_takes_the_same_and_all_together_no_more_than_there_is():
    levels = spend([5] * 5, [False] * 5)
    assert levels == pytest.approx([ALPHA * (1 - HELD_BACK) / 5] * 5)
    assert sum(spend([1], [False])) < ALPHA


def test_a_test_that_proves_its_claim_has_spent_nothing():
    levels = spend([5] * 5, [True, True, False, False, False])
    assert levels[0] < levels[1] < levels[2] == pytest.approx(levels[4])
    assert sum(levels[2:]) == pytest.approx(ALPHA * (1 - HELD_BACK))


@pytest.mark.parametrize("planned", [[5] * 5 + [10] * 5 + [12] * 2, [2] * 2 + [4] * 2 + [6] * 2 + [8] * 2])
def test_extensions_go_on_spending_what_is_left(planned: list[int]):
    levels = spend(planned, [False] * len(planned))
    assert all(value > 0 for value in levels)
    assert sum(levels) < ALPHA


def test_an_extension_before_the_end_spreads_what_is_left_over_more_rounds():
    levels = spend([4, 4, 8, 8, 8, 8, 8, 8], [False] * 8)
    assert 0 < levels[2] < levels[1]
    assert sum(levels) < ALPHA
