"""Recipes by their runs: the interval is Welch's over runs and Student's over rows, and errs as rarely as it says."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind

from evaluation.repeats import difference
from evaluation.results import Array, RowResults

ROWS = 200
BASIS = 3.0 + 0.3 * np.random.default_rng(7).standard_normal(ROWS)
"""How hard each row is for everybody."""


def runs(losses: Array, on_rows: Array | float = 0.0) -> list[RowResults]:
    """Runs of these losses (runs,), which differ from what is hard for everybody by `on_rows` (runs, rows)."""
    per_row = BASIS - BASIS.mean() + losses[:, None] + on_rows
    tokens = np.full(ROWS, 10.0)
    return [RowResults(tokens * row, tokens) for row in per_row]


def test_where_recipes_take_to_all_rows_alike_the_interval_is_welchs():
    one, other = np.array([3.01, 3.03, 2.99, 3.02]), np.array([2.95, 3.0])
    found = difference(runs(one), runs(other), 0.05)
    asked = ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert (found.mean, found.low, found.high) == pytest.approx((one.mean() - other.mean(), asked.low, asked.high))


def test_where_runs_do_not_differ_it_is_students_over_the_rows():
    gained = 0.1 * np.random.default_rng(1).standard_normal(ROWS)
    found = difference(runs(np.full(3, 3.0), gained), runs(np.full(2, 3.0)), 0.05)
    asked = ttest_1samp(gained, 0).confidence_interval(0.95)
    assert (found.mean, found.low, found.high) == pytest.approx((gained.mean(), asked.low, asked.high))


@pytest.mark.parametrize(
    ("of_runs", "of_recipes", "of_both"),
    [(0.01, 0.0, 0.0), (0.005, 0.15, 0.0), (0.0, 0.0, 0.1), (0.005, 0.1, 0.1)],
    ids=["runs", "recipes on rows", "runs on rows", "all"],
)
@pytest.mark.parametrize("count", [2, 8])
def test_two_recipes_that_are_equal_are_told_apart_as_rarely_as_asked(
    of_runs: float, of_recipes: float, of_both: float, count: int
):
    rng = np.random.default_rng(11)
    trials, wrong, by_welch = 200, 0, 0
    for _ in range(trials):
        losses = 3.0 + of_runs * rng.standard_normal((2, count))
        rows = of_recipes * rng.standard_normal((2, 1, ROWS)) + of_both * rng.standard_normal((2, count, ROWS))
        one, other = (runs(*both) for both in zip(losses, rows, strict=True))
        found = difference(one, other, 0.05)
        wrong += not found.low <= 0 <= found.high
        by_welch += ttest_ind([r.loss for r in one], [r.loss for r in other], equal_var=False).pvalue < 0.05
    assert wrong <= 0.05 * trials + 7  # the standard deviation of that count is 3.1
    if of_recipes and count == 8:  # runs alone say nothing of other rows
        assert by_welch > 0.25 * trials


def test_groups_are_counted_and_few_of_them_prove_nothing():
    rng = np.random.default_rng(2)
    alike = np.repeat(0.1 * rng.standard_normal(ROWS // 10), 10)
    one, other = runs(np.full(2, 3.1), alike), runs(np.full(2, 3.0))
    many = difference(one, other, 0.05)
    few = difference([run.grouped(np.arange(ROWS) // 10.0) for run in one], other, 0.05)
    assert few.high - few.low > 2 * (many.high - many.low)
    assert (many.doubt, few.doubt) == ("", "20 different prompts are too few, 50 are needed")


def test_models_of_other_tokenizers_are_not_compared():
    one = runs(np.array([3.0, 3.1]))
    odd = RowResults(one[1].nats, one[1].tokens + 1)
    with pytest.raises(ValueError, match="scored on other tokens"):
        difference([one[0], odd], one, 0.05)
    with pytest.raises(ValueError, match="scored on other tokens"):
        difference([odd, odd], one, 0.05)
