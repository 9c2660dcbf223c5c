"""The loop when something fails, without Ray: who owns it, what is tried again, and what stops nothing."""

import time
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import BrokenRecord, ClusterTrouble, Forfeit, UserError
from cluster.workers import WorkerDied
from competitors.contract import Brief
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.changes import extend
from orchestrator.record.snapshot import Snapshot
from tests.faked import FakedWorkers, deadlines_bind, faked_config, hand_in, play
from tests.stopping import outcome
from tests.tiny import tiny_model


def test_what_an_evaluator_fails_on_is_rejected_and_never_stops_the_tournament(inputs: Path, tmp_path: Path):
    def breaks_on_b(name: str, args: tuple[Any, ...]) -> None:
        if name in ("score", "inspect") and "b" in (getattr(args[0], "name", "").partition("@")[0], args[0]):
            raise WorkerDied("was ended by SIGSEGV")

    snapshot = play(faked_config(inputs), tmp_path / "run", FakedWorkers(fault=breaks_on_b))
    assert snapshot.is_finished
    entry = snapshot.lineages[0].rounds[0].entry("b")
    assert entry is not None
    assert entry.state == "rejected"
    assert "fails on it, and not on its seed: was ended by SIGSEGV" in entry.reason
    assert snapshot.lineages[0].champion == ModelRef("a", 2)
    assert not list(snapshot.run.root.rglob("seed-check"))


def test_an_evaluator_that_fails_on_everything_stops_the_tournament_and_costs_nobody_a_round(
    inputs: Path, tmp_path: Path, undisturbed: tuple[Snapshot, int]
):
    def breaks(name: str, args: tuple[Any, ...]) -> None:
        if name in ("score", "score_model") and "base" not in args[0].name:
            raise OSError(28, "No space left on device")

    with pytest.raises(ClusterTrouble, match="No space left"):
        play(faked_config(inputs), tmp_path / "run", FakedWorkers(fault=breaks))
    assert outcome(play(faked_config(inputs), tmp_path / "run")) == outcome(undisturbed[0])


def test_a_score_that_is_not_finite_is_a_rejection_also_after_a_stop(inputs: Path, tmp_path: Path):
    def not_finite(name: str, args: tuple[Any, ...]) -> None:
        if name == "score" and args[0].name.startswith("b@"):
            raise Forfeit("its loss on the test rows is not finite")

    first = play(faked_config(inputs, rounds=1), tmp_path / "run", FakedWorkers(fault=not_finite))
    verdict = first.run.round("l", 1) / "verdict.json"
    verdict.unlink()
    again = play(faked_config(inputs, rounds=1), tmp_path / "run")
    entry = again.lineages[0].rounds[0].entry("b")
    assert entry is not None
    assert (entry.state, entry.reason) == ("rejected", "its loss on the test rows is not finite")


def test_a_winner_that_cannot_be_promoted_is_rejected_and_the_next_one_wins(inputs: Path, tmp_path: Path):
    def cannot_merge(name: str, args: tuple[Any, ...]) -> None:
        if name == "make_full" and args[1].parent.name == "b":
            raise ValueError("this adapter cannot be merged")

    snapshot = play(faked_config(inputs, rounds=1), tmp_path / "run", FakedWorkers(fault=cannot_merge))
    verdict = snapshot.lineages[0].verdicts[0]
    assert (verdict.winner, verdict.champion) == ("a", ModelRef("a", 1))
    assert verdict.ranking == ["a"]
    entry = snapshot.lineages[0].rounds[0].entry("b")
    assert entry is not None
    assert entry.state == "rejected"
    assert "this adapter cannot be merged" in entry.reason


def test_a_settled_model_that_is_gone_and_cannot_be_made_again_is_said_and_loses_nothing(inputs: Path, tmp_path: Path):
    first = play(faked_config(inputs), tmp_path / "run")
    folder = first.run.round("l", 2)
    (folder / "seed.json").unlink()

    def cannot(name: str, args: tuple[Any, ...]) -> None:
        if name == "make_full":
            raise Forfeit("holds no weights")

    with pytest.raises(BrokenRecord, match=r"verdict\.json: a model that it names is gone, and b: .*holds no weights"):
        play(faked_config(inputs), tmp_path / "run", FakedWorkers(fault=cannot))
    assert outcome(play(faked_config(inputs), tmp_path / "run")) == outcome(first)


def test_a_winner_whose_rows_are_damaged_wins_again_once_they_are_removed_as_it_says(inputs: Path, tmp_path: Path):
    first = play(faked_config(inputs), tmp_path / "run")
    (first.run.round("l", 2) / "verdict.json").unlink()
    scores = first.run.entry("l", 2, "b")
    cut_off(scores / "losses.parquet")
    with pytest.raises(BrokenRecord, match=r"losses\.parquet: cannot be read.* remove the scorecard\.json beside it"):
        play(faked_config(inputs), tmp_path / "run")
    (scores / "scorecard.json").unlink()
    assert outcome(play(faked_config(inputs), tmp_path / "run")) == outcome(first)


@pytest.mark.parametrize("damaged", ["scorecard.json", "losses.parquet"])
def test_a_champion_whose_scores_are_damaged_proves_itself_again(inputs: Path, tmp_path: Path, damaged: str):
    whole = play(faked_config(inputs), tmp_path / "whole")
    first = play(faked_config(inputs, rounds=1), tmp_path / "run")
    extend(first.run, 1)
    scores = first.run.scores("l", first.lineages[0].champion)
    cut_off(scores / damaged)
    with pytest.raises(BrokenRecord, match=f"{damaged}: .* remove"):
        play(faked_config(inputs, rounds=1), tmp_path / "run")
    (scores / "scorecard.json").unlink()
    again = play(faked_config(inputs, rounds=1), tmp_path / "run")
    assert again.lineages[0].champion == whole.lineages[0].champion
    assert again.lineages[0].verdicts[1].proof is not None


def test_a_base_that_was_changed_between_two_starts_is_refused(tmp_path: Path):
    first = play(faked_config(tmp_path, rounds=1), tmp_path / "run")
    extend(first.run, 1)
    (tmp_path / "base" / "config.json").touch()
    play(faked_config(tmp_path, rounds=1), tmp_path / "run")
    tiny_model(tmp_path / "base", seed=1)
    extend(first.run, 1)
    with pytest.raises(UserError, match=r"lineages\[l\]\.base: .* is another model than the one that"):
        play(faked_config(tmp_path, rounds=1), tmp_path / "run")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def test_a_trainer_that_dies_once_is_tried_again(inputs: Path, tmp_path: Path):
    attempts: list[int] = []

    def dies_once(brief: Brief) -> None:
        attempts.append(brief.attempt)
        hand_in(brief)
        if brief.attempt == 1:
            raise WorkerDied("was ended by SIGKILL")

    snapshot = play(faked_config(inputs, rounds=1), tmp_path / "run", FakedWorkers(acts={"a": dies_once}))
    assert attempts == [1, 2]
    tried_twice, at_once = snapshot.lineages[0].rounds[0].entries
    assert tried_twice.submission is not None
    assert at_once.submission is not None
    assert tried_twice.submission.wall_seconds > at_once.submission.wall_seconds == 0  # the lost try counts too
    assert [entry.state for entry in snapshot.lineages[0].rounds[0].entries] == ["scored", "scored"]


def test_one_that_always_dies_submits_its_last_checkpoint_or_forfeits_and_says_how(inputs: Path, tmp_path: Path):
    def dies(brief: Brief) -> None:
        raise WorkerDied("was ended by SIGKILL")

    def dies_with_a_checkpoint(brief: Brief) -> None:
        checkpoint = brief.output_dir / "checkpoint-3"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "config.json").write_text("{}")
        (checkpoint / "model.safetensors").write_bytes(b"")
        raise WorkerDied("was ended by SIGKILL")

    workers = FakedWorkers(acts={"a": dies, "b": dies_with_a_checkpoint})
    a, b = play(faked_config(inputs, rounds=1), tmp_path / "run", workers).lineages[0].rounds[0].entries
    assert (a.state, a.reason) == ("forfeit", "was ended by SIGKILL (3 times), and left no valid model")
    assert (b.state, b.reason) == ("scored", "was ended by SIGKILL (3 times)")


def test_a_node_that_is_lost_again_and_again_is_no_forfeit(
    inputs: Path, tmp_path: Path, undisturbed: tuple[Snapshot, int]
):
    def loses_its_node(brief: Brief) -> None:
        raise WorkerDied("its node is gone", node_lost=True)

    with pytest.raises(ClusterTrouble, match="its node is gone"):
        play(faked_config(inputs), tmp_path / "run", FakedWorkers(acts={"a": loses_its_node}))
    assert outcome(play(faked_config(inputs), tmp_path / "run")) == outcome(undisturbed[0])


def test_what_hangs_is_ended_wherever_it_hangs(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class BoundOnB(FakedWorkers):
        """Whatever else is scored may take its time."""

        async def call(self, shape: Any, function: Any, *args: Any, **settings: Any) -> Any:
            if function.__name__ != "score" or not args[0].name.startswith("b@"):
                settings["deadline_seconds"] = None
            return await super().call(shape, function, *args, **settings)

    def hangs(*_: Any) -> None:
        while True:
            time.sleep(0.01)

    def scoring_hangs_on_b(name: str, args: tuple[Any, ...]) -> None:
        if name == "score" and args[0].name.startswith("b@"):
            hangs()

    config = faked_config(
        inputs, rounds=1, limits={"startup_minutes": 0.005, "evaluation_minutes": 0.01},
        competitors=[
            {"name": name, "kind": "python", "entrypoint": "tests.recipes:writes_nothing"}
            for name in ("a", "b", "c")
        ],
    )  # fmt: skip
    deadlines_bind(monkeypatch, "a")
    workers = BoundOnB(acts={"a": hangs}, fault=scoring_hangs_on_b)
    a, b, c = play(config, tmp_path / "run", workers).lineages[0].rounds[0].entries
    assert a.state == "forfeit"
    assert "had not begun training" in a.reason
    assert b.state == "rejected"
    assert "had not ended after 0.6 s" in b.reason
    assert c.state == "scored"


def test_when_all_forfeit_the_base_stays(inputs: Path, tmp_path: Path):
    def gives_up(brief: Brief) -> None:
        raise Forfeit("does not want to")

    snapshot = play(faked_config(inputs), tmp_path / "run", FakedWorkers(acts={"a": gives_up, "b": gives_up}))
    assert snapshot.lineages[0].champion == ModelRef()
    assert (snapshot.run.round("l", 2) / "seed" / "model.safetensors").is_file()


def test_samples_that_fail_are_said_and_stop_nothing(inputs: Path, tmp_path: Path):
    def cannot_write(name: str, args: tuple[Any, ...]) -> None:
        if name == "generate" and "round-000" not in str(args[0]) and args[0].name != "base":
            raise RuntimeError("no words")

    snapshot = play(faked_config(inputs, rounds=1), tmp_path / "run", FakedWorkers(fault=cannot_write))
    samples = snapshot.lineages[0].rounds[0].samples
    assert samples is not None
    assert samples.samples == []
    assert "no words" in samples.reason
