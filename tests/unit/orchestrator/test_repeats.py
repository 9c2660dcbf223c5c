"""Repeats in whole tournaments, training only pretended: whose seeds differ, and which rounds speak of recipes."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.field.shorthand import expand
from orchestrator.record.snapshot import RoundSnapshot
from tests.faked import FakedWorkers, allocated, faked_config, play

FIELD = expand([{"name": name, "kind": "sft", "learning_rate": 1e-3, "repeats": 3} for name in "ab"])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


def loss_of(name: str, number: int) -> float:
    """Every round is better than the last, `b` by far better than `a`, and its third run a little the best."""
    return 4.0 - number / 2 - (0.3 if name.startswith("b") else 0.0) - (0.01 if name.startswith("b-3") else 0.0)


def rounds(inputs: Path, folder: Path, make: Any) -> tuple[RoundSnapshot, ...]:
    return play(make(inputs, competitors=FIELD), folder / "run", FakedWorkers(loss_of)).lineages[0].rounds


def seeds(one: RoundSnapshot) -> list[int]:
    return [entry.brief.random_seed for entry in one.entries if entry.brief]


def test_in_equal_rounds_each_run_has_a_seed_of_its_own_and_each_round_compares_recipes(inputs: Path, tmp_path: Path):
    first, second = rounds(inputs, tmp_path, faked_config)
    assert len({*seeds(first), *seeds(second)}) == 2 * 6
    for one in (first, second):
        assert one.verdict
        assert [(recipe.recipe, recipe.runs) for recipe in one.verdict.recipes] == [("b", 3), ("a", 3)]
        assert "b is better than a from this seed model" in one.verdict.recipes[1].words


def test_a_race_compares_recipes_and_what_won_it_goes_on_alone_in_its_own_order(inputs: Path, tmp_path: Path):
    race, *others = rounds(inputs, tmp_path, allocated)
    assert seeds(race)[:3] == seeds(race)[3:]  # the same three orders of the rows
    assert len(set(seeds(race))) == 3
    assert race.verdict
    assert race.verdict.winner == "b-3"
    assert [one.recipe for one in race.verdict.recipes] == ["b", "a"]
    assert [one.roster.phase for one in others] == ["climb", "line", "line"]
    assert {seed for one in others for seed in seeds(one)} == {seeds(race)[2]}
    assert [one.verdict.recipes for one in others if one.verdict] == [[], [], []]
    assert {entry.entry.recipe.repeat_of for one in others for entry in one.entries} == {None}
