"""What competitors are given, and what a soup may blend."""

from pathlib import Path

import pytest

from competitors.contract import Brief
from evaluation.submissions.inspection import Form
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.events import TournamentEvent
from orchestrator.record.records import ModelFolder
from orchestrator.record.snapshot import Snapshot
from orchestrator.rounds.competition import Scored, brief_for, copied
from orchestrator.rounds.context import Context
from orchestrator.rounds.evaluators import Evaluators
from tests.faked import FakedWorkers, faked_config, hand_in, made_up, play


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


def model(form: Form, identity: str, loss: float) -> Scored:
    return Scored(form, identity, made_up(loss, "the same rows"))


def test_what_has_another_entrys_content_is_its_copy():
    contents = {"aa-copy": "x", "a": "x", "b": "y", "c": "", "d": "", "soup": "y"}
    entered = {name: model("full", content, index) for index, (name, content) in enumerate(contents.items())}
    reasons = {"a": "is a copy of aa-copy: no value differs", "soup": "is a copy of b: no value differs"}
    assert copied(entered, {}) == reasons
    assert copied({}, entered) == {}


def test_an_adapter_is_a_copy_of_what_has_the_same_losses_and_the_other_way_round():
    seed, champion = model("full", "", 3.0), model("full", "", 2.0)
    entered = {
        "moved": model("adapter", "u", 2.5),
        "merged": model("full", "v", 2.5 + 1e-7),
        "rescaled": model("adapter", "w", 2.5 - 1e-7),
        "a step on": model("full", "x", 2.5 + 1e-5),
        "idle": model("adapter", "y", 3.0),
        "reigning": model("adapter", "z", 2.0),
        "a hair": model("full", "seed's but for one value", 3.0),
    }
    assert copied(entered, {"its seed": seed, "the champion": champion}) == {
        "merged": "is a copy of moved: all rows have the same losses",
        "rescaled": "is a copy of moved: all rows have the same losses",
        "idle": "is a copy of its seed: all rows have the same losses",
        "reigning": "is a copy of the champion: all rows have the same losses",
    }


def test_a_copy_is_rejected_and_names_what_it_copies(tmp_path: Path):
    def hand_in_as_a(brief: Brief) -> None:
        hand_in(brief.model_copy(update={"competitor": "a"}))

    played = play(faked_config(tmp_path, rounds=1), tmp_path / "run", FakedWorkers(acts={"b": hand_in_as_a}))
    entries = {entry.name: entry for entry in played.lineages[0].rounds[0].entries}
    assert entries["a"].state == "scored"
    assert (entries["b"].state, entries["b"].reason) == ("rejected", "is a copy of a: no value differs")
    verdict = played.lineages[0].rounds[0].verdict
    assert verdict is not None
    assert verdict.ranking == ["a"]
