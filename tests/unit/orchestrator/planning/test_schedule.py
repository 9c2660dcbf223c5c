"""How a tournament fills a cluster."""

from pathlib import Path
from typing import Any

import pytest

from cluster.placement import Node
from cluster.resources import ACCELERATOR_LABEL
from competitors.contract import Allowance
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.next_round import first_roster, with_budget
from orchestrator.field.roster import Roster
from orchestrator.planning.model_shape import BaseShape
from orchestrator.planning.plan import make_plan
from orchestrator.planning.printed import print_plan
from orchestrator.planning.schedule import Schedule, equal_rounds, in_words, races_in_vain, schedule
from orchestrator.planning.usage import Cluster
from tests.faked import allocated, faked_config

CLUSTER = Path(__file__).parents[4] / "cluster"
H100, L4 = ({ACCELERATOR_LABEL: kind} for kind in ("H100", "L4"))
TWO = Cluster({"a": Node({"CPU": 8.0, "GPU": 2.0}, H100)}, "H100")
BILLION = BaseShape(
    layers=1, hidden=1, intermediate=1, heads=1, key_value_size=1, vocabulary=1, stored_bytes=1,
    tensors={"w": (1000, 1_000_000)},
)  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


def entries(inputs: Path, *resources: dict[str, Any]) -> list[dict[str, Any]]:
    faked_config(inputs)
    recipe = {"kind": "sft", "learning_rate": 1e-3}
    return [recipe | {"name": f"e{n}", "resources": one} for n, one in enumerate(resources)]


def field(inputs: Path, *resources: dict[str, Any], **settings: Any) -> TournamentConfig:
    return faked_config(inputs, **({"competitors": entries(inputs, *resources)} | settings))


def rounds_of(config: TournamentConfig, *hours: float) -> list[Roster]:
    """A round for each of `hours`, which is how long its entries take."""
    roster = first_roster("l", config.competitors, [])
    return [with_budget(roster, Allowance(seconds=one * 3600)) for one in hours]


def scheduled(cluster: Cluster, *lineages: list[Roster], prices: Any = None, base: Any = None) -> Schedule:
    found = schedule([(rounds, base) for rounds in lineages], cluster, prices or {})
    assert found is not None
    return found


def test_entries_run_in_waves_and_rounds_one_after_another(inputs: Path):
    one = scheduled(TWO, rounds_of(field(inputs, *[{"gpus": 1}] * 3), 1.0, 0.5), prices={"H100": 3.0})
    assert (one.entries_at_once, one.devices_at_once, one.devices) == (2, 2, 2)
    assert (one.hours, one.hours_unlimited) == (2 * 1.0 + 2 * 0.5, 1.5)
    assert one.device_hours == {"H100": 4.5}
    assert one.cost == 13.5
    assert in_words(one) == (
        "at once at most 2 entries, on 2 of 2 GPUs; 3.00 h from beginning to end (1.50 h if all of a round ran at"
        " once), 4.50 hours of H100, cost 13.50"
    )


def test_lineages_run_side_by_side_and_a_short_round_makes_room_for_another(inputs: Path):
    single = field(inputs, {"gpus": 1})
    one = scheduled(TWO, rounds_of(single, 1.0, 1.0), rounds_of(single, 3.0), rounds_of(single, 1.0))
    # At first two of three; the third lineage begins when the first has ended its first round.
    assert (one.entries_at_once, one.hours, one.hours_unlimited) == (2, 3.0, 3.0)
    assert one.device_hours == {"H100": 6.0}
    assert one.cost is None


def test_a_gang_stands_on_several_nodes_and_each_kind_has_its_price(inputs: Path):
    both = Cluster({"a": Node({"CPU": 2.0, "GPU": 1.0}, H100), "b": Node({"CPU": 8.0, "GPU": 2.0}, L4)})
    gang = field(inputs, {"workers": 3, "gpus": 1}, {"gpus": 0.5, "labels": {ACCELERATOR_LABEL: "L4"}})
    one = scheduled(both, rounds_of(gang, 2.0), prices={"H100": 4.0, "L4": 1.0})
    assert (one.entries_at_once, one.devices_at_once, one.hours) == (1, 3, 4.0)  # the gang takes all, then the other
    assert one.device_hours == {"H100": 2.0, "L4": 4.0 + 1.0}
    assert one.cost == 2 * 4.0 + 5 * 1.0


def test_what_never_fits_has_no_schedule_and_what_is_not_known_no_hours(inputs: Path):
    assert schedule([(rounds_of(field(inputs, {"workers": 3, "gpus": 1}), 1.0), None)], TWO, {}) is None
    tokens = equal_rounds(field(inputs, {"gpus": 1}, budget={"tokens": 1000}), "l", True)
    one = scheduled(TWO, tokens, prices={"H100": 3.0})
    assert (one.entries_at_once, one.hours, one.hours_unlimited, one.device_hours, one.cost) == (
        1,
        None,
        None,
        {},
        None,
    )
    assert in_words(one) == "at once at most 1 entry, on 1 of 2 GPUs; how many hours is not known"


def test_tokens_last_as_long_as_the_base_and_the_gpu_make_them(inputs: Path):
    config = field(inputs, {"gpus": 1}, budget={"tokens": 10**9})
    alone = 6 * 1e9 * 1e9 / (989e12 * 0.4) / 3600
    one = scheduled(TWO, equal_rounds(config, "l", True), base=BILLION)
    assert one.hours == pytest.approx(2 * alone)
    for minutes, each in ((60, 1.0), (600, alone)):  # whichever ends first
        both = field(inputs, {"gpus": 1}, budget={"tokens": 10**9, "minutes": minutes})
        assert scheduled(TWO, equal_rounds(both, "l", True), base=BILLION).hours == pytest.approx(2 * each)


def test_controls_cost_nothing_and_a_whole_budget_of_equal_rounds_is_shared(inputs: Path):
    both = [*entries(inputs, {"workers": 2, "gpus": 1}), {"name": "control", "kind": "unchanged"}]
    config = faked_config(inputs, competitors=both, budget={"total_gpu_hours": 8}, allocation={"kind": "equal"})
    one = scheduled(TWO, equal_rounds(config, "l", True))
    assert (one.entries_at_once, one.hours, one.device_hours) == (1, 4.0, {"H100": 8.0})


def test_racing_needs_room_for_an_evaluator_beside_the_entry(inputs: Path):
    one_gpu, race = Cluster({"a": Node({"CPU": 8.0, "GPU": 1.0}, H100)}), {"at": [0.5]}
    whole, part = {"gpus": 1}, {"gpus": 0.7}
    assert races_in_vain(field(inputs, whole), one_gpu) == []
    (words,) = races_in_vain(field(inputs, whole, part, racing=race), one_gpu)
    assert words.startswith("racing: cannot stop e0, e1: no evaluator has room beside it; ")
    shared = {"racing": race, "evaluation": {"resources": {"gpus": 0.25}}}
    (words,) = races_in_vain(field(inputs, whole, part, **shared), one_gpu)
    assert words.startswith("racing: cannot stop e0: ")
    assert races_in_vain(field(inputs, whole, racing=race), TWO) == []
    assert races_in_vain(field(inputs, {"gpus": 0}, racing=race), Cluster({"a": Node({"CPU": 1.0})})) == []
    config = field(inputs, whole, racing=race, evaluation={"resources": {"gpus": 24}})
    assert any(
        "cannot stop e0" in line for line in make_plan(config, inputs / "it.yaml", None, CLUSTER / "aws.yaml").warnings
    )


def test_plan_says_what_it_costs_on_a_cluster_on_paper(inputs: Path, capsys: pytest.CaptureFixture[str]):
    from rich.console import Console

    settings = {"cluster": {"prices": {"L40S": 2.0}}, "limits": {"cost": 10}, "budget": {"minutes": 30}}
    config = field(inputs, *[{"gpus": 1}] * 25, **settings)  # 24 GPUs at its largest
    plan = make_plan(config, inputs / "it.yaml", None, CLUSTER / "aws.yaml")
    assert plan.schedule is not None
    assert (plan.schedule.entries_at_once, plan.schedule.hours, plan.schedule.cost) == (24, 2.0, 50.0)
    assert plan.gpu_hours == sum(plan.schedule.device_hours.values())
    assert "limits.cost: 10.00 stops it before its end: it may cost 50.00" in plan.warnings
    print_plan(Console(width=160), plan)
    assert f"on this cluster: {in_words(plan.schedule)}\n" in capsys.readouterr().out
    assert "rosters" not in plan.model_dump_json()


def test_a_whole_budget_has_the_schedule_of_its_allocation(inputs: Path):
    hours = allocated(inputs, budget={"total_gpu_hours": 12}, cluster={"prices": {"GPU": 2.0}}, limits={"cost": 30})
    plan = make_plan(hours, inputs / "it.yaml", None, CLUSTER / "aws.yaml")
    assert plan.schedule is not None
    assert plan.schedule.cost == pytest.approx(24.0, rel=0.01)
    assert not any("limits.cost" in line for line in plan.warnings)
    assert plan.schedule.hours == pytest.approx(plan.allocations[0].usage.hours, rel=0.01)  # type: ignore[union-attr]
    away = hours.model_copy(update={"data": hours.data.model_copy(update={"source": "hf://nobody/nothing"})})
    assert make_plan(away, inputs / "it.yaml", None, CLUSTER / "aws.yaml").schedule is None
