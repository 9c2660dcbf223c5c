"""From scores to a verdict, and when a recipe has proved itself."""

from pathlib import Path

import pytest

from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.field.next_round import first_roster
from orchestrator.rounds.judging import Settled, judge
from orchestrator.rounds.proving import prove
from orchestrator.rounds.verdict import Candidate
from tests.faked import allocated, faked_config, made_up


def test_a_recipe_that_has_won_often_enough_is_exploited_from_then_on(tmp_path: Path):
    config = faked_config(tmp_path, exploit={"after": 2}, rounds=4)
    first = first_roster("l", config.competitors, [])
    base = Candidate(BASE, made_up(4.0, "base"))
    scored = {"a": made_up(3.0, "a"), "b": made_up(3.5, "b")}
    proof = prove((base.validation,) * 2, (scored["a"],) * 2, 0.01, 0.0)
    history: list[Settled] = []
    for number in (1, 2, 3):
        roster = first.model_copy(update={"round": number})
        history.append(Settled(roster, judge(config, roster, base, base, scored, proof, history)))
    assert [one.verdict.exploits for one in history] == [None, "a", "a"]
    assert [one.verdict.champion for one in history] == [ModelRef("a", number) for number in (1, 2, 3)]
    assert "from the next round on, all entries run a" in history[1].verdict.reasons[-1]
    assert all("all entries run" not in reason for reason in history[2].verdict.reasons)


def test_rounds_without_a_champion_are_counted(tmp_path: Path):
    config = faked_config(tmp_path, selection={"patience": 2})
    first = first_roster("l", config.competitors, [])
    base = Candidate(BASE, made_up(3.0, "base"))
    history: list[Settled] = []
    for number in (1, 2):
        roster = first.model_copy(update={"round": number})
        history.append(Settled(roster, judge(config, roster, base, base, {"a": made_up(4.0, "a")}, None, history)))
    assert [(one.verdict.rounds_without_champion, one.verdict.ends_lineage) for one in history] == [
        (1, False),
        (2, True),
    ]


def test_a_whole_budget_goes_on_with_its_trunk_and_ends_with_its_soups(tmp_path: Path):
    config = allocated(tmp_path)
    first = first_roster("l", config.competitors, [])
    base, scored = Candidate(BASE, made_up(4.0, "base")), {"a": made_up(3.0, "a"), "b": made_up(3.5, "b")}
    for phase, seed_loss in (("race", 3.0), ("lines", 4.0), ("soup", 3.0)):
        roster = first.model_copy(update={"phase": phase})
        verdict = judge(config, roster, base, base, scored, None, [])
        assert verdict.seed_validation_loss == pytest.approx(seed_loss)
        assert verdict.ends_lineage == (phase == "soup")
