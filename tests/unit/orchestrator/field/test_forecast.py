"""What `plan` shows of an allocation before it has run."""

from dataclasses import replace

import pytest

from cluster.errors import UserError
from competitors.kinds import Recipe
from competitors.sft.recipe import SftRecipe
from orchestrator.field.allocation import Plan
from orchestrator.field.forecast import forecast, on_champions_line
from orchestrator.field.whole_budget import Allocation, Corpus, Whole

FIELD: list[Recipe] = [SftRecipe(name=name, kind="sft", learning_rate=1e-3) for name in "abcd"]


def plan(whole: Whole, corpus: Corpus, gpus: bool = False) -> Plan:
    return Plan("l", Allocation(), whole, corpus, 5, gpus)


def test_most_of_a_budget_lies_on_the_champions_line():
    one = plan(Whole(2_000_000), Corpus(rows=10_000, tokens=1_000_000))
    rosters = forecast(one, FIELD)
    assert [roster.phase for roster in rosters] == ["race", "climb", "line", "line", "line"]
    own, blended = on_champions_line(rosters, one)
    # Of 2 % on the race a quarter is kept, of the climb's three children one; tokens are whole, so nearly.
    assert own == pytest.approx(1 - 0.015 - 0.01, abs=1e-4)
    assert blended == 0


def test_short_data_is_said_to_go_into_soups():
    one = plan(Whole(2_000_000), Corpus(rows=1500, tokens=150_000))
    rosters = forecast(one, FIELD)
    assert [roster.phase for roster in rosters] == ["race", "climb", "lines", "lines", "soup"]
    own, blended = on_champions_line(rosters, one)
    assert blended > 0.9
    assert own + blended < 1


@pytest.mark.parametrize("rounds", range(2, 9))
def test_any_number_of_passes_and_rounds_is_shared_out(rounds: int):
    for passes in (0.1, 0.9, 2.6, 2.75, 2.9, 3.3, 4.1, 5.9, 6.3, 8.0, 12.0, 50.0):
        one = Plan("l", Allocation(), Whole(passes * 1_000_000), Corpus(rows=10_000, tokens=1_000_000), rounds, False)
        rosters = forecast(one, FIELD)
        spent = sum(e.budget.tokens or 0 for r in rosters for e in r.entries if e.budget and e.recipe.trains)
        # What is too much for a line of 2.7 passes, or for eight lines, is left over.
        at_least = min(0.98 * passes, 2.7 if rounds == 2 else 20) * 1_000_000
        assert at_least <= spent <= one.whole.total
        assert all(roster.entries for roster in rosters)
        own, blended = on_champions_line(rosters, one)
        assert own + blended > (0.8 if passes < 50 or rounds > 2 else 0.7)
        assert rosters[-1].phase in ("line", "soup", "lines")


def test_hours_are_shared_out_as_tokens_are():
    rosters = forecast(plan(Whole(36_000, "device_seconds"), Corpus(rows=10_000, tokens=1_000_000), gpus=True), FIELD)
    assert [roster.phase for roster in rosters][-1] == "line"
    seconds = [e.budget.seconds or 0 for roster in rosters for e in roster.entries if e.budget]
    assert sum(seconds) == pytest.approx(36_000)


def test_gpu_hours_on_the_champions_line_are_those_of_all_its_gpus():
    one = Plan("l", Allocation(), Whole(36_000, "device_seconds"), Corpus(rows=10_000, tokens=1_000_000), 5, True)
    alone, grown = one, replace(one, room=lambda worker: 8)
    shares = [on_champions_line(forecast(plan, FIELD), plan)[0] for plan in (alone, grown)]
    assert shares == pytest.approx([1 - 0.015 - 0.01] * 2)


@pytest.mark.parametrize("seconds", [180.0, 512.0, 600.0, 1e5])
def test_a_few_seconds_are_shared_out_or_refused(seconds: float):
    """Of four recipes whose 32 steps are taken to last as many seconds each, a quarter of the budget at most."""
    one = plan(Whole(seconds, "device_seconds"), Corpus(rows=10_000, tokens=1_000_000), gpus=True)
    if seconds < 4 * 32 * 4:
        with pytest.raises(UserError, match=r"^budget.total_gpu_hours: 0.05 are too few for 4 .* at least 0.143$"):
            forecast(one, FIELD)
        return
    rosters = forecast(one, FIELD)
    assert min(e.budget.seconds or 0 for roster in rosters for e in roster.entries if e.budget) >= 32
    assert rosters[-1].phase == "line"
