"""Who enters a round: evolution, exploitation, and what people enter and withdraw."""

from typing import Any

import pytest

from competitors.sft.recipe import SftRecipe
from competitors.soup.recipe import SoupRecipe
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.evolution import child_name
from orchestrator.field.exploit import decide
from orchestrator.field.next_round import first_roster, next_roster, with_equal_shares
from orchestrator.field.roster import Roster
from orchestrator.field.whole_budget import Whole

COMPETITORS: list[dict[str, Any]] = [
    {"name": "a", "kind": "sft", "learning_rate": 1e-3, "batch_size": 8},
    {"name": "b", "kind": "sft", "learning_rate": 2e-3, "adapter": {"method": "lora", "rank": 8}},
    {"name": "c", "kind": "sft", "learning_rate": 4e-3},
    {"name": "d", "kind": "sft", "learning_rate": 8e-3},
    {"name": "own", "kind": "python", "entrypoint": "m:f"},
    {"name": "control", "kind": "unchanged"},
]


def config(**settings: Any) -> TournamentConfig:
    return TournamentConfig.model_validate(
        {
            "name": "t",
            "data": {"source": "rows.jsonl", "prompt": "{p}", "completion": "{c}"},
            "lineages": [{"name": "l", "base": "./base"}],
            "rounds": 4,
            "budget": {"tokens": 1000},
            "competitors": COMPETITORS,
        }
        | settings
    )


def first(config: TournamentConfig, lineage: str = "l") -> Roster:
    return first_roster(lineage, config.competitors, config.changes)


def following(config: TournamentConfig, before: Roster, ranking: list[str], exploits: str | None = None) -> Roster:
    """The round after `before`."""
    return next_roster(before, ranking, exploits, config.evolution, config.exploit, config.changes, config.seed)


def names(roster: Roster) -> list[str]:
    return [entry.recipe.name for entry in roster.entries]


def entry(roster: Roster, name: str) -> Any:
    return next(entry for entry in roster.entries if entry.recipe.name == name)


def test_without_anything_the_field_stays():
    begun = first(config())
    second = following(config(), begun, ["a", "b", "c", "d", "own"])
    assert names(begun) == names(second) == ["a", "b", "c", "d", "own", "control"]
    assert second.reasons == []


def test_evolution_replaces_the_worst_share_by_copies_of_the_best():
    rules = {"replace": 0.5, "perturb": {"learning_rate": [0.5], "batch_size": [2.0], "adapter.rank": [2.0]}}
    settings = config(evolution=rules)
    begun = first(settings)
    second = following(settings, begun, ["own", "a", "control", "b", "d"])  # c forfeited
    assert names(second) == ["a", "b", "a.2b", "a.2a", "own", "control"]
    child = entry(second, "a.2a")
    assert (child.recipe.learning_rate, child.recipe.batch_size, child.recipe.adapter) == (5e-4, 16, None)
    assert child.origins == {"learning_rate": "0.001 of a × 0.5", "batch_size": "8 of a × 2"}
    assert (child.made_by, child.parent, child.since) == ("evolution", "a", 2)
    assert "takes the place of d: a copy of a with learning_rate 0.0005 (0.001 of a × 0.5)" in second.reasons[0]
    assert Roster.model_validate_json(second.model_dump_json()) == second


def test_evolution_repeats_with_the_seed_and_differs_between_lineages_and_rounds():
    settings = config(evolution={"perturb": {"learning_rate": [0.5 + i / 100 for i in range(100)]}})
    begun = first(settings)

    def rate(lineage: str, number: int, seed: int = 0) -> float:
        changed = settings.model_copy(update={"seed": seed})
        before = begun.model_copy(update={"lineage": lineage, "round": number - 1})
        made = following(changed, before, ["a", "b", "c", "d"]).entries[3].recipe
        return float(made.learning_rate)

    assert rate("l", 2) == rate("l", 2)
    assert len({rate("l", 2), rate("m", 2), rate("l", 3), rate("l", 2, seed=1)}) > 1


def test_children_are_no_twins_while_there_is_another_choice():
    settings = config(evolution={"replace": 0.75, "perturb": {"learning_rate": [0.5, 2, 4]}})
    begun = first(settings)
    for seed in range(10):
        second = following(settings.model_copy(update={"seed": seed}), begun, ["a", "b", "c", "d"])
        rates = sorted(e.recipe.learning_rate for e in second.entries if e.made_by == "evolution")
        assert rates == [5e-4, 2e-3, 4e-3]


def test_a_value_that_the_recipe_would_refuse_stays_the_parents():
    settings = config(
        evolution={"perturb": {"warmup": [2.0]}},
        competitors=[COMPETITORS[0] | {"warmup": 0.6}, COMPETITORS[2]],
    )
    second = following(settings, first(settings), ["a", "c"])
    child = entry(second, "a.2a")
    assert child.recipe.warmup == 0.6
    assert child.origins == {}


def test_children_are_named_after_their_oldest_ancestor():
    assert child_name("full.2b", 3, 0, set()) == "full.3a"
    assert child_name("full", 3, 0, {"full.3a"}) == "full.3b"
    assert child_name("full", 3, 26, set()) == "full.3aa"


def test_a_recipe_that_won_often_enough_takes_all_places():
    rules = {"after": 2}
    settings = config(exploit=rules)
    assert settings.exploit is not None
    begun = first(settings)
    rankings = [["a", "b", "c", "own"], ["b", "a", "own"]]
    assert decide(settings.exploit, begun, ["a", "b"], rankings, separated=False) is None
    decided = decide(settings.exploit, begun, ["a", "b", "a"], [*rankings, ["a", "b"]], separated=False)
    assert decided == ("a", "a has won 2 rounds")
    second = following(settings, begun.model_copy(update={"round": 3}), ["a", "b"], "a")
    assert names(second) == ["a", "a.4a", "a.4b", "a.4c", "a.4d", "control", "soup"]
    rates = [entry(second, name).recipe.learning_rate for name in names(second)[:5]]
    assert rates == [1e-3, 8e-4, 1.25e-3, 1e-3, 8e-4]
    assert second.phase == "exploit"
    # The field of an exploiting round stays, also with evolution on.
    both = config(exploit=rules, evolution={})
    third = following(both, second, ["soup", "a.4b", "a"], "a")
    assert names(third) == names(second)


def test_when_a_soup_wins_its_best_ingredient_is_exploited():
    settings = config(exploit={"after": 1}, competitors=[*COMPETITORS, {"name": "mix", "kind": "soup"}])
    assert settings.exploit is not None
    begun = first(settings)
    rankings = [["mix", "a", "control", "b"], ["mix", "b", "a"]]
    decided = decide(settings.exploit, begun, ["mix", "mix"], rankings, separated=False)
    assert decided == ("a", "mix has won 2 rounds, and a ranks best of what it blends")
    second = following(settings, begun, ["mix", "b"], "a")
    assert [n for n in names(second) if isinstance(entry(second, n).recipe, SoupRecipe)] == ["mix"]


def test_a_separated_recipe_and_a_control_that_wins():
    settings = config(exploit={"when": "separated"})
    assert settings.exploit is not None
    begun = first(settings)
    assert decide(settings.exploit, begun, ["b"], [["b", "a"]], separated=True) == (
        "b",
        "the model of b is better than every other's beyond doubt",
    )
    after = config(exploit={"after": 1})
    assert after.exploit is not None
    assert decide(after.exploit, begun, ["control"], [["control", "a"]], separated=False) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evolution": {"perturb": {"learning_rat": [2]}}}, 'no number "learning_rat" in an sft recipe; did you mean'),
        ({"evolution": {"perturb": {"learning_rate": []}}}, "give factors above 0"),
        ({"exploit": {}}, "give after, when, or both"),
        ({"racing": {"at": [0.5, 0.25]}}, "give rising shares"),
        ({"racing": {"at": [0.5], "keep": 1}}, "less than 1"),
        ({"changes": [{"from_round": 2}]}, "give one of enter, withdraw and extend"),
        ({"competitors": [*COMPETITORS, {"name": "s", "kind": "soup", "of": ["a", "e"]}]}, 'no other competitor "e"'),
        ({"competitors": [*COMPETITORS, {"name": "s", "kind": "soup", "of": ["a", "s"]}]}, 'no other competitor "s"'),
    ],
)
def test_rules_that_make_no_sense_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError) as error:
        config(**settings)
    assert message in str(error.value)


@pytest.mark.parametrize("order", [(1, 4), (4, 1)])
def test_equal_shares_of_gpu_hours_are_those_of_gpus(order: tuple[int, int]):
    whole = Whole(8 * 3600, "device_seconds")
    recipes = [
        SftRecipe(name=f"on-{n}", kind="sft", learning_rate=1e-4, resources={"workers": n, "gpus": 1}) for n in order
    ]
    roster, spent = first_roster("l", recipes, []), 0.0
    for left in (2, 1):
        shared = with_equal_shares(whole, spent, roster, left, has_gpus=True)
        hours = [
            (one.budget.seconds or 0) * n / 3600 for one, n in zip(shared.entries, order, strict=True) if one.budget
        ]
        assert hours == [2.0, 2.0]
        spent += sum(hours) * 3600
    late = with_equal_shares(whole, spent + 60, roster, 1, has_gpus=True)
    assert all(one.budget is not None and one.budget.seconds == 0 for one in late.entries)
