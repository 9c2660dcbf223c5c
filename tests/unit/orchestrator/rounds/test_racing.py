"""Who is out of a race, and what of a checkpoint is looked at."""

from typing import Any

import pytest

from orchestrator.config.sections import Racing
from orchestrator.field.roster import Roster
from orchestrator.rounds.racing import is_out, racing_in, rank_at


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


@pytest.mark.parametrize(("phase", "races"), [("explore", True), ("race", True), ("climb", False), ("line", False)])
def test_what_goes_on_from_a_race_does_not_race_again(phase: Any, races: bool):
    rules = Racing(at=[0.5], keep=0.5)
    roster = Roster(lineage="l", round=1, phase=phase, entries=[])
    assert racing_in(roster, rules) == (rules if races else None)
    assert racing_in(roster, None) is None
