"""A soup in a config."""

from typing import Any

import pytest
from pydantic import ValidationError

from competitors.soup.recipe import SoupRecipe


def recipe(**settings: Any) -> SoupRecipe:
    return SoupRecipe.model_validate({"name": "s", "kind": "soup"} | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"best": 2, "method": "greedy"}, "best: goes with method uniform, not greedy"),
        ({"best": 1}, "greater than or equal to 2"),
        ({"of": ["one"]}, "at least 2 items"),
        ({"density": 0}, "greater than 0"),
        ({"method": "mean"}, "Input should be 'uniform'"),
        ({"methd": "greedy"}, 'unknown key "methd"; did you mean "method"?'),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValidationError) as raised:
        recipe(**settings)
    assert message in str(raised.value)


def test_what_it_says_of_itself():
    assert [recipe(**s).chooses for s in ({}, {"best": 2}, {"method": "greedy"}, {"method": "ties"})] == [
        False, True, True, False,
    ]  # fmt: skip
    assert not recipe().trains
    assert recipe(best=2).summary == "uniform of the best 2 of all"
    assert recipe(of=["a", "b"], method="greedy").summary == "greedy of a, b"
