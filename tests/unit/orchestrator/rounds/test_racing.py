"""Who is out of a race, and what of a checkpoint is looked at."""

import pytest

from orchestrator.rounds.racing import is_out, rank_at


def test_who_is_out_of_a_race():
    assert not is_out(5.0, [], keep=0.5)  # the first one at a rung goes on
    assert is_out(5.0, [4.0], keep=0.5)
    assert not is_out(3.0, [4.0], keep=0.5)
    assert not is_out(5.0, [4.0, 6.0], keep=0.5)  # the better two of three
    assert is_out(float("nan"), [4.0, 5.0], keep=0.5)
    assert not is_out(5.0, [float("nan")], keep=0.5)


@pytest.mark.parametrize(("loss", "others", "place"), [(1.0, [], 1), (1.0, [1.0], 1), (2.0, [1.0, 3.0], 2)])
def test_places_at_a_rung(loss: float, others: list[float], place: int):
    assert rank_at(loss, others) == place
