"""Rounds that each choose by rows of their own: who is scored on what, and what a verdict compares."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from cluster.errors import ClusterTrouble
from competitors.contract import Brief
from evaluation.data.split import Split
from evaluation.evaluator import WORST_NATS, score_again
from evaluation.results import read_results
from evaluation.scorecard import SplitScore
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.record.changes import extend
from orchestrator.record.jobs import scoring_job
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import Snapshot
from orchestrator.views.leaderboard import build
from orchestrator.views.report import write_report
from tests.faked import ROWS, FakedWorkers, faked_config, hand_in, play
from tests.tiny import tiny_rows, write_jsonl


class Judges(FakedWorkers):
    """`a` of the first round was lucky in its rows: on any others it is as bad as the base."""

    def _score_split(self, job: Any, split: Split) -> SplitScore:
        before = self.loss_of
        if job.name == "a@1" and split not in ("validation", "proof"):
            self.loss_of = lambda name, number: 4.0
        try:
            return super()._score_split(job, split)
        finally:
            self.loss_of = before


def rotating(inputs: Path, **settings: Any) -> TournamentConfig:
    inputs.mkdir(exist_ok=True)
    if not (inputs / "many.jsonl").exists():
        write_jsonl(inputs / "many.jsonl", tiny_rows(600))
    given = {"rounds": 3, "data": faked_config(inputs).data.model_dump()} | settings
    given["data"] |= {"source": str(inputs / "many.jsonl"), "validation": {"rows": 2 * ROWS, "rotate": True}}
    return faked_config(inputs, **given)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


def luck(name: str, number: int) -> float:
    return {("a", 1): 2.0, ("b", 1): 3.0, ("a", 2): 3.2, ("b", 2): 3.5}.get((name, number), 4.0)


def splits_of(snapshot: Snapshot, model: ModelRef) -> set[str]:
    file = snapshot.run.scores("l", model) / "losses.parquet"
    return set(pq.read_table(file, columns=["split"])["split"].to_pylist())


def test_each_round_chooses_by_rows_of_its_own_on_which_the_incumbents_are_scored_again(inputs: Path, tmp_path: Path):
    snapshot = play(rotating(inputs), tmp_path / "run", Judges(luck))
    first, second, third = snapshot.lineages[0].verdicts
    assert first.champion == first.seed_next == ModelRef("a", 1)
    assert first.validation_loss == pytest.approx(2.0)
    # On fresh rows it is seen for what it is: what is worth more goes on, though it has a higher loss on record.
    assert second.winner == "a"
    assert second.seed_next == ModelRef("a", 2)
    standing = second.standing("a")
    assert standing is not None
    assert standing.improvement == pytest.approx(4.0 - 3.2)
    assert splits_of(snapshot, BASE) == {"validation", "proof", "test"}
    assert {"validation", "validation-2"} <= splits_of(snapshot, ModelRef("a", 1))
    assert splits_of(snapshot, ModelRef("b", 1)) == {"validation"}
    assert splits_of(snapshot, ModelRef("b", 2)) == {"validation-2"}
    assert third.seed_before == second.seed_next


def test_what_is_scored_already_is_not_scored_again_and_a_stop_changes_nothing(inputs: Path, tmp_path: Path):
    whole = play(rotating(inputs), tmp_path / "whole", Judges(luck))
    calls: list[str] = []

    def once(name: str, args: tuple[Any, ...]) -> None:
        calls.append(name)
        if name == "score_again" and calls.count(name) == 2:
            raise ClusterTrouble("the power is gone")

    with pytest.raises(ClusterTrouble):
        play(rotating(inputs), tmp_path / "stopped", Judges(luck, fault=refuse))
    stopped = play(rotating(inputs), tmp_path / "stopped", Judges(luck, fault=once))
    assert [v.model_dump() for v in stopped.lineages[0].verdicts] == [
        v.model_dump() for v in whole.lineages[0].verdicts
    ]
    again = Judges(luck)
    play(rotating(inputs), tmp_path / "stopped", again)
    assert "score_again" not in again.calls


def refuse(name: str, args: tuple[Any, ...]) -> None:
    if name == "score_again":
        raise ClusterTrouble("the power is gone")


def test_rounds_that_are_added_take_the_rows_of_the_first_ones_again(inputs: Path, tmp_path: Path):
    play(rotating(inputs), tmp_path / "run", Judges(luck))
    extend(RunDirectory(tmp_path / "run"), 2)
    snapshot = play(rotating(inputs), tmp_path / "run", Judges(luck))
    assert splits_of(snapshot, ModelRef("b", 4)) == {"validation"}
    assert splits_of(snapshot, ModelRef("b", 5)) == {"validation-2"}


def test_the_report_sets_validation_against_test(inputs: Path, tmp_path: Path):
    snapshot = play(rotating(inputs), tmp_path / "run", Judges(luck))
    page = write_report(snapshot, "finished").read_text()
    assert "Validation against test" in page
    row = page.split('id="overfitting"')[1].split("</table>")[0]
    assert row.count('<tr><th scope="row">') == sum(v.dethroned for v in snapshot.lineages[0].verdicts)
    assert "+2.0000" in row  # gained over the base on the rows that chose it
    assert "+0.0000" in row or "−0.0000" in row  # and nothing on test
    assert 'class="n bad">+2.0000' in row


def test_a_model_that_passed_is_not_taken_back_for_a_row_on_which_it_has_no_loss(tmp_path: Path):
    """Only fresh rows show it, and then whoever has a number there leads."""
    inputs = tmp_path / "inputs"
    config = rotating(inputs)
    run = RunDirectory(tmp_path / "run")
    play(config, run.root, FakedWorkers())
    weights = load_file(inputs / "base" / "model.safetensors")
    weights["lm_head.weight" if "lm_head.weight" in weights else "model.embed_tokens.weight"] *= float("inf")
    broken = tmp_path / "broken"
    shutil.copytree(inputs / "base", broken)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    score_again(scoring_job(run, config, "broken", broken, inputs / "base", tmp_path / "out", 2))
    rows = read_results(tmp_path / "out" / "losses.parquet", "validation-2")
    assert rows.loss == WORST_NATS


class Returns(FakedWorkers):
    """`b` of round 2 seeds without proof; on the rows of the third round `a` of the first is the best again."""

    def _score_split(self, job: Any, split: Split) -> SplitScore:
        losses = {("a", 1): 2.0, ("b", 1): 3.0, ("a", 2): 2.5, ("b", 2): 1.9999, ("a", 3): 2.6, ("b", 3): 2.7}
        if split not in ("validation-2", "proof"):
            losses["b", 2] = 2.1
        before, self.loss_of = self.loss_of, lambda name, number: losses.get((name, number), 4.0)
        try:
            return super()._score_split(job, split)
        finally:
            self.loss_of = before


def test_a_champion_that_is_the_seed_again_has_its_continuation(inputs: Path, tmp_path: Path):
    given = dict[tuple[int, str], bool]()

    def act(brief: Brief) -> None:
        if brief.seed_continuation is not None:
            given[brief.round, brief.seed_continuation.parent.name] = brief.seed_continuation.exists()
        hand_in(brief)

    played = play(rotating(inputs, rounds=4), tmp_path / "run", Returns(acts={"a": act, "b": act}))
    assert [str(one.seed_next) for one in played.lineages[0].verdicts[:3]] == ["a@1", "b@2", "a@1"]
    assert given == {(2, "a"): True, (3, "b"): True, (4, "a"): True}


def test_a_champions_loss_in_the_leaderboard_is_on_the_rows_of_its_round(inputs: Path, tmp_path: Path):
    played = play(rotating(inputs), tmp_path / "run", Judges(luck))
    board = build(played, "finished").lineages[0]
    assert [row.validation_loss for row in board.rounds[1:]] == [v.validation_loss for v in played.lineages[0].verdicts]
