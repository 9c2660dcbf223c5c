"""What was entered, withdrawn and extended, and from which round on it counts."""

import pytest
from pydantic import ValidationError

from competitors.unchanged import UnchangedRecipe
from orchestrator.field.changes import Change, rounds_in_all, with_changes
from orchestrator.field.roster import RosterEntry


def recipe(name: str) -> UnchangedRecipe:
    return UnchangedRecipe(name=name, kind="unchanged")


FIELD = [RosterEntry(recipe=recipe("a")), RosterEntry(recipe=recipe("b"))]


def names(entries: list[RosterEntry]) -> list[str]:
    return [entry.recipe.name for entry in entries]


def test_a_change_counts_in_its_round_alone():
    changes = [Change(from_round=2, enter=[recipe("c"), recipe("a")]), Change(from_round=2, withdraw="b")]
    assert with_changes(FIELD, changes, 1) == (FIELD, [])
    entries, said = with_changes(FIELD, changes, 2)
    assert names(entries) == ["a", "c"]  # a was there
    assert (entries[1].made_by, entries[1].since) == ("entered", 2)
    assert said == ["c was entered.", "b was withdrawn."]
    assert with_changes(FIELD, changes, 3) == (FIELD, [])


def test_a_field_is_never_empty_and_nobody_leaves_it_twice():
    changes = [Change(from_round=1, withdraw=name) for name in ("nobody", "a", "b")]
    entries, said = with_changes(FIELD, changes, 1)
    assert (names(entries), said) == (["b"], ["a was withdrawn."])


def test_rounds_are_added_up_as_of_a_round():
    changes = [Change(from_round=2, extend=3), Change(from_round=4, extend=1)]
    assert [rounds_in_all(5, changes, as_of) for as_of in (1, 2, 4, None)] == [5, 8, 9, 9]


@pytest.mark.parametrize("wrong", [{}, {"withdraw": "a", "extend": 1}, {"extend": 0}])
def test_a_change_is_one_of_three(wrong: dict[str, object]):
    with pytest.raises(ValidationError):
        Change.model_validate({"from_round": 1, **wrong})
