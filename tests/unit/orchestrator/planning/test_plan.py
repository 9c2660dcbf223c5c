"""What `plan` says of a tournament's size and time."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from rich.console import Console

from cluster.machine import Machine
from orchestrator.config.loading import load_config
from orchestrator.field.shorthand import expand
from orchestrator.planning import place
from orchestrator.planning.module_names import unmatched_names
from orchestrator.planning.plan import make_plan
from orchestrator.planning.printed import print_plan
from tests.faked import faked_config
from tests.tiny import tiny_model

CLUSTER = Path(__file__).parents[4] / "cluster"
SEARCH = {"kind": "search", "trials": 8, "space": {"learning_rate": [1e-4, 1e-3]}}
LINEAGES = [{"name": name, "base": "builtin:tiny-bpe"} for name in ("l", "m")]


def said(folder: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, **settings: Any) -> str:
    """The plan's text on a machine of so many GPUs."""
    monkeypatch.setattr(place, "machine_here", lambda: Machine(memory_gb=8, gpus=gpus, gpu_memory_gb=24))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = faked_config(folder, **settings)
    console = Console(width=200, record=True)
    print_plan(console, make_plan(config, folder / "tournament.yaml", None))
    return console.export_text()


def test_one_of_each_is_no_plural(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert "faked: 2 rounds, 1 lineage\n" in said(tmp_path, monkeypatch, 0)
    text = said(tmp_path, monkeypatch, 0, rounds=1, lineages=LINEAGES)
    assert "faked: 1 round, 2 lineages\n" in text
    assert "4 trainings, no budget of minutes" in text


def test_each_run_of_a_recipe_is_an_entry_and_costs_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = expand([{"name": "a", "kind": "sft", "learning_rate": 1e-3, "repeats": 3}])
    text = said(tmp_path, monkeypatch, 0, competitors=runs, budget={"tokens": 1000})
    assert all(f" a-{number} " in text for number in (1, 2, 3))
    assert "6 trainings, at most 6,000 training tokens" in text


def test_gpu_hours_are_those_of_gpus_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    minutes = {"budget": {"minutes": 30}}
    assert "4 trainings, at most 2.0 GPU hours" in said(tmp_path, monkeypatch, 1, **minutes)
    text = said(tmp_path, monkeypatch, 0, **minutes)
    assert "4 trainings, at most 2.0 hours of training, without a GPU" in text
    assert "GPU hours" not in text


def test_the_published_experiment_is_planned_without_weights_or_network():
    file = Path(__file__).parents[4] / "configs" / "gradients-lamini.yaml"
    plan = make_plan(load_config(file), file, None, Path("8xH100"))
    memory = {entry.competitor: entry.memory_gb for entry in plan.entries if entry.lineage == "llama-3.2"}
    assert all(amount is not None and 6.4 < amount < 80 for amount in memory.values())
    assert plan.warnings == []
    assert plan.schedule is not None
    assert plan.schedule.hours is not None
    assert plan.schedule.devices_at_once == 8
    assert plan.disk is not None
    assert plan.disk.kept > 5 * 2 * 4 * 6.4  # the whole models that are handed in, at least
    assert [line for line in plan.assumptions if "TFLOPS of a H100" in line]
    away = [line for line in plan.unchecked if "base" in line]
    assert [line.partition("; ")[2].partition(":")[0] for line in away] == ["its size is from a table"] * 2
    assert "taken to be as large as Llama 3.2 3B" in away[1]


@pytest.mark.parametrize("answers", [True, False])
def test_of_a_base_on_the_hub_the_tokenizer_is_fetched_to_plan_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
):
    def fetched(spec: str, allow_patterns: list[str], **settings: Any) -> str:
        assert spec == "org/model"
        assert "config.json" in allow_patterns
        assert not any("safetensors" in pattern for pattern in allow_patterns)
        if not answers:
            raise LocalEntryNotFoundError("no network")
        return str(tiny_model(tmp_path / "hub"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    text = said(
        tmp_path, monkeypatch, gpus=0, lineages=[{"name": "l", "base": "org/model"}], rounds=3,
        budget={"total_tokens": 20_000},
    )  # fmt: skip
    assert ("allocation of l" in text) is answers
    assert ("its tokenizer is not on this machine and could not be had from the hub" in text) is not answers


@pytest.mark.parametrize(
    ("kind", "cluster", "fits"),
    [
        ({"kind": "sft", "learning_rate": 1e-3}, {}, True),
        ({"kind": "sft", "learning_rate": 1e-3}, {"storage": "s3://bucket/runs"}, True),
        (SEARCH, {}, True),
        (SEARCH, {"storage": "s3://bucket/runs"}, True),
        ({"kind": "python", "entrypoint": "os:getcwd"}, {}, True),
        ({"kind": "python", "entrypoint": "os:getcwd"}, {"storage": "s3://bucket/runs"}, False),
    ],
)
def test_in_a_bucket_a_functions_own_workers_have_to_fit_on_one_node(
    tmp_path: Path, kind: Any, cluster: Any, fits: bool
):
    eight = {"name": "eight", "resources": {"workers": 8, "gpus": 1}} | kind
    config = faked_config(tmp_path, competitors=[eight], budget={"minutes": 30}, cluster=cluster)
    plan = make_plan(config, tmp_path / "tournament.yaml", None, CLUSTER / "aws.yaml")
    assert [line.startswith("every entry can be placed") for line in plan.placement] == [fits]
    assert (plan.schedule is not None) == fits


@pytest.mark.parametrize(
    ("resources", "words"),
    [({"cpus": 64}, "64 CPU"), ({"gpus": 1}, "1 GPU"), ({"workers": 3}, "3 workers"), ({"workers": 2}, None)],
)
def test_what_this_machine_cannot_hold_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: Any, words: str | None
):
    monkeypatch.setattr(place, "machine_here", lambda: Machine(memory_gb=8, gpus=0, cpus=2))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    large = {"name": "large", "kind": "sft", "learning_rate": 1e-3, "resources": resources}
    config = faked_config(tmp_path, competitors=[large])
    placement = make_plan(config, tmp_path / "tournament.yaml", None).placement
    assert len(placement) == (words is not None)
    assert all(line.startswith("competitors[large] asks for ") and (words or "") in line for line in placement)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"freeze": ["embed_tokens", "lm_head", "layers.[0-1]", "mlp"]}, None),
        ({"freeze": ["layer.0"]}, "freeze: no module is named layer.0"),
        ({"train_only": ["model.layers.0.mlp.*"]}, None),
        ({"train_only": ["mpl"]}, "train_only: no module is named mpl"),
        ({"adapter": {"method": "lora"}}, None),
        ({"adapter": {"method": "lora", "target_modules": "all-linear"}}, None),
        ({"adapter": {"method": "lora", "target_modules": ["q_proj", "self_attn.v_proj", "mlp"]}}, None),
        (
            {"adapter": {"method": "lora", "target_modules": ["q_proj", "qproj"]}},
            "adapter.target_modules: no module is named qproj",
        ),
    ],
)
@pytest.mark.parametrize("base", ["builtin:tiny-bpe", "base"])
def test_names_that_a_base_lacks_are_said(tmp_path: Path, recipe: Any, said: str | None, base: str):
    one = {"name": "one", "kind": "sft", "learning_rate": 1e-3} | recipe
    lineages = [{"name": "l", "base": base}]
    config = faked_config(tmp_path, competitors=[one], lineages=lineages, budget={"tokens": 1000})
    warnings = make_plan(config, tmp_path / "tournament.yaml", None).warnings
    found = [line for line in warnings if "no module is named" in line]
    assert len(found) == (said is not None)
    assert all(line.startswith(f"competitors[one] on l will forfeit: {said}; the base has ") for line in found)
    if said is not None and base == "base":
        (tmp_path / "base" / "model.safetensors").unlink()  # what is not here is never guessed
        assert unmatched_names(config, tmp_path) == []


def test_a_cluster_that_the_config_names_is_said_to_be_named(tmp_path: Path):
    config = faked_config(tmp_path, cluster={"address": "ray://head:10001"})
    plan = make_plan(config, tmp_path / "tournament.yaml", None)
    assert "cluster.address ray://head:10001 was not asked (--address ray://head:10001)" in plan.unchecked[-1]


def test_a_cluster_on_paper_is_planned_for_at_its_largest(tmp_path: Path):
    pair = {"name": "pair", "kind": "sft", "learning_rate": 1e-3, "resources": {"workers": 25, "gpus": 1}}
    spot = pair | {"name": "spot", "resources": {"workers": 4, "gpus": 1, "labels": {"ray.io/market-type": "spot"}}}
    config = faked_config(tmp_path, competitors=[spot], budget={"minutes": 30})
    plan = make_plan(config, tmp_path / "tournament.yaml", None, CLUSTER / "aws.yaml")
    assert plan.gpu_hours == 2 * 0.5 * 4
    assert plan.placement == [
        f"every entry can be placed on what {CLUSTER / 'aws.yaml'} allows (4 gpu-spot, 2 gpu-on-demand)"
    ]
    assert not any("cluster" in line for line in plan.unchecked)
    config = faked_config(tmp_path, competitors=[spot, pair])
    plan = make_plan(config, tmp_path / "tournament.yaml", None, CLUSTER / "aws.yaml")
    assert [line.partition(":")[0] for line in plan.placement] == [
        "competitors[pair] asks for 25 workers of 1 CPU, 1 GPU each, which this cluster can never hold"
    ]
