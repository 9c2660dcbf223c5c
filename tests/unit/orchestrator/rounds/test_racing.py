"""Who is out of a race, and what of a checkpoint is looked at."""

import pytest

from competitors.sft.recipe import SftRecipe
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.rounds.racing import LARGE_RACE, is_out, racing_in, rank_at


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


def test_a_large_race_is_halved_unless_that_would_leave_the_better_runs_of_a_recipe():
    def race(count: int, repeats: str | None = None) -> Roster:
        recipes = [SftRecipe(name=f"r-{i}", kind="sft", learning_rate=1, repeat_of=repeats) for i in range(count)]
        return Roster(lineage="l", round=1, phase="race", entries=[RosterEntry(recipe=recipe) for recipe in recipes])

    assert racing_in(race(9), None) == LARGE_RACE
    assert racing_in(race(8), None) is None
    assert racing_in(race(9, "r"), None) is None
