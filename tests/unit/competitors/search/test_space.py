"""What a search may vary."""

import pytest
from pydantic import ValidationError

from competitors.search.space import Range, corners, put, refuse_unknown


def test_a_range_is_in_order_and_whole_where_its_ends_are():
    assert Range(low=1, high=4).is_whole
    assert not Range(low=1, high=4.0).is_whole
    assert corners(Range(low=1, high=4)) == [1, 4]
    assert corners(["a", "b", "c"]) == ["a", "b", "c"]
    for low, high, log in ((2, 1, False), (1, 1, False), (-1, 1, True)):
        with pytest.raises(ValidationError):
            Range(low=low, high=high, log=log)


def test_values_are_put_where_their_keys_say_and_the_rest_is_kept():
    settings = {"adapter": {"method": "lora", "rank": 2}, "batch_size": 4}
    made = put(settings, {"adapter.rank": 8, "optimizer_args.foo": 1, "batch_size": 2})
    assert made == {"adapter": {"method": "lora", "rank": 8}, "batch_size": 2, "optimizer_args": {"foo": 1}}
    assert settings == {"adapter": {"method": "lora", "rank": 2}, "batch_size": 4}


@pytest.mark.parametrize("key", ["learning_rat", "name", "resources.gpus", "adapter.rnk"])
def test_keys_that_no_recipe_has_are_refused(key: str):
    with pytest.raises(ValueError, match=f'unknown key "{key}"'):
        refuse_unknown({key: [1]})


def test_a_key_and_a_part_of_it_are_refused_together():
    refuse_unknown({"adapter.rank": [1], "optimizer_args.anything": [1]})
    with pytest.raises(ValueError, match=r"adapter\.rank is a part of adapter"):
        refuse_unknown({"adapter": [1], "adapter.rank": [1]})
