"""How a whole budget is shared out: pure decisions, from made-up rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from cluster.errors import UserError
from cluster.resources import Resources
from competitors.command.recipe import CommandRecipe
from competitors.kinds import Recipe
from competitors.search.recipe import SearchRecipe
from competitors.sft.recipe import SftRecipe
from competitors.soup.recipe import SoupRecipe
from competitors.unchanged import UnchangedRecipe
from orchestrator.field.allocation import Plan
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.field.trunk import MAX_CLIMBS, rates, trunk_after
from orchestrator.field.whole_budget import Allocation, Corpus, Lead, Past, Whole

CORPUS = Corpus(rows=10_000, tokens=1_000_000)
TOTAL = 2_000_000


def sft(name: str, **settings: Any) -> SftRecipe:
    return SftRecipe.model_validate({"name": name, "kind": "sft", "learning_rate": 4e-3} | settings)


FIELD: list[Recipe] = [sft("a"), sft("b", learning_rate=1e-3), UnchangedRecipe(name="control", kind="unchanged")]


def plan(total: float = TOTAL, rounds: int = 5, gpus: bool = False, **rules: Any) -> Plan:
    return Plan("l", Allocation(**rules), Whole(total), CORPUS, rounds, gpus)


def past(roster: Roster, losses: Mapping[str, float], trunk: ModelRef, tied: Sequence[str] = ()) -> Past:
    """A round in which everybody spent their budget."""
    spent = {
        e.recipe.name: float(e.budget.tokens or 0) if e.budget and e.recipe.trains else 0.0 for e in roster.entries
    }
    tokens = {name: int(amount) for name, amount in spent.items()}
    return Past(roster, losses, trunk, tied, spent, tokens, {})


def learning_rates(roster: Roster) -> list[float]:
    return [e.recipe.learning_rate for e in roster.entries if isinstance(e.recipe, SftRecipe)]


def test_a_race_is_of_miniatures_from_the_base_on_the_same_rows():
    roster = plan().next_roster(FIELD, [])
    assert (roster.phase, [e.recipe.name for e in roster.entries]) == ("race", ["a", "b", "control"])
    first = roster.entries[0]
    assert isinstance(first.recipe, SftRecipe)
    assert (first.budget and first.budget.tokens) == TOTAL * 0.005
    assert (first.recipe.batch, first.recipe.schedule, first.recipe.learning_rate) == (1, "linear", 1e-3)
    assert {e.data_order for e in roster.entries} == {0}
    assert first.continues is None


def test_a_probe_has_its_steps_and_a_large_field_its_bound():
    least = 32 * 100  # tokens of 32 rows
    small = plan(total=100_000).next_roster(FIELD, [])
    assert [e.budget and e.budget.tokens for e in small.entries][:2] == [least, least]
    large = plan().next_roster([sft(f"r{i}") for i in range(40)], [])
    assert sum(e.budget.tokens or 0 for e in large.entries if e.budget) <= 0.1 * TOTAL
    on_gpus = plan(gpus=True).next_roster(FIELD, [])
    assert [e.recipe.batch for e in on_gpus.entries if isinstance(e.recipe, SftRecipe)] == [16, 16]


def test_a_budget_too_small_for_the_field_says_what_would_do():
    field = [sft(name) for name in "abcd"]
    with pytest.raises(UserError, match=r"budget.total_tokens: 10,000 are too few for 4 competitors.*at least 51,200"):
        plan(total=10_000).next_roster(field, [])
    assert plan(total=51_200).next_roster(field, []).phase == "race"


@pytest.mark.parametrize("programs", [0, 1, 5, 60])
@pytest.mark.parametrize("unit", ["tokens", "device_seconds"])
def test_the_smallest_that_is_named_works_and_hardly_less_does(programs: int, unit: Any):
    """A program's share counts too, though nothing is known of its steps; so does one that is more than is needed."""
    program = {"kind": "command", "run": "true", "sandbox": "none"}
    field: list[Recipe] = [sft("a"), sft("b", batch_size=16, resources={"gpus": 1, "workers": 4})]
    field += [CommandRecipe.model_validate(program | {"name": f"p{number}"}) for number in range(programs)]

    def of(total: float) -> Plan:
        return Plan("l", Allocation(), Whole(total, unit), CORPUS, 5, has_gpus=True)

    with pytest.raises(UserError) as refused:
        of(10.0).next_roster(field, [])
    named = float(str(refused.value).rpartition(" ")[2].replace(",", ""))
    smallest = named * (1 if unit == "tokens" else 3600)
    assert of(smallest).next_roster(field, []).phase == "race"
    assert of(max(smallest, 4e3)).next_roster(field, []).phase == "race"
    with pytest.raises(UserError, match=f"{len(field)} competitors"):
        of(0.98 * smallest).next_roster(field, [])


def test_a_field_that_trains_nothing_has_no_use_for_a_budget():
    with pytest.raises(UserError, match="competitors: none of them trains"):
        plan().next_roster([UnchangedRecipe(name="control", kind="unchanged")], [])


def test_a_search_races_with_enough_for_its_trials():
    search = SearchRecipe.model_validate(
        {"name": "s", "kind": "search", "recipe": {"batch_size": 2}, "trials": 4, "share": 0.5}
        | {"space": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}}
    )
    one, other = plan(total=500_000).miniatures([search, sft("a")])
    assert one == 32 * 2 * 100 * 4 / 0.5
    assert other < one


def climbed(history: list[Past], losses: Mapping[str, float], trunk: str, tied: Sequence[str] = ()) -> list[Past]:
    """With the next round of the plan over, whose losses are these."""
    roster = plan().next_roster(FIELD, history)
    return [*history, past(roster, losses, ModelRef(trunk, roster.round), tied)]


def repeated(name: str, count: int, **settings: Any) -> list[Recipe]:
    return [sft(f"{name}-{number}", repeat_of=name, **settings) for number in range(1, count + 1)]


def test_runs_of_a_recipe_race_in_orders_of_their_own_and_what_goes_on_keeps_its_one():
    field = [*repeated("a", 3), sft("b", learning_rate=1e-3)]
    race = plan().next_roster(field, [])
    assert [(e.recipe.name, e.data_order) for e in race.entries] == [("a-1", 0), ("a-2", 1), ("a-3", 2), ("b", 0)]
    assert [e.recipe.repeat_of for e in race.entries] == ["a", "a", "a", None]
    history = [past(race, {"a-3": 3.0, "b": 3.1}, ModelRef("a-3", 1), ["b"])]
    climb = plan().next_roster(field, history)
    assert {e.parent: e.data_order for e in climb.entries} == {"a-3": 2, "b": 0}
    assert {e.recipe.repeat_of for e in climb.entries} == {None}
    history.append(past(climb, {"a-3.2a": 2.8}, ModelRef(climb.entries[0].recipe.name, 2)))
    line = plan(climb=False).next_roster(field, history)
    assert [(e.data_order, e.recipe.repeat_of) for e in line.entries] == [(2, None)]
    alone = plan(climb=False).next_roster(field, history[:1])
    assert [(e.recipe.name, e.data_order, e.recipe.repeat_of) for e in alone.entries] == [("a-3", 2, None)]


def test_a_run_of_the_same_recipe_is_no_rival_of_the_winner():
    roster = plan().next_roster([*repeated("a", 2), sft("b"), *repeated("c", 2)], [])
    losses = {"a-2": 3.0, "a-1": 3.1, "b": 3.2, "c-1": 3.3}
    assert decided(roster, losses, proven=False)[1] == ["b", "c-1"]


def test_children_climb_from_the_winner_with_its_state_and_stop_where_the_rate_is_settled():
    history = climbed([], {"a": 3.0, "b": 3.1, "control": 4.0}, "a", tied=["b"])
    roster = plan().next_roster(FIELD, history)
    assert roster.phase == "climb"
    assert [e.recipe.name for e in roster.entries] == ["a.2a", "b.2a", "a.2b", "a.2c"]
    assert learning_rates(roster) == pytest.approx([1e-3, 2.5e-4, 2e-3, 4e-3])
    assert [e.continues for e in roster.entries] == [ModelRef(name, 1) for name in "abaa"]
    assert rates(roster) == {"a.2a": 1, "a.2b": 2, "a.2c": 4}

    settled = climbed(history, {"a.2b": 2.8, "a.2a": 2.9, "a.2c": 2.95}, "a.2b")
    line = plan().next_roster(FIELD, settled)
    assert (line.phase, [e.recipe.name for e in line.entries]) == ("line", ["a.2b"])

    higher = plan().next_roster(FIELD, climbed(history, {"a.2c": 2.8, "a.2b": 2.9, "a.2a": 3.0}, "a.2c"))
    assert (higher.phase, learning_rates(higher)) == ("climb", pytest.approx([4e-3, 8e-3]))

    first, second = (one.entries[0].budget for one in (roster, higher))
    assert first
    assert second
    assert second.tokens == 2 * first.tokens  # as much as the trunk has behind it

    lower = plan().next_roster(FIELD, climbed(history, {"a.2a": 2.8, "a.2b": 2.9, "a.2c": 3.0}, "a.2a"))
    assert (lower.phase, learning_rates(lower)) == ("climb", pytest.approx([1e-3, 5e-4]))

    flat = plan().next_roster(FIELD, climbed(history, {"a.2a": 2.8, "a.2b": 2.81, "a.2c": 3.0}, "a.2a"))
    assert flat.phase == "line"


def test_a_rate_that_rises_without_end_is_climbed_with_so_often_and_no_more():
    large = plan(total=500 * TOTAL, rounds=9, share=0.0002)  # no climb is too dear
    history = [past(large.next_roster(FIELD, []), {"a": 3.0, "b": 3.1}, ModelRef("a", 1))]
    while (roster := large.next_roster(FIELD, history)).phase == "climb":
        losses = {entry.recipe.name: 3.0 - 0.1 * index for index, entry in enumerate(roster.entries)}
        history.append(past(roster, losses, ModelRef(roster.entries[-1].recipe.name, roster.round)))
    assert len(history) == 1 + MAX_CLIMBS


@pytest.mark.parametrize(
    ("winner", "tied", "children", "climbed_at"),
    [
        ("low", [], ["low.2a", "low.2b", "low.2c"], [2.5e-4, 1.25e-4, 6.25e-5]),
        ("mid", [], [], []),
        ("mid", ["high"], ["mid.2a", "high.2a"], [5e-4, 1e-3]),
        ("high", [], ["high.2a", "high.2b", "high.2c"], [1e-3, 2e-3, 4e-3]),
        ("far", [], ["far.2a", "far.2b", "far.2c"], [1.6e-2, 3.2e-2, 6.4e-2]),
        ("sgd", [], ["sgd.2a", "sgd.2b", "sgd.2c"], [3.125e-5, 6.25e-5, 1.25e-4]),
    ],
)
def test_only_where_the_field_ends_are_rates_tried_beyond_it(
    winner: str, tied: list[str], children: list[str], climbed_at: list[float]
):
    rates = {"low": 1e-3, "mid": 2e-3, "high": 4e-3, "far": 6.4e-2}
    field: list[Recipe] = [sft(name, learning_rate=rate) for name, rate in rates.items()]
    field.append(sft("sgd", learning_rate=5e-4, optimizer="sgd"))
    race = plan().next_roster(field, [])
    losses = dict.fromkeys([*rates, "sgd"], 3.1) | {winner: 3.0}
    roster = plan().next_roster(field, [past(race, losses, ModelRef(winner, 1), tied)])
    assert roster.phase == ("climb" if children else "line")
    assert [e.recipe.name for e in roster.entries] == (children or [winner])
    if children:
        assert learning_rates(roster) == pytest.approx(climbed_at)


def test_on_short_data_the_trunk_of_all_lines_goes_a_little_further_even_alone():
    short = Plan("l", Allocation(), Whole(TOTAL), Corpus(rows=1500, tokens=150_000), 5, False)
    field = [sft("low", learning_rate=2e-3), sft("mid"), sft("high", learning_rate=8e-3)]
    race = short.next_roster(field, [])
    history = [past(race, {"mid": 3.0, "low": 3.1, "high": 3.1}, ModelRef("mid", 1))]
    climb = short.next_roster(field, history)
    assert (climb.phase, [e.recipe.name for e in climb.entries]) == ("climb", ["mid.2a"])
    history.append(past(climb, {"mid.2a": 2.9}, ModelRef("mid.2a", 2)))
    assert short.next_roster(field, history).phase == "lines"


def test_a_rate_that_was_not_scored_in_the_race_bounds_nothing():
    race = plan().next_roster([sft("low", learning_rate=2e-3), sft("high")], [])
    roster = plan().next_roster([], [past(race, {"low": 3.0}, ModelRef("low", 1))])
    assert learning_rates(roster) == pytest.approx([5e-4, 1e-3, 2e-3])


@pytest.mark.parametrize(
    ("total", "children"), [(640_000, ["a.2a", "b.2a", "a.2b", "a.2c"]), (150_000, ["a.2a", "b.2a"]), (100_000, [])]
)
def test_no_more_children_than_are_worth_their_tokens(total: float, children: list[str]):
    """All but the first are lost to the line, and a small budget has no small miniatures."""
    first = plan(total=total).next_roster(FIELD, [])
    race = past(first, {"a": 3.0, "b": 3.1}, ModelRef("a", 1), tied=["b"])
    roster = plan(total=total).next_roster(FIELD, [race])
    assert [e.recipe.name for e in roster.entries] == (children or ["a"])
    assert roster.phase == ("climb" if children else "line")


def test_an_adapter_climbs_in_rate_and_rank_and_only_the_wider_one_starts_afresh():
    field = [sft("l", adapter={"method": "lora", "rank": 8, "alpha": 8})]
    first = plan().next_roster(field, [])
    roster = plan().next_roster(field, [past(first, {"l": 3.0}, ModelRef("l", 1))])
    *rated, wider = roster.entries
    assert [e.continues for e in rated] == [ModelRef("l", 1)] * 3
    assert isinstance(wider.recipe, SftRecipe)
    assert wider.recipe.adapter
    assert (wider.continues, wider.recipe.adapter.rank, wider.recipe.adapter.alpha) == (None, 32, 32)
    assert "l.2d" not in rates(roster)


def test_the_line_is_one_schedule_over_everything_that_is_left():
    history = climbed([], {"a": 3.0, "b": 3.1}, "a")
    history = climbed(history, {"a.2a": 2.8, "a.2b": 2.81, "a.2c": 3.0}, "a.2a")
    spans, spent = [], sum(sum(one.spent.values()) for one in history)
    for number in (3, 4, 5):
        roster = plan().next_roster(FIELD, history)
        (entry,) = roster.entries
        assert isinstance(entry.recipe, SftRecipe)
        assert entry.continues == ModelRef("a.2a", number - 1)
        assert entry.recipe.score_weights == ("last" if number == 5 else "tail_average")
        spans.append(entry.span)
        history.append(past(roster, {"a.2a": 2.5}, ModelRef("a.2a", number)))
    assert [start for start, _ in spans] == pytest.approx([0, 1 / 3, 2 / 3], abs=1e-5)
    assert spans[-1][1] == 1
    assert spans[0][1] == pytest.approx(spans[1][0], abs=1e-5)
    assert sum(sum(one.spent.values()) for one in history) == pytest.approx(TOTAL, abs=3)
    assert spent < 0.03 * TOTAL


def test_what_a_line_did_not_spend_goes_to_its_next_rounds():
    history = climbed([], {"a": 3.0, "b": 3.1}, "a")
    before = sum(history[0].spent.values())
    roster = plan(climb=False, rounds=3).next_roster(FIELD, history)
    half = past(roster, {"a": 2.9}, ModelRef("a", 2))
    history.append(Past(half.roster, half.losses, half.trunk, (), {"a": 1000.0}, {"a": 1000}, {}))
    (last,) = plan(climb=False, rounds=3).next_roster(FIELD, history).entries
    assert last.budget
    assert last.budget.tokens == int(TOTAL - before - 1000)
    assert last.span == pytest.approx((1000 / (TOTAL - before), 1.0))


def test_where_nothing_came_below_the_base_all_race_again_much_cooler():
    first = plan().next_roster(FIELD, [])
    again = plan().next_roster(FIELD, [past(first, {"b": 5.0, "a": 6.0}, BASE)])
    assert (again.phase, learning_rates(again)) == ("race", pytest.approx([1e-3 / 8, 2.5e-4 / 8]))
    last = plan(rounds=2).next_roster(FIELD, [past(first, {"b": 5.0, "a": 6.0}, BASE)])
    assert [(e.recipe.name, e.continues) for e in last.entries] == [("b", None)]


def test_without_the_optimizer_weights_and_place_in_the_data_still_go_on():
    history = climbed([], {"a": 3.0, "b": 3.1}, "a")
    for rules in ({}, {"climb": False}):
        entries = plan(keep_optimizer=False, **rules).next_roster(FIELD, history).entries
        assert {e.continues for e in entries} == {ModelRef("a", 1)}
        assert {e.recipe.continue_ for e in entries if isinstance(e.recipe, SftRecipe)} == {"weights"}


def test_a_line_of_what_a_search_found():
    first = plan().next_roster(FIELD, [])
    one = past(first, {"a": 3.0}, ModelRef("a", 1))
    found = Past(one.roster, one.losses, one.trunk, (), one.spent, one.tokens, {"a": sft("a", learning_rate=0.5)})
    (line,) = plan(climb=False).next_roster(FIELD, [found]).entries
    assert isinstance(line.recipe, SftRecipe)
    assert line.recipe.learning_rate == 0.5


def test_short_data_gets_several_lines_from_one_trunk_and_soups_of_their_ends():
    short = Plan("l", Allocation(climb=False), Whole(TOTAL), Corpus(rows=1500, tokens=150_000), 5, False)
    history = [past(short.next_roster(FIELD, []), {"a": 3.0}, ModelRef("a", 1))]
    tried = short.next_roster(FIELD, history)
    assert (tried.phase, [e.continues for e in tried.entries]) == ("lines", [ModelRef("a", 1)] * 3)
    assert [e.budget and e.budget.tokens for e in tried.entries] == [150_000, 300_000, 450_000]
    assert len({e.data_order for e in tried.entries}) == 3

    names = [e.recipe.name for e in tried.entries]
    history.append(past(tried, dict(zip(names, (2.9, 2.7, 2.8), strict=True)), ModelRef("a", 1)))
    more = short.next_roster(FIELD, history)
    # 7.2 passes are left, and two were best: four lines of 1.8.
    assert [e.budget and e.budget.tokens for e in more.entries] == [270_000] * 4
    history.append(past(more, {e.recipe.name: 2.75 for e in more.entries}, ModelRef("a", 1)))
    blends = short.next_roster(FIELD, history)
    assert blends.phase == "soup"
    assert {e.continues for e in blends.entries} == {ModelRef("a", 1)}
    assert not any(e.recipe.trains for e in blends.entries)
    assert sum(sum(one.spent.values()) for one in history) <= TOTAL

    off = Plan("l", Allocation(climb=False, several_lines=False), Whole(TOTAL), short.corpus, 5, False)
    assert off.next_roster(FIELD, history[:1]).phase == "line"


@pytest.mark.parametrize(
    ("rounds", "room", "settings", "expected"),
    [(5, 4, {}, [1, 1, 2]), (5, 8, {}, [1, 2, 4]), (5, 2, {}, [1] * 3), (2, 8, {}, [8]), (2, 8, {"workers": 4}, [4])],
)
def test_lines_side_by_side_share_the_cluster_by_their_lengths(
    rounds: int, room: int, settings: dict[str, Any], expected: list[int]
):
    rules, corpus = Allocation(climb=False, **settings), Corpus(rows=1500, tokens=150_000)
    there = Plan("l", rules, Whole(TOTAL), corpus, rounds, True, lambda _: room)
    lines = there.next_roster(FIELD, [past(there.next_roster(FIELD, []), {"a": 3.0}, ModelRef("a", 1))])
    assert lines.phase == "lines"
    assert [workers_and_batch(line)[:2] for line in lines.entries] == [(workers, 16) for workers in expected]


def line_on(room: int, lineages: int = 1, gpus: bool = True, unit: Any = "tokens", **settings: Any) -> RosterEntry:
    """The line that follows a race of one recipe, where a cluster holds so many workers of it."""
    rules = settings.pop("rules", {})
    there = Plan("l", Allocation(climb=False, **rules), Whole(TOTAL, unit), CORPUS, 3, gpus, lambda _: room, lineages)
    first = there.next_roster([sft("a", **settings)], [])
    (line,) = there.next_roster([], [past(first, {"a": 3.0}, ModelRef("a", 1))]).entries
    return line


def workers_and_batch(line: RosterEntry) -> tuple[int, int, float]:
    assert isinstance(line.recipe, SftRecipe)
    return line.recipe.resources.workers, line.recipe.batch, line.recipe.learning_rate


@pytest.mark.parametrize(
    ("room", "lineages", "settings", "expected"),
    [
        (8, 1, {}, (8, 16, 4e-3)),
        (8, 2, {}, (4, 16, 4e-3)),
        (8, 1, {"rules": {"workers": 2}}, (2, 16, 4e-3)),
        (16, 1, {}, (16, 16, 4e-3)),
        (0, 1, {}, (1, 16, 4e-3)),
        (8, 3, {"resources": {"workers": 4}, "deepspeed": "zero2"}, (4, 20, 4e-3 * (20 / 64) ** 0.5)),
        (8, 1, {"batch_size": 4}, (8, 8, 4e-3 * 2**0.5)),
        (8, 1, {"optimizer": "lomo"}, (1, 16, 4e-3)),
        (8, 1, {"resources": {"gpus": 0}}, (1, 16, 4e-3)),
        (8, 1, {"resources": {"gpus": 0.5}}, (8, 16, 4e-3)),
        (4, 1, {"gpus": False}, (1, 5, 5**0.5 * 1e-3)),
        (4, 1, {"gpus": False, "rules": {"workers": 2}}, (2, 4, 2e-3)),
        (1, 1, {"gpus": False, "rules": {"workers": 2}}, (1, 5, 5**0.5 * 1e-3)),
        (1, 1, {"gpus": False, "rules": {"step_tokens": 1600}}, (1, 16, 4e-3)),
    ],
)
def test_a_line_takes_the_cluster_at_the_batch_that_it_has(
    room: int, lineages: int, settings: dict[str, Any], expected: tuple[int, int, float]
):
    workers, batch, rate = workers_and_batch(line_on(room, lineages, **settings))
    assert (workers, batch) == expected[:2]
    assert rate == pytest.approx(expected[2])


def test_a_race_is_run_at_a_batch_that_the_line_can_share():
    there = Plan("l", Allocation(), Whole(TOTAL), CORPUS, 5, True, lambda _: 8)
    assert there.smallest_batch(sft("a", batch_size=64)) == 16  # 2,048 tokens are 20 rows
    assert plan(gpus=True).smallest_batch(sft("a", batch_size=64)) == 20
    assert there.smallest_batch(sft("a", batch_size=6)) == 6


def test_a_worker_of_a_line_has_a_whole_gpu_and_a_budget_of_time_is_shared_among_all():
    line = line_on(8, unit="device_seconds", rules={"several_lines": False}, resources={"gpus": 0.5})
    assert line.recipe.resources == Resources(workers=8, gpus=1)
    assert line.budget
    assert line.budget.seconds == pytest.approx(TOTAL / 2 / 8)


def test_a_line_that_grew_goes_on_where_the_cluster_is_another():
    there = Plan("l", Allocation(climb=False), Whole(TOTAL), CORPUS, 5, True, lambda _: 8)
    history = [past(there.next_roster(FIELD, []), {"a": 3.0}, ModelRef("a", 1))]
    roster = there.next_roster(FIELD, history)
    history.append(past(roster, {"a": 2.9}, ModelRef("a", 2)))
    for room, workers in ((8, 8), (4, 4), (16, 16)):
        other = replace(there, room=lambda _, room=room: room)
        (line,) = other.next_roster(FIELD, history).entries
        assert workers_and_batch(line) == (workers, 16, 4e-3)


def decided(roster: Roster, losses: dict[str, float], proven: bool = True, **rules: Any) -> Any:
    def lead(name: str, over: str) -> Lead:
        mean = losses[over] - losses[name]
        return Lead(mean, mean - (0.0 if proven else 1.0) - 1e-9)

    ordered = dict(sorted(losses.items(), key=lambda item: item[1]))
    return trunk_after(Allocation(**rules), roster, ordered, BASE, 4.0, lead)


def test_a_race_is_won_by_who_trains_and_says_whom_it_cannot_tell_apart():
    soup = SoupRecipe(name="soup", kind="soup")
    roster = plan().next_roster([*FIELD, soup], [])
    trunk, tied, why = decided(roster, {"soup": 2.0, "a": 3.0, "b": 3.5})
    assert (trunk, tied) == (ModelRef("a", 1), [])
    assert "a won the race" in why
    assert decided(roster, {"a": 3.0, "b": 3.5}, proven=False)[1] == ["b"]
    assert decided(roster, {"a": 5.0, "b": 4.5})[0] == BASE
    assert decided(roster, {})[0] == BASE


def test_the_best_soup_is_what_is_left_of_a_budget():
    blends = [RosterEntry(recipe=SoupRecipe(name=name, kind="soup")) for name in ("x", "y", "z")]
    roster = Roster(lineage="l", round=4, phase="soup", entries=blends)
    assert decided(roster, {"x": 3.0, "y": 2.8, "z": 2.9})[0] == ModelRef("y", 4)


def test_a_rate_is_raised_only_for_a_proven_lead_beyond_the_margin():
    roster = plan().next_roster(FIELD, climbed([], {"a": 3.0, "b": 3.1}, "a", tied=["b"]))

    def goes_on(losses: dict[str, float], **settings: Any) -> str:
        return str(decided(roster, losses, **settings)[0].competitor)

    assert goes_on({"a.2a": 2.80, "a.2b": 2.77, "a.2c": 2.79}) == "a.2b"
    assert goes_on({"a.2a": 2.80, "a.2b": 2.795, "a.2c": 2.785}) == "a.2a"  # 0.015 where two doublings ask for 0.02
    assert goes_on({"a.2a": 2.80, "a.2b": 2.795, "a.2c": 2.785}, margin_nats=0.0) == "a.2c"
    assert goes_on({"a.2a": 2.80, "a.2b": 2.77, "a.2c": 2.75}, proven=False) == "a.2a"
    # Whom the race could not tell from it is asked for nothing: neither was there first.
    assert goes_on({"a.2a": 2.80, "b.2a": 2.79}, proven=False) == "b.2a"
    assert goes_on({"a.2a": 2.80, "b.2a": 2.79, "a.2b": 2.77}) == "a.2b"
    assert goes_on({"a.2a": 2.80, "b.2a": 2.79, "a.2b": 2.77}, proven=False) == "b.2a"
    assert goes_on({"a.2a": 2.80, "b.2a": 2.81}, proven=False) == "a.2a"
    assert goes_on({"a.2b": 2.9, "a.2c": 2.8}) == "a.2c"  # the one that kept the rate was not scored


@pytest.mark.parametrize(
    ("a_row", "optimizer", "factor"),
    [
        (None, "adamw_torch", 1),
        (160, "adamw_torch", 1),
        (200, "adamw_torch", 1),
        (40, "adamw_torch", 0.5),
        (40, "sgd", 0.25),
    ],
)
@pytest.mark.parametrize(
    ("rows", "total", "phase"), [(10_000, TOTAL, "line"), (1_000, TOTAL / 10, "line"), (1_000, TOTAL, "lines")]
)
def test_a_line_has_the_rate_that_the_noise_of_short_completions_leaves_it(
    a_row: int | None, optimizer: str, factor: float, rows: int, total: float, phase: str
):
    corpus = Corpus(rows=rows, tokens=100 * rows, completion_bytes=None if a_row is None else a_row * rows)
    plan = Plan("l", Allocation(climb=False), Whole(total), corpus, 5, False)
    race = plan.next_roster([sft("a", optimizer=optimizer), sft("b", optimizer=optimizer)], [])
    history = [past(race, {"a": 1.0, "b": 2.0}, ModelRef("a", 1))]
    line = plan.next_roster([], history)
    assert line.phase == phase
    (raced, *_), (entry, *_) = race.entries, line.entries
    assert isinstance(raced.recipe, SftRecipe)
    assert isinstance(entry.recipe, SftRecipe)
    batches = entry.recipe.batch / raced.recipe.batch
    expected = factor * (batches if optimizer == "sgd" else batches**0.5)
    assert entry.recipe.learning_rate == pytest.approx(raced.recipe.learning_rate * expected)
    assert ("for 40 bytes of completions a step" in entry.origin) == (factor != 1)
    # It stays at that rate: the next round of a line, or the other lines, are not changed once more.
    history.append(past(line, {e.recipe.name: 0.5 for e in line.entries}, ModelRef("a", 1 if phase == "lines" else 2)))
    later = plan.next_roster([], history).entries[0].recipe
    assert isinstance(later, SftRecipe)
    assert later.learning_rate == entry.recipe.learning_rate
