"""The budget's meter and the learning rate that follows from it."""

import numpy as np
import pytest

from cluster.errors import Forfeit
from competitors.contract import Allowance
from competitors.sft.budget import VIRTUAL_STEPS, Meter, rate_factor, remainder, share_out

TOKENS_AFTER = np.array([0, 100, 200, 300, 400])


def linear(step: int) -> float:
    return 1 - step / VIRTUAL_STEPS


def test_tokens_are_spent_by_the_last_whole_step():
    meter = Meter(Allowance(tokens=450), TOKENS_AFTER)
    assert [meter.spent(step) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1.0]
    assert [meter.is_spent(step) for step in range(5)] == [False, False, False, False, True]


def test_time_runs_from_the_first_step_and_whichever_ends_first_counts():
    now = [100.0]
    meter = Meter(Allowance(tokens=450, seconds=10), TOKENS_AFTER, clock=lambda: now[0])
    now[0] = 150.0  # loading takes fifty seconds and costs nothing
    assert meter.seconds == 0
    meter.start()
    now[0] = 156.0
    assert meter.spent(1) == pytest.approx(0.6)
    assert meter.spent(3) == pytest.approx(0.75)
    now[0] = 160.0
    assert meter.is_spent(1)


def test_only_time_as_a_budget_does_not_count_tokens():
    now = [0.0]
    meter = Meter(Allowance(seconds=100), TOKENS_AFTER, clock=lambda: now[0])
    meter.start()
    now[0] = 10.0
    assert meter.spent(3) == pytest.approx(0.1)
    assert meter.is_spent(4)  # the prepared steps are used up


def test_a_schedule_over_the_lineage_goes_on_where_the_last_round_ended():
    end_of_first = rate_factor(linear, (0.0, 0.5), 1.0, 0.0)
    start_of_second = rate_factor(linear, (0.5, 1.0), 0.0, 0.0)
    assert end_of_first == start_of_second == pytest.approx(0.5)
    assert rate_factor(linear, (0.5, 1.0), 1.0, 0.0) == 0.0


def test_a_cool_down_takes_the_tail_to_zero_and_the_trunk_covers_the_schedule():
    position, tail = (0.0, 0.5), 0.2
    assert rate_factor(linear, position, 0.8, tail) == pytest.approx(0.5)
    assert rate_factor(linear, position, 0.9, tail) == pytest.approx(0.25)
    assert rate_factor(linear, position, 1.0, tail) == pytest.approx(0.0)
    assert rate_factor(linear, position, 0.4, tail) == pytest.approx(0.75)


@pytest.mark.parametrize("trials", [2, 5, 8, 33])
@pytest.mark.parametrize("side_by_side", [1, 2, 4])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_trials_that_are_never_stopped_stay_within_their_share(trials: int, side_by_side: int, share: float):
    budget = Allowance(tokens=10_007, steps=1_001, seconds=60)
    part = share_out(budget, share, trials, side_by_side)
    assert part.tokens is not None
    assert part.steps is not None
    assert part.seconds is not None
    assert trials * part.tokens <= share * 10_007
    assert trials * part.steps <= share * 1_001
    # Each place runs its trials one after another.
    assert part.seconds * -(-trials // side_by_side) == pytest.approx(share * 60)
    rest = remainder(budget, trials * part.tokens, trials * part.steps, share * 60)
    assert rest is not None
    assert rest.tokens == 10_007 - trials * part.tokens


def test_what_is_not_limited_is_not_shared_out_and_too_little_is_refused():
    assert share_out(Allowance(steps=20), 0.5, 4, 2) == Allowance(steps=2)
    with pytest.raises(Forfeit, match="a budget of 7 steps is too small for 4 trials"):
        share_out(Allowance(steps=7), 0.5, 4, 1)
    assert remainder(Allowance(steps=20), 500, 8, 9.0) == Allowance(steps=12)
    assert remainder(Allowance(steps=20, seconds=9), 500, 8, 9.0) is None
