"""The memory estimate: what it counts, and what it warns of."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.machine import Machine, machine_here
from cluster.resources import Resources
from competitors.search.recipe import SearchRecipe
from competitors.sft.adapters import METHODS
from competitors.sft.recipe import SftRecipe
from competitors.soup.recipe import SoupRecipe
from orchestrator.config.loading import load_config
from orchestrator.planning.memory import Estimate, estimate, estimate_entry, trained_tensors, warnings, zero_stage
from orchestrator.planning.model_shape import BaseShape, describe_base
from tests.tiny import tiny_model, tiny_rows, write_jsonl


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def base(folder: Path) -> BaseShape:
    shape = describe_base(str(folder), Path.cwd())
    assert shape is not None
    return shape


def recipe(workers: int = 1, **settings: Any) -> SftRecipe:
    made = SftRecipe.model_validate({"name": "a", "kind": "sft", "learning_rate": 0.01} | settings)
    return made.model_copy(update={"resources": Resources(workers=workers)})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        *({"adapter": {"method": method}} for method in METHODS if method != "qlora"),
        {"adapter": {"method": "lora", "rank": 4, "target_modules": ["q_proj", "down_proj"]}},
        {"adapter": {"method": "dora", "rank": 4, "target_modules": ".*mlp.*_proj", "modules_to_save": ["norm"]}},
        {"freeze": ["embed_tokens", "layers.0"]},
        {"train_only": ["mlp"]},
    ],
)
def test_what_is_trained_is_counted_as_torch_counts_it(folder: Path, base: BaseShape, settings: dict[str, Any]):
    from transformers import AutoModelForCausalLM

    from competitors.sft.model import _freeze, put_adapter

    made = recipe(**settings)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert base.parameters == model.num_parameters()
    if made.adapter:
        model = put_adapter(model, made.adapter)
    elif settings:
        _freeze(model, made)
    assert sum(trained_tensors(made, base)) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def gb(parameters: float) -> float:
    return parameters / 2**30


def test_full_adamw_holds_sixteen_bytes_per_parameter(base: BaseShape):
    made = estimate(recipe(), base, 64, on_gpu=False)
    assert made.weights + made.gradients + made.optimizer == pytest.approx(gb(16 * base.parameters))


@pytest.mark.parametrize(
    ("deepspeed", "weights", "gradients", "optimizer"),
    [(None, 4, 4, 8), ("zero1", 4, 4, 3), ("zero2", 4, 1, 3), ("zero3", 1, 1, 3)],
)
def test_zero_shards_more_with_each_stage(
    base: BaseShape, deepspeed: str | None, weights: float, gradients: float, optimizer: float
):
    """Bytes per parameter and worker, of four; stage 3 gathers two blocks at a time, with DeepSpeed's own copy."""
    wide = base.model_copy(update={"layers": 10**9})
    made = estimate(recipe(workers=4, deepspeed=deepspeed), wide, 64, on_gpu=False)
    count = base.parameters
    assert made.weights == pytest.approx(gb(weights * count), rel=1e-3)
    assert made.gradients == pytest.approx(gb(gradients * count))
    assert made.optimizer == pytest.approx(gb(optimizer * count))


def test_a_deepspeed_file_says_its_stage():
    content = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    assert zero_stage(recipe(deepspeed=content)) == (2, True)
    assert zero_stage(recipe(deepspeed="zero3-offload")) == (3, True)


def total(base: BaseShape, tokens: int = 64, on_gpu: bool = False, **settings: Any) -> float:
    return estimate(recipe(**settings), base, tokens, on_gpu).total


def test_what_saves_memory_is_estimated_lower(base: BaseShape):
    assert total(base, optimizer="sgd") < total(base, optimizer="adafactor") < total(base)
    assert total(base, gradient_checkpointing=True) < total(base)
    assert total(base, freeze=["embed_tokens", "layers.0"]) < total(base)
    assert total(base, batch_size=8) < total(base, batch_size=16)
    assert total(base, tokens=32) < total(base, tokens=64) < total(base, attention="eager")
    lora, qlora, pissa = ({"adapter": {"method": method}} for method in ("lora", "qlora", "pissa"))
    assert total(base, on_gpu=True, **qlora) < total(base, on_gpu=True, **lora) < total(base, on_gpu=True, **pissa)
    assert total(base) < total(base, score_weights="tail_average")


def test_a_search_takes_what_its_largest_trial_takes(base: BaseShape, tmp_path: Path):
    space = {"batch_size": [4, 16, 8], "adapter": [{"method": "lora", "rank": 4}, None], "warmup": [0.0, 0.1]}
    search = SearchRecipe.model_validate(
        {"name": "s", "kind": "search", "recipe": {"learning_rate": 1e-3}, "space": space}
    )
    found = estimate_entry(search, tmp_path, base, 64, False)
    assert found is not None
    assert found.total == max(total(base, batch_size=16), total(base, batch_size=16, adapter=space["adapter"][0]))


def test_kinds_that_train_in_their_own_way_are_not_estimated(base: BaseShape, tmp_path: Path):
    soup = SoupRecipe.model_validate({"name": "s", "kind": "soup"})
    assert estimate_entry(soup, tmp_path, base, 64, False) is None


def test_reading_weights_counts_only_where_it_is_more():
    parts = Estimate(weights=4, gradients=1, optimizer=1, transient=1, loading=2)
    assert parts.total == pytest.approx(7.55)
    assert parts.model_copy(update={"loading": 5.0}).total == pytest.approx(9.55)


@pytest.mark.parametrize(("name", "parameters"), [("tiny-bpe", 590_000), ("tiny-unigram", 504_000)])
def test_built_in_bases_have_a_shape(name: str, parameters: int):
    shape = describe_base(f"builtin:{name}", Path.cwd())
    assert shape is not None
    assert shape.parameters == pytest.approx(parameters, rel=0.06)
    assert describe_base("builtin:nothing", Path.cwd()) is None
    assert describe_base("organisation/model", Path.cwd()) is None


def config_with(tmp_path: Path, folder: Path, competitors: list[dict[str, Any]], **extra: Any) -> Path:
    config = {
        "name": "t", "rounds": 1, "budget": {"steps": 1},
        "data": {
            "source": str(write_jsonl(tmp_path / "rows.jsonl", tiny_rows())), "prompt": "{instruction}",
            "completion": "{response}", "max_tokens": 64, "validation": 10, "test": 10,
        },
        "lineages": [{"name": "l", "base": str(folder)}],
        "competitors": [{"kind": "sft", "learning_rate": 0.1} | competitor for competitor in competitors],
    } | extra  # fmt: skip
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_warnings_say_what_will_not_fit_and_what_will_forfeit(tmp_path: Path, folder: Path):
    competitors: list[dict[str, Any]] = [
        {"name": "fits", "resources": {"memory_gb": 4}},
        {"name": "tight", "resources": {"memory_gb": 0.5}},
        {"name": "four-bits", "adapter": {"method": "qlora"}},
        {"name": "no-gpu", "liger": True, "resources": {"gpus": 0}},
        {"name": "elsewhere", "liger": True, "resources": {"gpus": 1}},
    ]
    config = load_config(config_with(tmp_path, folder, competitors))
    on_a_cpu = warnings(config, tmp_path, Machine(memory_gb=16, gpus=0))
    assert [line.split(" ")[0] for line in on_a_cpu] == [
        "competitors[tight]", "competitors[four-bits]", "competitors[no-gpu]",
    ]  # fmt: skip
    assert on_a_cpu[0].startswith("competitors[tight] on l takes about 0.")
    assert on_a_cpu[0].endswith("more than its resources.memory_gb of 0.5")
    assert on_a_cpu[1].endswith("will forfeit: qlora: bitsandbytes needs a GPU for a 4-bit base, and there is none")
    assert on_a_cpu[2].endswith("will forfeit: liger: its kernels need a GPU, and resources.gpus is 0")
    small_gpu = warnings(config, tmp_path, Machine(memory_gb=16, gpus=1, gpu_memory_gb=0.1))
    assert sum("more than the 0.1 GB of its GPU" in line for line in small_gpu) == 4
    assert warnings(config, tmp_path, None) == [on_a_cpu[2]]


def test_the_workers_of_a_gang_share_the_memory_of_the_only_machine(tmp_path: Path, folder: Path):
    gang = {"name": "gang", "deepspeed": "zero2", "resources": {"workers": 3}}
    config = load_config(config_with(tmp_path, folder, [gang]))
    needed = estimate_entry(
        config.competitors[0], tmp_path, describe_base(config.lineages[0].base, tmp_path), 64, False
    )
    assert needed is not None
    machine = Machine(memory_gb=2.5 * needed.total, gpus=0)
    assert warnings(config, tmp_path, machine) == []
    (line,) = warnings(config, tmp_path, machine, is_alone=True)
    assert line.endswith(f"per worker, more than 3 of them find in the {machine.memory_gb:.1f} GB of the machine")
    assert warnings(config, tmp_path, Machine(memory_gb=4 * needed.total, gpus=0), is_alone=True) == []


def test_plan_prints_the_warnings_and_what_needs_a_gpu(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from rich.console import Console

    from orchestrator.planning.plan import make_plan
    from orchestrator.planning.printed import print_plan

    monkeypatch.setattr("orchestrator.planning.place.machine_here", lambda: Machine(memory_gb=16, gpus=0))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = config_with(tmp_path, folder, [{"name": "four-bits", "adapter": {"method": "qlora", "rank": 4}}])
    plan = make_plan(load_config(path), path, None)
    assert plan.entries[0].needs_gpu == "qlora: bitsandbytes needs a GPU for a 4-bit base"
    assert plan.entries[0].memory_parts is not None
    assert plan.entries[0].memory_gb == plan.entries[0].memory_parts.total
    assert len([line for line in plan.warnings if "four-bits" in line]) == 1
    print_plan(Console(width=160), plan)
    printed = capsys.readouterr().out
    assert "GPU only: qlora" in printed
    assert f"warning: {plan.warnings[0]}" in printed


def test_this_machine_has_memory():
    assert machine_here().memory_gb > 0.5
