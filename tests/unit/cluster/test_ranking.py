"""Who comes first."""

import itertools
import math

from cluster.ranking import ranked


def test_lowest_loss_first_then_by_name_and_what_is_no_number_last():
    losses = {"b": 1.0, "a": 1.0, "worst": math.inf, "nan": math.nan, "best": 0.5, "also nan": math.nan}
    for order in itertools.permutations(losses):
        assert ranked({name: losses[name] for name in order}) == ["best", "a", "b", "worst", "also nan", "nan"]
