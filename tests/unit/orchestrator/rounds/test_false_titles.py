"""The chance of any false title in a lineage is at most 1 − confidence; and titles that are due are given."""

from itertools import product
from math import sqrt

import pytest

from tests.simulation import SHAPES, Setup, false_titles


def at_most(trials: int, chance: float) -> float:
    """So many of `trials` may happen where each has this chance; three standard errors of play."""
    return trials * chance + 3 * sqrt(trials * chance)


@pytest.mark.parametrize(
    "setup",
    [
        Setup(entries=4, rounds=5),
        pytest.param(Setup(entries=16, rounds=20), marks=pytest.mark.slow),
        Setup(entries=4, rounds=20, shape="very skewed"),
        Setup(entries=4, rounds=20, shape="skewed", group=5, rows=300),
        Setup(entries=4, rounds=20, shape="heavy tails", seed_rule="champion"),
        Setup(entries=16, rounds=20, shape="very skewed", rows=150, seed_rule="champion"),
        Setup(entries=1, rounds=50, shape="skewed", rows=150, seed_rule="champion"),
        Setup(entries=4, rounds=20, true_gains=(0.1, 0.05, 0.05)),
    ],
    ids=str,
)
def test_false_titles_of_a_lineage(setup: Setup):
    false = sum(false_titles(setup, seed)[0] > 0 for seed in range(100))
    assert false <= at_most(100, 1 - setup.confidence)


@pytest.mark.parametrize("shape", ["normal", "as skewed as real ones"])
def test_titles_that_are_due_are_given(shape: str):
    setup = Setup(entries=4, rounds=4, shape=shape, true_gains=(0.1, 0.05, 0.05, 0.05))
    assert sum(false_titles(setup, seed)[1] for seed in range(50)) > 0.9 * 50 * 4


@pytest.mark.slow
@pytest.mark.parametrize("seed_rule", ["winner", "champion"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("entries", "rounds"), product((1, 4, 16, 64), (1, 5, 20, 50)))
def test_false_titles_of_every_kind_of_lineage(entries: int, rounds: int, shape: str, seed_rule: str):
    setup = Setup(entries, rounds, shape, rows=150, seed_rule=seed_rule)
    trials = 200
    false = sum(false_titles(setup, seed)[0] > 0 for seed in range(trials))
    print(f"{setup}: {false / trials:.1%}")
    assert false <= at_most(trials, 1 - setup.confidence)
