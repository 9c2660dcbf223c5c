"""Short data: how long lines are, how many, and what is blended."""

import pytest

from competitors.sft.recipe import SftRecipe
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.field.short_data import batch_of_a_line, lengths, soups
from orchestrator.field.whole_budget import Past

TRUNK = ModelRef("a", 1)


def lines(number: int, losses: dict[str, float], passes: list[float]) -> Past:
    """A round of lines of so many passes of 1,000 tokens."""
    entries = [RosterEntry(recipe=SftRecipe(name=name, kind="sft", learning_rate=1e-3)) for name in losses]
    roster = Roster(lineage="l", round=number, phase="lines", entries=entries)
    tokens = {name: int(1000 * length) for name, length in zip(losses, passes, strict=True)}
    scored = {name: loss for name, loss in losses.items() if loss < 9}
    return Past(roster, scored, TRUNK, (), {name: float(count) for name, count in tokens.items()}, tokens, {})


@pytest.mark.parametrize(
    ("rows", "at_least", "batch"), [(210, 1, 4), (420, 1, 4), (700, 1, 7), (5000, 1, 16), (20, 1, 1), (210, 8, 8)]
)
def test_a_pass_has_its_steps(rows: int, at_least: int, batch: int):
    assert batch_of_a_line(rows, at_least) == batch


def test_first_one_line_of_each_length_then_the_rest_at_the_best_of_them_then_soups():
    assert lengths(11.0, 4, []) == [1, 2, 3]
    tried = lines(2, {"x": 2.9, "y": 2.8, "z": 2.85}, [1, 2, 3])
    assert lengths(5.0, 3, [tried]) == [2.5, 2.5]
    more = lines(3, {"u": 2.7, "v": 2.7}, [2, 2])
    assert lengths(0.4, 2, [tried, more]) == []
    assert lengths(5.0, 1, [tried]) == []


@pytest.mark.parametrize(
    ("left", "rounds_left", "expected"),
    [
        (11.0, 2, [11 / 6] * 6),  # no round to try lengths in
        (11.0, 1, [2.7]),  # and none for soups either
        (3.0, 4, [1.5, 1.5]),  # two lines at least
        (100.0, 2, [2.5] * 8),
        (5.0, 4, [2.5] * 2),  # too little for all three lengths
    ],
)
def test_how_many_lines(left: float, rounds_left: int, expected: list[float]):
    assert lengths(left, rounds_left, []) == expected


def test_a_length_that_was_not_scored_is_not_the_best():
    tried = lines(2, {"x": 2.9, "y": 9.9, "z": 9.9}, [1, 2, 3])
    assert lengths(2.0, 2, [tried]) == [1, 1]


def test_lines_of_one_length_say_nothing_of_others():
    before = lines(2, {"x": 2.8, "y": 2.9}, [2, 2])
    assert lengths(4.0, 2, [before]) == [2, 2]


def test_soups_are_of_the_best_and_all_of_them_are_entered():
    first, second = lines(2, {"x": 2.9, "y": 2.8, "z": 9.9}, [1, 2, 3]), lines(3, {"u": 2.7}, [2])
    assert [soup.of for soup in soups([first, second])] == [["u", "y"], ["u", "y", "x"]]
    assert soups([lines(2, {"x": 2.9}, [1])]) == []
