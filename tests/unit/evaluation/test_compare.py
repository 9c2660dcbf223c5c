"""The paired bootstrap: its bounds hold as often as they say, also for the best of many."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from evaluation.compare import improvements
from evaluation.results import RowResults

ROWS = 200


def losses(rng: np.random.Generator, tokens: np.ndarray, mean: float, noise: float) -> RowResults:
    return RowResults(tokens * (mean + noise * rng.standard_normal(len(tokens))), tokens)


def test_a_clear_improvement_is_bounded_away_from_zero():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 50, ROWS).astype(float)
    incumbent = losses(rng, tokens, 3.0, 0.3)
    entry = RowResults(incumbent.nats - 0.1 * tokens + 0.2 * rng.standard_normal(ROWS), tokens)
    gain = improvements(incumbent, {"a": entry}, 0.95, 1000, 1)["a"]
    assert gain.mean == pytest.approx(incumbent.loss - entry.loss)
    assert 0.09 < gain.low < gain.mean < 0.11


def test_the_incumbent_itself_gains_exactly_nothing():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 50, ROWS).astype(float)
    incumbent = losses(rng, tokens, 3.0, 0.3)
    gain = improvements(incumbent, {"same": incumbent}, 0.95, 500, 1)["same"]
    assert (gain.mean, gain.low, gain.standard_error) == (0.0, 0.0, 0.0)


def test_a_seed_repeats_the_bounds_and_the_order_of_entries_does_not_matter():
    rng = np.random.default_rng(3)
    tokens = np.full(ROWS, 10.0)
    incumbent = losses(rng, tokens, 3.0, 0.3)
    entries = {name: losses(rng, tokens, 2.98, 0.3) for name in "abc"}
    once = improvements(incumbent, entries, 0.95, 500, 7)
    turned = improvements(incumbent, dict(reversed(entries.items())), 0.95, 500, 7)
    assert once["a"].low == pytest.approx(turned["a"].low, abs=1e-12)
    assert once["a"].low != improvements(incumbent, entries, 0.95, 500, 8)["a"].low


def binomial_interval(trials: int, rate: float, coverage: float) -> tuple[int, int]:
    """The counts between which a binomial one falls with at least this chance, the rest halved to both sides."""
    chances = np.cumsum([math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(trials + 1)])
    tail = (1 - coverage) / 2
    return int(np.searchsorted(chances, tail)), int(np.searchsorted(chances, 1 - tail))


@pytest.mark.parametrize("confidence", [0.95, 0.8])
@pytest.mark.parametrize("entries", [1, 8])
def test_the_bound_errs_as_often_as_it_says_neither_more_nor_less(entries: int, confidence: float):
    """400 rounds in which nobody is better than the incumbent, gains normal: somebody's bound clears zero in 5 %."""
    false_claims = uncorrected = 0
    normal_bound = NormalDist().inv_cdf(confidence)
    for seed in range(400):
        rng = np.random.default_rng(seed)
        tokens = rng.integers(5, 50, 150).astype(float)
        incumbent = losses(rng, tokens, 3.0, 0.3)
        found = improvements(
            incumbent, {str(i): losses(rng, tokens, 3.0, 0.3) for i in range(entries)}, confidence, 400, seed
        )
        false_claims += max(gain.low for gain in found.values()) > 0
        uncorrected += max(gain.mean - normal_bound * gain.standard_error for gain in found.values()) > 0
    low, high = binomial_interval(400, 1 - confidence, coverage=0.99)
    assert low <= false_claims <= high
    assert (low <= uncorrected <= high) == (entries == 1)  # it takes the correction to get there


def test_the_interval_of_a_fair_coin():
    assert binomial_interval(400, 0.05, 0.99) == (10, 32)
    assert binomial_interval(400, 0.5, 0.95) == (180, 220)


def test_a_diverged_entry_does_not_hide_a_good_one():
    rng = np.random.default_rng(5)
    tokens = np.full(ROWS, 10.0)
    incumbent = losses(rng, tokens, 3.0, 0.3)
    good = RowResults(incumbent.nats - 0.05 * tokens + 0.1 * rng.standard_normal(ROWS), tokens)
    diverged = losses(rng, tokens, 50.0, 20.0)
    alone = improvements(incumbent, {"good": good}, 0.95, 1000, 1)["good"]
    beside = improvements(incumbent, {"good": good, "diverged": diverged}, 0.95, 1000, 1)["good"]
    assert beside.low > 0.9 * alone.low > 0


def test_other_tokens_are_refused():
    a = RowResults(np.ones(3), np.array([1.0, 2.0, 3.0]))
    b = RowResults(np.ones(3), np.array([1.0, 2.0, 4.0]))
    with pytest.raises(ValueError, match="other tokens"):
        improvements(a, {"b": b}, 0.95, 300, 0)
