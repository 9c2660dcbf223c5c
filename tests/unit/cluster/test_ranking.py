"""Who comes first."""

import itertools
import math

from cluster.ranking import ranked


def test_lowest_loss_first_then_as_they_stand_and_what_is_no_number_last():
    losses = {"b": 1.0, "a": 1.0, "worst": math.inf, "nan": math.nan, "best": 0.5, "also nan": math.nan}
    for order in itertools.permutations(losses):
        equal, no_number = ([name for name in order if name in some] for some in (("a", "b"), ("nan", "also nan")))
        assert ranked({name: losses[name] for name in order}) == ["best", *equal, "worst", *no_number]
