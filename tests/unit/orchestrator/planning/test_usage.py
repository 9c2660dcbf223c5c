"""What of a cluster a whole budget uses."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.machine import Machine
from cluster.placement import Node
from competitors.sft.recipe import SftRecipe
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.allocation import Plan
from orchestrator.field.forecast import forecast
from orchestrator.field.whole_budget import Allocation, Corpus, Whole
from orchestrator.planning.model_shape import BaseShape, describe_base
from orchestrator.planning.plan import make_plan
from orchestrator.planning.printed import print_plan
from orchestrator.planning.usage import Cluster, Usage, assumption, in_words, usage
from tests.faked import allocated, faked_config

TOTAL = 200_000_000.0
NODE = {"CPU": 64.0, "GPU": 8.0, "memory": 2.0**40}
BILLION = BaseShape(
    layers=1, hidden=1, intermediate=1, heads=1, key_value_size=1, vocabulary=1, stored_bytes=1,
    tensors={"w": (1000, 1_000_000)},
)  # fmt: skip


def used(cluster: Cluster, whole: Whole, base: BaseShape | None = BILLION, lineages: int = 1, **settings: Any) -> Usage:
    """By four recipes over a race and two rounds of a line."""
    field = [SftRecipe.model_validate({"name": n, "kind": "sft", "learning_rate": 1e-3} | settings) for n in "abcd"]
    rules, corpus = Allocation(climb=False, several_lines=False), Corpus(rows=10_000, tokens=1_000_000)
    plan = Plan("l", rules, whole, corpus, 3, cluster.has_gpus, cluster.room, lineages)
    return usage(plan, forecast(plan, field), cluster, base)


def test_eight_gpus_race_four_recipes_and_all_run_the_line():
    one = used(Cluster({"a": Node(NODE)}, "H100"), Whole(TOTAL))
    assert (one.devices, one.used_before, one.used_by_line, one.used_alone) == (8, 4, 8, 8)
    assert one.share_before == pytest.approx(0.02)
    assert one.times_alone == pytest.approx(0.98 + 0.005 * 8, abs=1e-4)  # a miniature runs on one of eight
    alone = 6 * 1e9 * TOTAL / (989e12 * 0.4) / 8 / 3600
    assert one.hours == pytest.approx(alone * one.times_alone)
    assert in_words(one, "l") == (
        "l: of 8 GPUs the race uses 4, for 2.0% of the budget, and the line 8; it takes 0.11 h on this cluster,"
        " and one recipe alone with the same budget on 8 takes 0.11 h"
    )


def test_a_line_grows_to_the_gpus_of_all_nodes_in_a_bucket_too():
    nodes = {"a": Node(NODE), "b": Node(NODE | {"GPU": 4.0})}
    assert used(Cluster(nodes, "H100"), Whole(TOTAL)).used_by_line == 12
    assert used(Cluster(nodes, "H100", shares_disk=False), Whole(TOTAL)).used_by_line == 12


def test_a_race_of_more_than_there_is_room_for_takes_turns():
    one = used(Cluster({"a": Node(NODE | {"GPU": 3.0})}), Whole(TOTAL), batch_size=12)
    assert (one.used_before, one.used_by_line) == (3, 3)
    assert one.times_alone == pytest.approx(0.98 + 2 * 0.005 * 3, abs=1e-4)
    assert one.hours is None
    assert in_words(one, "l").endswith("how many hours is not known")


def test_lineages_share_the_cluster_and_a_budget_of_time_has_hours():
    one = used(Cluster({"a": Node(NODE)}), Whole(8 * 3600, "device_seconds"), None, lineages=2)
    assert (one.devices, one.used_before, one.used_by_line) == (4, 4, 4)
    assert one.hours == pytest.approx(2.0, rel=1e-3)  # all four of them work all the time
    assert one.times_alone == pytest.approx(1.0, rel=1e-3)


def test_on_cpus_a_line_is_one_process():
    one = used(Cluster({"a": Node({"CPU": 2.0})}), Whole(TOTAL))
    assert (one.devices, one.used_before, one.used_by_line, one.used_alone) == (2, 2, 1, 1)
    assert one.times_alone == pytest.approx(0.98 + 2 * 0.005, abs=1e-4)
    assert "of 2 CPUs the race uses 2" in in_words(one, "l")


def test_an_adapter_costs_a_third_less():
    whole, adapter = (
        used(Cluster({"a": Node(NODE)}, "H100"), Whole(TOTAL), adapter=a) for a in (None, {"method": "lora"})
    )
    assert adapter.hours == pytest.approx((whole.hours or 0) * 2 / 3)


def test_plan_says_what_stands_idle_and_the_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    node = Machine(memory_gb=500, gpus=8, gpu_memory_gb=80, cpus=96, gpu_kind="H100")
    monkeypatch.setattr("orchestrator.planning.place.machine_here", lambda: node)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    plan = make_plan(allocated(tmp_path), tmp_path / "it.yaml", None)
    one = plan.allocations[0].usage
    assert one
    assert (one.devices, one.used_before, one.used_by_line) == (8, 2, 8)
    assert one.hours
    assert assumption("H100") in plan.assumptions
    print_plan(Console(width=160), plan)
    assert in_words(one, "l") in capsys.readouterr().out
    rounds = plan.allocations[0].rounds
    assert all(row.tokens_each and row.hours_each for row in rounds)
    longest = next(row for row in rounds if row.phase == "line")
    parameters = describe_base(str(tmp_path / "base"), tmp_path).parameters  # type: ignore[union-attr]
    assert longest.hours_each == pytest.approx(6 * parameters * longest.tokens_each / (989e12 * 0.4) / 8 / 3600)  # type: ignore[operator]
    elsewhere = make_plan(allocated(tmp_path, cluster={"address": "auto"}), tmp_path / "it.yaml", None)
    assert elsewhere.allocations[0].usage is None
    assert {row.hours_each for row in elsewhere.allocations[0].rounds} == {None}


def text_of(config: TournamentConfig, folder: Path, cluster: str) -> str:
    console = Console(width=300, record=True)
    print_plan(console, make_plan(config, folder / "it.yaml", None, Path(cluster)))
    return console.export_text()


def test_a_budget_of_gpu_hours_is_said_in_gpu_hours(tmp_path: Path):
    text = text_of(allocated(tmp_path, budget={"total_gpu_hours": 16}), tmp_path, "8xH100")
    assert "at most 16.0 GPU hours\n" in text
    assert "% of the GPU hours on the champion's own line" in text
    assert "hours each" in text
    assert "tokens" not in text.partition("allocation of l")[2].partition("titles:")[0]


def test_what_short_data_leaves_of_a_budget_and_fewer_rounds_are_said(tmp_path: Path):
    large = {"budget": {"total_tokens": 10_000_000}, "allocation": {"climb": False}}
    config = allocated(tmp_path, rounds=7, **large)
    plan = make_plan(config, tmp_path / "it.yaml", None, Path("8xH100"))
    one = plan.allocations[0]
    assert one.tokens == plan.training_tokens
    assert one.tokens == pytest.approx((1 - one.share_left_over) * 10_000_000)
    assert one.share_left_over > 0.5
    text = text_of(config, tmp_path, "8xH100")
    assert f"faked: {len(one.rounds)} rounds of at most 7, 1 lineage" in text
    assert f"at least {one.share_left_over:.0%} of them are left over, since more passes would overfit" in text
    assert f"at most {plan.training_tokens:,} training tokens" in text
    assert "left over" not in text_of(allocated(tmp_path), tmp_path, "8xH100")


def test_gpus_of_unknown_speed_are_said_to_be(tmp_path: Path):
    minutes = faked_config(tmp_path, budget={"minutes": 30, "tokens": 1000})
    text = text_of(minutes, tmp_path, "8xA100-80GB")
    assert "1.00 h from beginning to end" in text
    assert "how fast a A100-80GB is is not known" in text
    assert "how many hours is not known" in text_of(allocated(tmp_path), tmp_path, "8xA100-80GB")
