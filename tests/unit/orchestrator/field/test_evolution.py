"""Evolution: who makes way, for whose copy, and that it repeats."""

import pytest
from pydantic import ValidationError

from competitors.sft.recipe import SftRecipe
from competitors.unchanged import UnchangedRecipe
from orchestrator.field.evolution import Evolution, child_name, copy, evolve, root_name, seeded
from orchestrator.field.roster import RosterEntry

FIELD = [
    *(RosterEntry(recipe=SftRecipe(name=name, kind="sft", learning_rate=rate)) for name, rate in
      (("a", 1e-3), ("b", 2e-3), ("c", 3e-3), ("d", 4e-3))),
    RosterEntry(recipe=UnchangedRecipe(name="control", kind="unchanged")),
]  # fmt: skip


def test_the_worst_makes_way_for_a_copy_of_the_best():
    entries, reasons = evolve(FIELD, ["b", "control", "a", "c"], Evolution(), 0, "l", 2)
    assert [entry.recipe.name for entry in entries] == ["a", "b", "c", "b.2a", "control"]  # d was not scored at all
    child = entries[3]
    assert (child.parent, child.since, child.made_by) == ("b", 2, "evolution")
    assert isinstance(child.recipe, SftRecipe)
    assert child.recipe.learning_rate in (pytest.approx(1.6e-3), pytest.approx(2.5e-3))
    assert len(reasons) == 1
    assert "takes the place of d" in reasons[0]


def test_it_follows_from_seed_lineage_and_round_alone():
    ranking = ["a", "b", "c", "d"]
    assert evolve(FIELD, ranking, Evolution(), 7, "l", 3) == evolve(FIELD, ranking, Evolution(), 7, "l", 3)
    draws = {seeded(seed, lineage, number).random() for seed in (0, 1) for lineage in ("l", "m") for number in (2, 3)}
    assert len(draws) == 8


def test_nobody_makes_way_where_there_is_no_best():
    assert evolve(FIELD, ["control"], Evolution(), 0, "l", 2) == (FIELD, [])
    assert evolve(FIELD[:1], ["a"], Evolution(), 0, "l", 2) == (FIELD[:1], [])


def test_names_say_whose_child_it_is_and_are_not_taken():
    taken = {"full.3a"}
    assert [child_name("full.2b", 3, index, taken) for index in (0, 0, 25, 26)] == [
        "full.3b",
        "full.3c",
        "full.3z",
        "full.3aa",
    ]
    assert (root_name("full.12ab"), root_name("v1.5"), root_name("full")) == ("full", "v1.5", "full")


def test_a_value_that_the_recipe_would_refuse_stays_the_parents():
    parent = RosterEntry(recipe=SftRecipe.model_validate({"name": "a", "kind": "sft", "learning_rate": 1, "tail": 0.9}))
    child = copy(parent, "b", {"tail": 1.25, "learning_rate": 0.5, "adapter.rank": 2.0}, "evolution", 2)
    assert isinstance(child.recipe, SftRecipe)
    assert (child.recipe.tail, child.recipe.learning_rate) == (0.9, 0.5)
    assert child.origins.keys() == {"learning_rate"}
    assert child.origin == "a copy of a with learning_rate 0.5 (1 of a × 0.5)"


@pytest.mark.parametrize(
    "perturb", [{"learning_rat": [2.0]}, {"learning_rate": []}, {"learning_rate": [0.0]}, {"betas.x": [2.0]}]
)
def test_what_cannot_be_perturbed_is_refused(perturb: dict[str, list[float]]):
    with pytest.raises(ValidationError):
        Evolution(perturb=perturb)
