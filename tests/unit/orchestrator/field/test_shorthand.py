"""Clones and series are written out before anything else looks at the competitors."""

from typing import Any

import pytest

from cluster.errors import UserError
from orchestrator.field.shorthand import expand

BASE: dict[str, Any] = {"name": "a", "kind": "sft", "learning_rate": 1e-4, "adapter": {"method": "lora", "rank": 8}}


def test_a_clone_is_its_original_and_what_differs():
    clone = expand([BASE, {"name": "b", "like": "a", "adapter": {"rank": 16}}])[1]
    assert clone == BASE | {"name": "b", "adapter": {"method": "lora", "rank": 16}}


def test_a_clone_of_a_clone_and_of_one_that_competes_already():
    items = [{"name": "c", "like": "b", "batch_size": 2}, {"name": "b", "like": "a", "adapter": "none"}]
    assert expand(items, {"a": BASE})[0] == BASE | {"name": "c", "adapter": "none", "batch_size": 2}


def test_a_series_enters_one_for_each_combination():
    item = BASE | {
        "learning_rate": {"each": [1e-4, 2e-4]},
        "adapter": {"method": {"each": ["lora", "dora"]}, "rank": 8},
    }
    entered = expand([item])
    assert [e["name"] for e in entered] == ["a-0.0001-lora", "a-0.0001-dora", "a-0.0002-lora", "a-0.0002-dora"]
    assert entered[3]["learning_rate"] == 2e-4
    assert entered[3]["adapter"] == {"method": "dora", "rank": 8}


def test_a_series_of_clones():
    entered = expand([BASE, {"name": "hot", "like": "a", "learning_rate": {"each": [1, 2]}}])
    assert [(e["name"], e["learning_rate"]) for e in entered[1:]] == [("hot-1", 1), ("hot-2", 2)]


def test_a_recipe_is_repeated_under_names_of_its_own():
    runs = expand([BASE | {"repeats": 3}, BASE | {"name": "once", "repeats": 1}])
    assert runs[:3] == [BASE | {"name": f"a-{number}", "repeat_of": "a"} for number in (1, 2, 3)]
    assert runs[3:] == [BASE | {"name": "once"}]


def test_each_of_a_series_is_repeated_and_so_is_a_clone_unless_it_says_otherwise():
    series = BASE | {"learning_rate": {"each": [1, 2]}, "repeats": 2}
    expanded = expand(
        [series, {"name": "b", "like": "a", "learning_rate": 3}, {"name": "c", "like": "b", "repeats": 1}]
    )
    assert [(e["name"], e.get("repeat_of"), e["learning_rate"]) for e in expanded] == [
        ("a-1-1", "a-1", 1),
        ("a-1-2", "a-1", 1),
        ("a-2-1", "a-2", 2),
        ("a-2-2", "a-2", 2),
        ("b-1", "b", 3),
        ("b-2", "b", 3),
        ("c", None, 3),
    ]


def test_a_clone_of_one_run_is_none_itself():
    runs = expand([BASE | {"repeats": 2}])
    clone = expand([{"name": "hot", "like": "a-2", "learning_rate": 1}], {run["name"]: run for run in runs})[0]
    assert clone == BASE | {"name": "hot", "learning_rate": 1}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"name": "b", "like": "aa"}, BASE], 'competitors[b].like: no competitor "aa"; did you mean "a"?'),
        ([{"name": "b", "like": "b"}], "competitors[b].like: b is like itself"),
        ([{"name": "b", "like": "c"}, {"name": "c", "like": "b"}], "is like itself"),
        ([{"like": "a"}, BASE], "the entry that is like a needs a name of its own"),
        ([BASE | {"learning_rate": {"each": 3}}], "competitors[a].learning_rate.each: give a list of values"),
        ([BASE | {"learning_rate": {"each": []}}], "competitors[a].learning_rate.each: give a list of values"),
        ([BASE | {"repeats": 17}], "competitors[a].repeats: give a whole number from 1 to 16, not 17"),
        ([BASE | {"repeats": 0}], "competitors[a].repeats: give a whole number from 1 to 16, not 0"),
        ([BASE | {"repeats": "3"}], "competitors[a].repeats: give a whole number from 1 to 16, not 3"),
        ([BASE | {"repeats": True}], "competitors[a].repeats: give a whole number from 1 to 16, not True"),
    ],
)
def test_what_cannot_be_written_out_is_one_line(items: list[Any], message: str):
    with pytest.raises(UserError) as error:
        expand(items)
    assert message in str(error.value)


def test_what_is_no_mapping_is_left_to_the_config_to_refuse():
    assert expand(["a", 3]) == ["a", 3]
