"""Copies: by their values, by their losses, and by how near a program's submission lies to another model."""

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterTrouble, Forfeit
from cluster.workers import WorkerDied
from competitors.contract import Brief
from evaluation.submissions.inspection import Form
from orchestrator.record.events import Noted, TournamentEvent
from orchestrator.record.snapshot import Snapshot
from orchestrator.rounds.copies import Scored, copied
from tests.faked import FakedWorkers, faked_config, hand_in, made_up, play


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


def test_what_we_train_is_no_programs_copy_though_that_stands_before_it(tmp_path: Path):
    def hand_in_as_sft(brief: Brief) -> None:
        hand_in(brief.model_copy(update={"competitor": "sft"}))

    config = faked_config(tmp_path, rounds=1, competitors=field("p", trained=("sft",)))
    said = reasons(play(config, tmp_path / "run", FakedWorkers(acts={"p": hand_in_as_sft})))
    assert said == {"p@1": "is a copy of sft: no value differs", "sft@1": "used its budget"}


def field(*programs: str, trained: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Programs, and then recipes that we train."""
    own = [{"name": name, "kind": "sft", "learning_rate": 1e-3} for name in trained]
    return [{"name": n, "kind": "python", "entrypoint": "tests.recipes:writes_nothing"} for n in programs] + own


def reasons(played: Snapshot) -> dict[str, str]:
    rounds = played.lineages[0].rounds
    return {f"{entry.name}@{one.number}": entry.reason for one in rounds for entry in one.entries}


def near(*pairs: tuple[str, str]) -> FakedWorkers:
    """Workers to whom these pairs lie near each other, and whose losses are near where the names are."""
    said = {"p": 3.0, "o": 3.001, "sft": 3.002, "q": 2.9, "base": 4.0}
    return FakedWorkers(
        lambda name, number: said.get(name, 4.0) - number,
        apart_of=lambda ours, theirs: 0.02 if (ours, theirs) in pairs else 0.9,
    )


def test_a_program_whose_weights_are_near_those_of_what_we_trained_is_its_copy_wherever_it_stands(tmp_path: Path):
    config = faked_config(tmp_path, rounds=1, competitors=field("p", "q", trained=("sft",)))
    played = play(config, tmp_path / "run", near(("p in round-001", "sft in round-001")))
    assert reasons(played)["p@1"] == "is all but a copy of sft: their weights lie 0.02 apart of how far they moved"
    states = {entry.name: entry.state for entry in played.lineages[0].rounds[0].entries}
    assert states == {"p": "rejected", "q": "scored", "sft": "scored"}
    verdict = played.lineages[0].rounds[0].verdict
    assert verdict is not None
    assert verdict.ranking == ["q", "sft"]
    inspections = {entry.name: entry.inspection for entry in played.lineages[0].rounds[0].entries}
    q, sft = inspections["q"], inspections["sft"]
    assert q is not None
    assert (str(q.nearest), q.apart) == ("sft@1", 0.9)
    assert sft is not None
    assert sft.apart is None


def test_of_two_programs_the_first_is_the_original_and_what_we_train_is_nobodys_copy(tmp_path: Path):
    pairs = ("o in round-001", "p in round-001"), ("sft in round-001", "o in round-001")
    config = faked_config(tmp_path, rounds=1, competitors=field("p", "o", trained=("sft",)))
    said = reasons(play(config, tmp_path / "run", near(*pairs, ("p in round-001", "o in round-001"))))
    assert said["o@1"].startswith("is all but a copy of p: ")
    assert not said["p@1"].startswith("is ")
    assert not said["sft@1"].startswith("is ")


def test_an_earlier_rounds_model_is_one_that_may_be_copied_and_ones_own_is_not(tmp_path: Path):
    def again(name: str, number: int) -> float:
        return {("q", 1): 2.0, ("o", 1): 3.0, ("p", 2): 3.001, ("o", 2): 3.002}.get((name, number), 3.5 - number)

    pairs = ("p in round-002", "o in round-001"), ("o in round-002", "o in round-001")
    workers = FakedWorkers(again, apart_of=lambda *pair: 0.0 if pair in pairs else 0.9)
    said = reasons(play(faked_config(tmp_path, competitors=field("p", "o", "q")), tmp_path / "run", workers))
    assert said["p@2"] == "is all but a copy of o of round 1: their weights lie 0 apart of how far they moved"
    assert {name for name, reason in said.items() if reason.startswith("is ")} == {"p@2"}


def test_how_near_a_model_is_is_measured_once(tmp_path: Path):
    config = faked_config(tmp_path, competitors=field("p", "q", trained=("sft",)))
    stopped = near(("p in round-001", "sft in round-001"))

    def stop(name: str, args: tuple[Any, ...]) -> None:
        if stopped.calls.count("apart") > 3:  # p and q of the first round, p of the second
            raise WorkerDied("the machine is gone", node_lost=True)

    stopped.fault = stop
    with pytest.raises(ClusterTrouble):
        play(config, tmp_path / "run", stopped)
    again = near(("p in round-001", "sft in round-001"))
    played = play(config, tmp_path / "run", again)
    assert again.calls.count("apart") == 1
    whole = play(config, tmp_path / "whole", near(("p in round-001", "sft in round-001")))
    assert reasons(played) == reasons(whole)
    assert played.lineages[0].verdicts == whole.lineages[0].verdicts


def test_what_cannot_be_compared_is_scored_and_said(tmp_path: Path):
    def fails(name: str, args: tuple[Any, ...]) -> None:
        if name == "apart":
            raise Forfeit("model.safetensors cannot be read")

    heard: list[TournamentEvent] = []
    config = faked_config(tmp_path, rounds=1, competitors=field("p", trained=("sft",)))
    played = play(config, tmp_path / "run", FakedWorkers(fault=fails), tell=heard.append)
    assert [entry.state for entry in played.lineages[0].rounds[0].entries] == ["scored", "scored"]
    assert Noted("l round 1 p: not compared: model.safetensors cannot be read") in heard
