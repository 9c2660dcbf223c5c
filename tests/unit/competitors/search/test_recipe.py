"""A search in a config: what is refused, and the recipe of a trial."""

from typing import Any

import pytest
from pydantic import ValidationError

from competitors.search.coordinator import drawn
from tests.unit.competitors.search.making import RATES, recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": {"learning_rat": [1e-3]}}, 'space: unknown key "learning_rat"; did you mean "learning_rate"?'),
        ({"space": {"adapter.rnk": [1]}}, 'space: unknown key "adapter.rnk"; did you mean "adapter.rank"?'),
        ({"space": {"resources.gpus": [1]}}, 'space: unknown key "resources.gpus"'),
        ({"space": {"name": ["a"]}}, 'space: unknown key "name"'),
        ({"space": {}}, "at least 1 item"),
        ({"space": {"learning_rate": []}}, "at least 1 item"),
        ({"space": {"learning_rate": {"low": 0.1, "high": 0.01}}}, "low (0.1) has to be below high (0.01)"),
        ({"space": {"learning_rate": {"low": 0, "high": 0.1, "log": True}}}, "low (0) has to be above 0"),
        ({"space": {"learning_rate": {"low": 0, "hihg": 1}}}, 'unknown key "hihg"; did you mean "high"?'),
        ({"space": {"learning_rate": 1e-3}}, "valid dictionary"),
        (
            {"space": {"learning_rate": {"low": -1, "high": 0.1}}},
            "space.learning_rate: -1 does not fit: Input should be greater than 0",
        ),
        (
            {"space": RATES | {"optimizer": ["adamw_torch", "adam"]}},
            "space.optimizer: 'adam' does not fit: unknown optimizer \"adam\"",
        ),
        ({"recipe": {"adapter": {"method": "lora"}}, "space": {"adapter.rank": [2, 0]}}, "recipe.learning_rate: this"),
        (
            {"recipe": {"adapter": {"method": "lora"}}, "space": RATES | {"adapter.rank": [2, 0]}},
            "space.adapter.rank: 0 does not fit",
        ),
        ({"space": RATES | {"adapter.rank": [2]}}, "recipe.adapter.method: this key is required"),
        ({"space": RATES | {"adapter": ["none"], "adapter.rank": [2]}}, "adapter.rank is a part of adapter"),
        ({"recipe": {"scedule": "cosine"}}, 'recipe: unknown key "scedule"; did you mean "schedule"?'),
        ({"recipe": {"resources": {"gpus": 1}}}, "recipe.resources: resources belongs to the search itself"),
        ({"recipe": {"deepspeed": "zero2"}}, "a trial is one process"),
        ({"resources": {"cpus": 0}}, "resources.cpus"),
        ({"trials": 1}, "greater than or equal to 2"),
    ],
)
def test_what_is_wrong_is_said_when_the_config_is_read(settings: dict[str, Any], message: str):
    with pytest.raises(ValidationError) as error:
        recipe(**settings)
    assert message in str(error.value)


def test_a_trial_is_the_recipe_with_its_own_values():
    search = recipe(
        recipe={"adapter": {"method": "dora"}, "batch_size": 4},
        space=RATES | {"adapter.rank": {"low": 2, "high": 8}, "optimizer_args.foo": ["x", "y"]},
        resources={"workers": 3, "cpus": 2},
    )
    made = search.made({"learning_rate": 0.01, "adapter.rank": 4, "optimizer_args.foo": "y"})
    assert (made.learning_rate, made.batch_size, made.optimizer_args) == (0.01, 4, {"foo": "y"})
    assert made.adapter is not None
    assert (made.adapter.method, made.adapter.rank) == ("dora", 4)
    assert (made.resources.workers, made.resources.cpus) == (1, 2)
    assert search.is_gang
    assert search.recipe == {"adapter": {"method": "dora"}, "batch_size": 4}
    assert recipe(space=RATES | {"batch_size": [4, 8]}).made({"learning_rate": 1, "batch_size": 8}).batch_size == 8
    # A choice is drawn by its place, so that its values may be anything.
    search = recipe(space=RATES | {"adapter": ["none", {"method": "lora"}]})
    assert drawn(search, {"learning_rate": 0.5, "adapter": 1}) == {"learning_rate": 0.5, "adapter": {"method": "lora"}}


def test_only_a_search_without_a_trial_for_a_cpu_needs_a_gpu():
    assert recipe(space=RATES | {"liger": [True, False]}).needs_gpu is None
    assert recipe(recipe={"liger": True}).needs_gpu == "liger: its kernels need a GPU"


def test_trials_need_no_folder_that_all_of_them_see():
    assert not recipe(resources={"workers": 3, "gpus": 0}).shape(has_gpus=False).one_folder
