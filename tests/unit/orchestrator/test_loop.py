"""The whole loop without Ray: from base to champion, going on after a stop at any moment, and changes on the way."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterTrouble
from cluster.workers import WorkerDied
from competitors.contract import Brief
from evaluation.compare import Tail
from orchestrator import tournament
from orchestrator.config.loading import load_config
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.spending import level
from orchestrator.record.changes import enter, extend, withdraw
from orchestrator.record.events import ChampionCrowned, EntryChanged, RoundBegan, TournamentEvent, VerdictReached
from orchestrator.record.records import Proof
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import Snapshot
from orchestrator.rounds.proving import prove
from tests.faked import FakedWorkers, allocated, climbing, faked_config, falling, play
from tests.stopping import Stopped, StoppingStore, models, outcome
from tests.tiny import tiny_model


def test_from_base_to_champion(inputs: Path, tmp_path: Path):
    heard: list[TournamentEvent] = []
    snapshot = play(faked_config(inputs), tmp_path / "run", tell=heard.append)
    assert snapshot.is_finished
    assert snapshot.lineages[0].champion == ModelRef("b", 2)
    first, second = snapshot.lineages[0].verdicts
    assert (first.champion, first.seed_next, first.champion_before) == (ModelRef("b", 1), ModelRef("b", 1), ModelRef())
    assert second.seed_before == first.seed_next
    states = [e.state for e in heard if isinstance(e, EntryChanged) and e.key == ("l", 1, "a")]
    assert list(dict.fromkeys(states)) == ["queued", "training", "delivered", "inspected", "scored"]
    kinds = [type(e) for e in heard if isinstance(e, RoundBegan | VerdictReached | ChampionCrowned)]
    assert kinds == [RoundBegan, VerdictReached, ChampionCrowned] * 2
    briefs = [entry.brief for round_ in snapshot.lineages[0].rounds for entry in round_.entries]
    assert all(brief is not None and "held_out" not in brief.model_dump_json() for brief in briefs)


def test_a_finished_tournament_does_nothing_again(inputs: Path, tmp_path: Path):
    before = play(faked_config(inputs), tmp_path / "run")
    workers, heard = FakedWorkers(), list[TournamentEvent]()
    after = play(faked_config(inputs), tmp_path / "run", workers, tell=heard.append)
    assert workers.calls == []
    assert [e.again for e in heard if isinstance(e, VerdictReached | ChampionCrowned)] == [True] * 4
    assert outcome(before) == outcome(after)


@pytest.mark.parametrize(
    ("of", "every"),
    [(faked_config, 2), (allocated, 5), pytest.param(faked_config, 1, marks=pytest.mark.slow)],
    ids=["equal rounds", "a whole budget", "each"],
)
def test_it_goes_on_from_between_any_two_writes(
    inputs: Path, tmp_path: Path, of: Callable[[Path], TournamentConfig], every: int
):
    config, counting = of(inputs), StoppingStore()

    def run(folder: str, store: StoppingStore) -> Snapshot:
        return play(config, tmp_path / folder, FakedWorkers(climbing, store=store), store)

    whole = run("whole", counting)
    assert counting.count > 30
    for last in range(1, counting.count + 1, every):
        with pytest.raises((Stopped, ClusterTrouble)):  # the latter where it was a worker that wrote
            run(str(last), StoppingStore(last))
        again = run(str(last), StoppingStore())
        assert outcome(again) == outcome(whole), f"stopped before operation {last}"
        assert models(again) == models(whole), f"stopped before operation {last}"


def test_it_goes_on_from_any_call_of_a_worker(inputs: Path, tmp_path: Path, undisturbed: tuple[Snapshot, int]):
    whole, _ = undisturbed
    counted = FakedWorkers()
    play(faked_config(inputs), tmp_path / "counted", counted)
    for last in range(1, len(counted.calls) + 1):
        workers = FakedWorkers()

        def stop(name: str, args: tuple[Any, ...], workers: FakedWorkers = workers, last: int = last) -> None:
            if len(workers.calls) >= last:
                raise WorkerDied("the machine is gone", node_lost=True)

        workers.fault = stop
        with pytest.raises(ClusterTrouble):
            play(faked_config(inputs), tmp_path / str(last), workers)
        assert outcome(play(faked_config(inputs), tmp_path / str(last))) == outcome(whole), f"stopped at call {last}"


def test_a_run_that_was_moved_goes_on(inputs: Path, tmp_path: Path, undisturbed: tuple[Snapshot, int]):
    whole, operations = undisturbed
    with pytest.raises((Stopped, ClusterTrouble)):
        play(faked_config(inputs), tmp_path / "here", store=StoppingStore(operations * 2 // 3))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").rename(tmp_path / "elsewhere" / "there")
    moved = play(faked_config(inputs), tmp_path / "elsewhere" / "there")
    assert outcome(moved) == outcome(whole)
    texts = [path.read_text() for path in moved.run.root.rglob("*.json")]
    assert not any(str(tmp_path / "here") in text for text in texts)


def test_a_run_with_changes_is_repeated_from_its_own_config(inputs: Path, tmp_path: Path):
    config = faked_config(inputs, evolution={"replace": 0.5}, competitors=[
        {"name": name, "kind": "sft", "learning_rate": rate} for name, rate in (("a", 1e-3), ("b", 2e-3), ("c", 3e-3))
    ])  # fmt: skip
    play(config, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    extend(run, 1)
    withdraw(run, "b")
    enter(run, [config.competitors[0].model_copy(update={"name": "late"})])
    whole = play(config, tmp_path / "run")
    fields = [[entry.name for entry in round_.entries] for round_ in whole.lineages[0].rounds]
    assert len(fields) == 3
    assert "late" in fields[2]
    assert "b" not in fields[2]
    again = play(load_config(run.config_file), tmp_path / "again")
    assert outcome(again) == outcome(whole)
    assert [[entry.name for entry in round_.entries] for round_ in again.lineages[0].rounds] == fields


def test_tied_losses_and_falling_ones_are_told_apart(inputs: Path, tmp_path: Path):
    """The base stays champion where nobody is better, and seeds again."""
    workers = FakedWorkers(loss_of=lambda name, number: falling(name, 0) + number)
    verdict = play(faked_config(inputs, rounds=1), tmp_path / "run", workers).lineages[0].verdicts[0]
    assert (verdict.dethroned, verdict.seed_next, verdict.champion) == (False, ModelRef(), ModelRef())


def test_a_small_field_is_judged_with_what_was_entered_before_it(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[list[Tail]] = []

    def proved(*args: Any) -> Proof:
        asked.append(list(args[-1]))
        return prove(*args)

    monkeypatch.setattr(tournament, "prove", proved)
    snapshot = play(faked_config(inputs, rounds=3), tmp_path / "run")
    first, second, _ = ([one.tail for one in v.entries] for v in snapshot.lineages[0].verdicts)
    assert all(one.skewness and one.worst for one in first + second)
    assert asked == [[], first, [*second, *first]]


def test_what_may_change_is_on_record_as_it_was_last_started(inputs: Path, tmp_path: Path):
    def lost(brief: Brief) -> None:
        raise WorkerDied("the node is gone", node_lost=True)

    config = faked_config(inputs, tracking={"uri": "http://old:5000"})
    with pytest.raises(ClusterTrouble):
        play(config, tmp_path / "run", FakedWorkers(acts={"a": lost}))
    field = [recipe.model_dump(by_alias=True) for recipe in config.competitors]
    field[0]["resources"]["memory_gb"] = 4
    news = {"tracking": {"uri": "http://new:5000"}, "limits": {"grace_minutes": 7}, "competitors": field}
    snapshot = play(faked_config(inputs, **news), tmp_path / "run")
    assert snapshot.config.tracking.uri == "http://new:5000"
    assert snapshot.config.limits.grace_minutes == 7
    memory = [
        {entry.name: entry.brief.resources.memory_gb for entry in one.entries if entry.brief}
        for one in snapshot.lineages[0].rounds
    ]
    assert memory[0]["a"] == 4, "in the round that was stopped over it too"
    assert memory[1] == {"a": 4, "b": None}
    extend(snapshot.run, 1)
    assert play(config, tmp_path / "run").config.all_rounds == 3, "changes stay"


def test_who_was_withdrawn_and_what_was_scored_need_not_be_possible_any_more(inputs: Path, tmp_path: Path):
    tiny_model(tmp_path / "reference")
    field = [
        {"name": name, "kind": "sft", "learning_rate": 1e-3, "resources": {"cpus": cpus}}
        for name, cpus in (("a", 1), ("b", 8))
    ]
    references = [{"name": "r", "model": str(tmp_path / "reference")}]
    config = faked_config(inputs, rounds=1, competitors=field, references=references)
    run = play(config, tmp_path / "run", FakedWorkers(cpus=8)).run
    shutil.rmtree(tmp_path / "reference")
    extend(run, 1)
    with pytest.raises(ClusterTrouble, match="8"):
        play(config, tmp_path / "run", FakedWorkers(cpus=4))
    withdraw(run, "b")
    assert play(config, tmp_path / "run", FakedWorkers(cpus=4)).is_finished


def test_what_was_spent_of_the_chance_to_err_is_gone_for_the_rounds_that_follow(inputs: Path, tmp_path: Path):
    """`a` leads in round 1, by nothing that could be proved."""
    losses = {("a", 1): 3.9999, ("a", 2): 3.0}
    workers = FakedWorkers(lambda name, number: losses.get((name, number), 4.0 if number == 0 else 4.5))
    first, second = play(faked_config(inputs), tmp_path / "run", workers).lineages[0].verdicts
    assert first.proof is not None
    assert second.proof is not None
    assert (first.dethroned, second.dethroned) == (False, True)
    assert first.spent == first.proof.level > 0
    assert second.proof.level == pytest.approx(level(0.05, [2, 2], first.spent))


def test_what_a_killed_driver_was_writing_is_swept_when_it_goes_on(inputs: Path, tmp_path: Path):
    run = play(faked_config(inputs, rounds=1), tmp_path / "run").run
    half = run.round("l", 1) / ".seed.0a1b2c3d.tmp"
    half.mkdir()
    play(faked_config(inputs, rounds=1), tmp_path / "run")
    assert not half.exists()
