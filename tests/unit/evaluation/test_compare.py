"""Paired comparison: a bound errs as often as it says, whatever the shape of the gains, or says that it cannot tell."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from evaluation.compare import FEWEST_GROUPS, MOST_SKEWED, Gain, Tail, gain, typical
from evaluation.results import Array, RowResults
from tests.simulation import SHAPES

ROWS = 200


def models(gains: Array, tokens: Array, group: Array | None = None) -> tuple[RowResults, RowResults]:
    """Two models, the second of which gains so many nats per token in each row."""
    nats = tokens * (3.0 + 0.3 * np.random.default_rng(99).standard_normal(len(tokens)))
    return RowResults(nats, tokens, group=group), RowResults(nats - tokens * gains, tokens, group=group)


def test_a_clear_improvement_is_bounded_away_from_zero():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 50, ROWS).astype(float)
    over, of = models(0.1 + 0.05 * rng.standard_normal(ROWS), tokens)
    found = gain(over, of)
    assert found.mean == pytest.approx(over.loss - of.loss)
    assert 0.09 < found.low(0.05) < found.mean < 0.11
    assert found.low(0.001) < found.low(0.05)
    assert (found.groups, found.doubt) == (ROWS, "")


def test_a_model_gains_exactly_nothing_over_itself():
    over, _ = models(np.zeros(ROWS), np.full(ROWS, 7.0))
    found = gain(over, over)
    assert (found.mean, found.low(0.05), found.standard_error, found.skewness) == (0.0, 0.0, 0.0, 0.0)


def test_without_skewness_the_bound_is_students():
    assert Gain(0.1, 0.02, 0.0, 11).low(0.05) == pytest.approx(0.1 - 1.8125 * 0.02, abs=1e-4)


@pytest.mark.parametrize("skewness", [-3.0, -0.5, -1e-9, 1e-9, 0.5])
def test_halls_bound_is_where_his_transformation_is_normal(skewness: float):
    """The transformation g(u) = √n (u + γu²/3 + γ²u³/27 + γ/6n), of Hall 1992, taken at the bound."""
    found = Gain(1.0, 0.1, skewness, 1_000_000)
    root = math.sqrt(found.groups)
    u = (found.mean - found.low(0.01)) / (found.standard_error * root)
    at = root * (u + skewness * u**2 / 3 + skewness**2 * u**3 / 27 + skewness / (6 * found.groups))
    assert at == pytest.approx(2.3263, abs=2e-3) or (skewness > 0 and at > 2.3263)  # Student's is the lower one then


def test_rows_of_a_group_count_once():
    rng = np.random.default_rng(3)
    gains, tokens = 0.02 + 0.1 * rng.standard_normal(ROWS), np.full(ROWS, 10.0)
    alone = gain(*models(gains, tokens))
    five = np.repeat(np.arange(ROWS), 5)
    together = gain(*models(np.repeat(gains, 5), np.repeat(tokens, 5), five.astype(float)))
    assert together.low(0.05) == pytest.approx(alone.low(0.05))
    assert gain(*models(np.repeat(gains, 5), np.repeat(tokens, 5))).low(0.05) > together.low(0.05)


def test_rows_that_were_cut_away_do_not_count():
    rng = np.random.default_rng(4)
    gains, tokens = 0.1 * rng.standard_normal(ROWS), np.full(ROWS, 10.0)
    cut = np.concatenate([tokens, np.zeros(50)])
    assert gain(*models(np.concatenate([gains, np.ones(50)]), cut)).groups == ROWS


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group", [1, 5])
def test_the_bound_errs_no_more_often_than_it_says(shape: str, group: int):
    """500 comparisons of models that are equal, on 250 groups, at three levels; four standard errors of play."""
    rng, levels, trials = np.random.default_rng(7), (0.05, 0.01, 0.0025), 500
    claims = np.zeros(len(levels))
    for _ in range(trials):
        proving, choosing = (_equal(rng, shape, 250, group) for _ in range(2))
        found = gain(*proving, choosing)
        claims += [not found.doubt and found.low(level) > 0 for level in levels]
    for level, count in zip(levels, claims, strict=True):
        assert count <= trials * level + 4 * math.sqrt(trials * level)


def _equal(rng: np.random.Generator, shape: str, groups: int, size: int) -> tuple[RowResults, RowResults]:
    tokens = rng.integers(5, 60, groups * size).astype(float)
    gains = np.repeat(SHAPES[shape](rng, groups), size) + (size > 1) * 0.3 * rng.standard_normal(groups * size)
    return models(0.15 * gains, tokens, np.repeat(np.arange(groups), size).astype(float))


def test_it_says_where_nothing_can_be_proven():
    rng = np.random.default_rng(5)
    few = gain(*models(1.0 + 0.01 * rng.standard_normal(FEWEST_GROUPS - 1), np.full(FEWEST_GROUPS - 1, 10.0)))
    assert "too few" in few.doubt


def test_where_one_group_is_much_of_the_spread_the_bound_allows_for_others_like_it():
    rng = np.random.default_rng(5)
    gains = 0.1 + 0.01 * rng.standard_normal(ROWS)
    gains[3] = -2.0
    found = gain(*models(gains, np.full(ROWS, 10.0)))
    assert found.worst_unseen == found.worst == pytest.approx(10 * (2.0 + found.mean))
    assert found.low(0.01) < 0.05 < gain(*models(gains + 0.2, np.full(ROWS, 10.0))).low(0.01) + 0.05
    gains[3] = 2.0  # much better on a few is no reason for doubt
    assert not gain(*models(gains, np.full(ROWS, 10.0))).worst_unseen


def test_other_tokens_are_refused():
    a = RowResults(np.ones(3), np.array([1.0, 2.0, 3.0]))
    b = RowResults(np.ones(3), np.array([1.0, 2.0, 4.0]))
    with pytest.raises(ValueError, match="other tokens"):
        gain(a, b)


def tails(*skewness: float, worst: float = 1.0) -> list[Tail]:
    return [Tail(one, worst) for one in skewness]


def test_whoever_leads_a_field_is_at_least_as_skewed_as_that_is_a_small_one_with_those_before_it():
    def skewness(field: list[Tail], earlier: Sequence[Tail] = ()) -> float | None:
        found = typical(field, earlier)
        return None if found is None else found.skewness

    assert skewness(tails(-9.0, -9.0)) is None
    assert skewness(tails(-9.0, -1.0, -2.0)) == -2.0
    assert skewness(tails(1.0), tails(-9.0, -9.0)) == -9.0
    assert skewness(tails(*[1.0] * 8), tails(*[-9.0] * 100)) == 1.0
    assert skewness(tails(1.0), tails(*[1.0] * 7, *[-9.0] * 100)) == 1.0  # the latest are asked
    assert typical([Tail(0.0, 3.0), Tail(1.0, 9.0), Tail(2.0, 1.0)]) == Tail(1.0, 3.0)
    found = Gain(mean=0.1, standard_error=0.02, skewness=-0.5, groups=100)
    assert found.of_a_field(None) == found.of_a_field(Tail(-0.4, 9.0)) == found
    assert found.of_a_field(Tail(-2.0, 9.0)).low(0.01) < found.low(0.01)
    assert not found.of_a_field(Tail(-2.0, 9.0)).unseen(0.01)


def test_of_a_skewed_field_the_bound_allows_for_as_many_bad_rows_as_may_not_have_been_met():
    found = Gain(mean=0.1, standard_error=0.02, skewness=-3.0, groups=100, tokens=1000.0)
    skewed = found.of_a_field(Tail(-2.3, 4.0))
    assert skewed.unseen(0.01) == pytest.approx(4.0 * math.log(100) / 1000)
    assert skewed.low(0.02) == pytest.approx(found.low(0.01) - skewed.unseen(0.01))
    # A kind of rows, one in a hundred, that loses 4 nats: of so many groups all are of another kind with this chance.
    share = math.log(100) / 100
    assert (1 - share) ** 100 < 0.01
    assert share * 4.0 * 100 / 1000 == pytest.approx(skewed.unseen(0.01))


def test_a_gain_far_beyond_what_unseen_rows_could_cost_is_proven():
    """As a first round on a pretrained base: much better on nearly all rows, and long rows lie far from the mean."""
    rng = np.random.default_rng(6)
    tokens = rng.integers(5, 60, ROWS).astype(float)
    field = [models(0.9 - 0.3 * rng.lognormal(0, 1.0, ROWS), tokens) for _ in range(5)]
    tail = typical([gain(*one).tail for one in field])
    assert tail is not None
    assert tail.skewness < MOST_SKEWED
    found = gain(*field[0]).of_a_field(tail)
    assert not found.doubt
    assert 0 < found.low(0.01) < gain(*field[0]).low(0.01)
    assert found._low(0.01) - found.low(0.01) > 0.01
