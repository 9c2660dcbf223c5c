"""The loop with a whole budget, without Ray: race, climb, line, lines, and what cannot be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterTrouble, Forfeit, UserError
from cluster.workers import WorkerDied
from competitors.contract import Brief
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.changes import extend, withdraw
from orchestrator.record.run_directory import RunDirectory
from tests.faked import FakedWorkers, allocated, climbing, faked_config, hand_in, play


def test_a_whole_budget_is_raced_for_climbs_and_goes_into_one_line(inputs: Path, tmp_path: Path):
    snapshot = play(allocated(inputs), tmp_path / "run", FakedWorkers(climbing))
    lineage = snapshot.lineages[0]
    assert [one.roster.phase for one in lineage.rounds] == ["race", "climb", "line", "line"]
    assert [v.seed_next for v in lineage.verdicts] == [
        ModelRef("a", 1), ModelRef("a.2b", 2), ModelRef("a.2b", 3), ModelRef("a.2b", 4)
    ]  # fmt: skip
    assert lineage.champion == ModelRef("a.2b", 4)
    handed_in = {
        name: json.loads(path.read_text())
        for name in ("a.2b", "a.2c")
        for path in sorted(snapshot.run.lineage("l").glob(f"*/{name}/submission/config.json"))
    }
    assert handed_in["a.2c"]["after"] == "a in round-001"
    assert handed_in["a.2b"]["after"] == "a.2b in round-003"
    base = {entry.brief.seed_sha256 for one in lineage.rounds for entry in one.entries if entry.brief}
    assert len(base) == 1, "what goes on stands on what its forebear stood on"
    spent = [e.submission.train_tokens for one in lineage.rounds for e in one.entries if e.submission]
    assert 99_990 < sum(spent) <= 100_000
    kept = sorted(str(path.parent.parent.name) for path in snapshot.run.root.rglob("continuation.json"))
    assert kept == ["a.2b"]


def test_short_data_ends_in_a_soup_of_several_lines(inputs: Path, tmp_path: Path):
    def loss(name: str, number: int) -> float:
        return climbing(name, number) - (1.0 if name == "soup-of-3" else 0.0)

    config = allocated(inputs, rounds=5, allocation={})
    snapshot = play(config, tmp_path / "run", FakedWorkers(loss))
    lineage = snapshot.lineages[0]
    assert [one.roster.phase for one in lineage.rounds] == ["race", "climb", "lines", "lines", "soup"]
    assert snapshot.is_finished
    assert lineage.champion == ModelRef("soup-of-3", 5)
    soup = lineage.entry(lineage.champion)
    assert soup is not None
    assert soup.brief is not None
    assert len(soup.brief.ingredients) == 3
    assert {one.seed_sha256 for one in soup.brief.ingredients} == {soup.brief.seed_sha256}
    orders = [e.brief.random_seed for one in lineage.rounds[2:4] for e in one.entries if e.brief]
    assert len(set(orders)) == len(orders) == 8


def test_a_line_that_fails_for_a_round_goes_on_from_where_it_was(inputs: Path, tmp_path: Path):
    def fails_once(brief: Brief) -> None:
        if brief.round == 3:
            raise Forfeit("lost its way")
        hand_in(brief)

    workers = FakedWorkers(climbing, acts={"a.2b": fails_once})
    lineage = play(allocated(inputs), tmp_path / "run", workers).lineages[0]
    assert lineage.verdicts[2].seed_next == ModelRef("a.2b", 2)
    last = lineage.rounds[3].roster.entries[0]
    assert (last.continues, last.span) == (ModelRef("a.2b", 2), (0.0, 1.0))


def test_a_line_takes_the_cluster_and_waits_for_one_that_can_hold_it(inputs: Path, tmp_path: Path):
    def lost(name: str, args: tuple[Any, ...]) -> None:
        if name == "compete" and args[0].round == 3:
            raise WorkerDied("the machine is gone", node_lost=True)

    config = allocated(inputs, allocation={"several_lines": False, "workers": 4, "step_tokens": 60})
    with pytest.raises(ClusterTrouble):
        play(config, tmp_path / "run", FakedWorkers(climbing, fault=lost, room=4))
    with pytest.raises(ClusterTrouble, match="asks for 4 workers of 1 CPU each, which this cluster can never hold"):
        play(config, tmp_path / "run", FakedWorkers(climbing, room=2, cpus=2))
    lineage = play(config, tmp_path / "run", FakedWorkers(climbing, room=2)).lineages[0]
    assert lineage.champion == ModelRef("a.2b", 4)
    held = [{e.brief.resources.workers for e in one.entries if e.brief} for one in lineage.rounds]
    assert held == [{1}, {1}, {4}, {2}]  # a round that is on record stays as it is


@pytest.mark.parametrize("change", [lambda run: extend(run, 1), lambda run: withdraw(run, "a")])
def test_a_whole_budget_leaves_nothing_for_later_changes(
    inputs: Path, tmp_path: Path, change: Callable[[RunDirectory], object]
):
    snapshot = play(allocated(inputs), tmp_path / "run", FakedWorkers(climbing))
    with pytest.raises(UserError, match="its whole budget is shared out"):
        change(snapshot.run)


def test_a_whole_budget_in_equal_rounds(inputs: Path, tmp_path: Path):
    config = faked_config(inputs, budget={"total_tokens": 4001}, allocation={"kind": "equal"})
    lineage = play(config, tmp_path / "run").lineages[0]
    assert [[e.budget and e.budget.tokens for e in one.roster.entries] for one in lineage.rounds] == [[1000, 1000]] * 2


def test_gpu_hours_want_gpus(inputs: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"budget.total_gpu_hours: there is no GPU here"):
        play(allocated(inputs, budget={"total_gpu_hours": 1}), tmp_path / "run")
