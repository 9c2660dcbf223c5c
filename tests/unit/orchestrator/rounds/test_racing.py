"""Who is out of a race, and what of a checkpoint is looked at."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Forfeit
from competitors.contract import Brief
from competitors.events import Event
from evaluation.evaluator import ScoringJob
from orchestrator.config.sections import Racing
from orchestrator.field.roster import Roster
from orchestrator.rounds import scoring_calls
from orchestrator.rounds.competition import brief_for
from orchestrator.rounds.racing import is_out, race, racing_in, rank_at
from tests.faked import FakedWorkers, faked_config, play
from tests.unit.evaluation.submissions.making import job
from tests.unit.orchestrator.rounds.test_competition import context, seed_of


def test_who_is_out_of_a_race():
    assert not is_out(5.0, [], keep=0.5)  # the first one at a rung goes on
    assert is_out(5.0, [4.0], keep=0.5)
    assert not is_out(3.0, [4.0], keep=0.5)
    assert not is_out(5.0, [4.0, 6.0], keep=0.5)  # the better two of three
    assert is_out(float("nan"), [4.0, 5.0], keep=0.5)
    assert not is_out(5.0, [float("nan")], keep=0.5)


@pytest.mark.parametrize(("loss", "others", "place"), [(1.0, [], 1), (1.0, [1.0], 1), (2.0, [1.0, 3.0], 2)])
def test_places_at_a_rung(loss: float, others: list[float], place: int):
    assert rank_at(loss, others) == place


@pytest.mark.parametrize(("phase", "races"), [("explore", True), ("race", True), ("climb", False), ("line", False)])
def test_what_goes_on_from_a_race_does_not_race_again(phase: Any, races: bool):
    rules = Racing(at=[0.5], keep=0.5)
    roster = Roster(lineage="l", round=1, phase=phase, entries=[])
    assert racing_in(roster, rules) == (rules if races else None)
    assert racing_in(roster, None) is None


@pytest.fixture(scope="module")
def racing_entry(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Brief]:
    """The context of a round, and the brief of an entry that has saved `checkpoint-1`, and more beside it."""
    folder = tmp_path_factory.mktemp("racing")
    played = play(faked_config(folder, rounds=1), folder / "run")
    roster, told = played.lineages[0].rounds[0].roster, context(played)
    brief = brief_for(told, roster, roster.entries[0], seed_of(played), 1)
    for name in ("checkpoint-1", "elsewhere", "checkpoint-1/deeper"):
        (brief.output_dir / name).mkdir()
        (brief.output_dir / name / "config.json").write_text("{}")
        (brief.output_dir / name / "model.safetensors").write_bytes(b"")
    (brief.output_dir / "checkpoint-2").symlink_to(brief.output_dir.parents[1] / "b" / "submission")
    return told, brief


@pytest.mark.parametrize(
    ("folder", "fraction", "is_scored"),
    [
        ("checkpoint-1", 0.5, True),
        ("checkpoint-1", 0.4999, False),  # no rung: it reports what it likes
        ("checkpoint-2", 0.5, False),  # a link to another's submission
        ("../../b/submission", 0.5, False),
        ("elsewhere", 0.5, False),
        ("checkpoint-1/deeper", 0.5, False),
    ],
)
def test_only_a_checkpoint_of_its_own_at_a_rung_is_looked_at(
    racing_entry: tuple[Any, Brief], folder: str, fraction: float, is_scored: bool
):
    told, brief = racing_entry
    workers = told.workers
    assert isinstance(workers, FakedWorkers)
    workers.calls.clear()
    event = Event(event="checkpoint", fraction=fraction, folder=folder)
    assert asyncio.run(race(told, Racing(at=[0.5]), brief, event, {})) is None
    assert workers.calls == ["score_checkpoint"] * is_scored


def test_a_checkpoint_is_inspected_before_it_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(folder: Path, form: str, seed: Path, is_control: bool) -> None:
        raise Forfeit(f"{folder.name} on {seed.name}: {form}, {is_control}")

    def scored(job: ScoringJob, rows: int) -> float:
        raise AssertionError("scored")

    monkeypatch.setattr(scoring_calls, "inspect", refuse)
    monkeypatch.setattr(scoring_calls, "score_slice", scored)
    with pytest.raises(Forfeit, match="checkpoint-1 on seed: full, True"):
        scoring_calls.score_checkpoint(job(tmp_path, tmp_path / "checkpoint-1"), "full", tmp_path / "seed", 9)
