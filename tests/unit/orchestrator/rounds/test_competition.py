"""What competitors are given, and what a soup may blend."""

from pathlib import Path

import pytest

from orchestrator.field.model_ref import ModelRef
from orchestrator.record.events import TournamentEvent
from orchestrator.record.records import ModelFolder
from orchestrator.record.snapshot import Snapshot
from orchestrator.rounds.competition import brief_for
from orchestrator.rounds.context import Context
from orchestrator.rounds.evaluators import Evaluators
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
