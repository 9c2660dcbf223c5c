"""What competitors are given, and what a soup may blend."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import RosterEntry
from orchestrator.record.events import TournamentEvent
from orchestrator.record.records import ModelFolder
from orchestrator.record.snapshot import Snapshot
from orchestrator.rounds.competition import brief_for
from orchestrator.rounds.context import Context
from orchestrator.rounds.evaluators import Evaluators
from orchestrator.rounds.starts import start_of
from tests.faked import FakedWorkers, faked_config, play


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("played")
    return play(faked_config(folder, rounds=1), folder / "run")


def context(snapshot: Snapshot) -> Context:
    workers, heard = FakedWorkers(), list[TournamentEvent]()
    evaluators = Evaluators(snapshot.config, snapshot.run, workers)
    return Context(snapshot.config, snapshot.run, Path(), workers, evaluators, heard.append)


def seed_of(snapshot: Snapshot) -> ModelFolder:
    """What the entries of round 1 stood on."""
    brief = snapshot.lineages[0].rounds[0].entries[0].brief
    assert brief is not None
    return ModelFolder(model=ModelRef(), path=brief.seed_model, sha256=brief.seed_sha256)


def test_a_brief_names_its_place_in_the_whole_and_a_seed_of_its_own(played: Snapshot):
    roster = played.lineages[0].rounds[0].roster
    briefs = [brief_for(context(played), roster, e, seed_of(played), 4) for e in roster.entries]
    assert [brief.progress for brief in briefs] == [(0.0, 0.25)] * 2
    assert briefs[0].random_seed != briefs[1].random_seed
    again = brief_for(context(played), roster, roster.entries[0], seed_of(played), 4)
    assert again == briefs[0]
    later = roster.model_copy(update={"round": 2})
    assert brief_for(context(played), later, roster.entries[0], seed_of(played), 4).random_seed not in {
        brief.random_seed for brief in briefs
    }


def test_a_brief_has_the_configs_seed_and_rows_and_the_entrys_own_part_of_a_line(played: Snapshot):
    roster, told = played.lineages[0].rounds[0].roster, context(played)
    part = roster.entries[0].model_copy(update={"span": (0.2, 0.5)})
    brief = brief_for(told, roster, part, seed_of(played), 4)
    assert (brief.progress, brief.max_tokens) == ((0.2, 0.5), 32)
    other = replace(told, config=played.config.model_copy(update={"seed": 1}))
    assert brief_for(other, roster, part, seed_of(played), 4).random_seed != brief.random_seed


def test_a_continuation_that_is_gone_is_not_handed_on(played: Snapshot, tmp_path: Path):
    seed, first = seed_of(played), played.lineages[0].rounds[0].roster.entries[0]
    going_on = first.model_copy(update={"continues": ModelRef("b", 1)})
    left = played.run.entry("l", 1, "b") / "continuation"
    gone = seed.model_copy(update={"continuation": tmp_path / "gone"})

    def start(entry: RosterEntry, seed: ModelFolder) -> ModelFolder:
        return start_of(played.run, "l", entry, seed, seed_of(played))

    assert start(first, seed.model_copy(update={"continuation": left})).continuation == left
    assert start(going_on, seed).continuation == left
    assert start(first, gone) == seed
    left.rename(tmp_path / "moved")
    assert start(going_on, gone) == seed
    (tmp_path / "moved").rename(left)
