"""DeepSpeed in a recipe: what is accepted, and what contradicts the recipe."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.errors import UserError
from competitors.sft import deepspeed_config
from competitors.sft.recipe import SftRecipe

AUTO: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": "auto",
    "train_batch_size": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "zero_optimization": {"stage": 2},
}


def recipe(**settings: Any) -> SftRecipe:
    base = {"name": "a", "kind": "sft", "learning_rate": 0.001, "batch_size": 4, "resources": {"workers": 2}}
    return SftRecipe.model_validate(base | settings)


def test_workers_or_deepspeed_make_a_gang():
    assert not recipe(resources={}).is_gang
    assert recipe().is_gang
    assert recipe(resources={}, deepspeed="zero1").is_gang
    assert recipe(deepspeed="zero3").summary.startswith("2 workers, zero3, full, ")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"deepspeed": "zero4"}, '"zero4" is neither a .json file nor known; did you mean "zero'),
        ({"deepspeed": "zero3_offload"}, 'did you mean "zero3-offload"?'),
        ({"deepspeed": "zero2", "optimizer": "adafactor"}, "optimizer: DeepSpeed's flat shards do for adamw_torch, "),
        ({"resources": {"workers": 2, "gpus": 0.5}}, "each worker of a gang trains on one whole GPU, not 0.5"),
    ],
)
def test_what_cannot_be_is_refused_at_once(settings: dict[str, Any], text: str):
    with pytest.raises(ValidationError) as error:
        recipe(**settings)
    assert text in str(error.value)


@pytest.mark.parametrize("preset", deepspeed_config.PRESETS)
def test_every_preset_agrees_with_every_recipe(preset: str):
    given = recipe(deepspeed=preset)
    given.check()
    config = deepspeed_config.configuration(given.deepspeed)
    assert config is not None
    completed = {k: v for k, v in config.items() if k != "zero_allow_untested_optimizer"}
    given.model_copy(update={"deepspeed": completed}).check()
    assert config["train_micro_batch_size_per_gpu"] == "auto"


def with_file(folder: Path, content: str, **settings: Any) -> SftRecipe:
    (folder / "ds.json").write_text(content)
    return recipe(deepspeed="ds.json", **settings).located(folder)


def test_auto_always_agrees_and_the_files_content_travels_in_the_recipe(tmp_path: Path):
    located = with_file(tmp_path, json.dumps(AUTO))
    located.check()
    (tmp_path / "ds.json").unlink()
    config = deepspeed_config.configuration(SftRecipe.model_validate(located.model_dump()).deepspeed)
    assert config is not None
    assert config["zero_optimization"] == {"stage": 2}
    assert config["fp16"] == {"enabled": "auto"}
    assert "optimizer" not in config
    assert config["zero_force_ds_cpu_optimizer"] is False


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"train_micro_batch_size_per_gpu": 8}, "size_per_gpu is 8, but the recipe's batch_size makes it 4"),
        ({"gradient_accumulation_steps": 2}, "but the recipe's gradient_accumulation makes it 1"),
        ({"train_batch_size": 4}, "but the recipe's batch_size × gradient_accumulation × workers makes it 8"),
        ({"gradient_clipping": 0.5}, "but the recipe's max_grad_norm makes it 1.0"),
        ({"optimizer": {"params": {"lr": 0.1}}}, "lr is 0.1, but the recipe's learning_rate makes it 0.001"),
        ({"optimizer": {"params": {"betas": [0.8, 0.9]}}}, "but the recipe's betas makes it [0.9, 0.999]"),
        ({"optimizer": {"type": "Lamb"}}, "optimizer.type is Lamb, but the recipe's optimizer is adamw_torch"),
        ({"scheduler": {"type": "WarmupLR"}}, "leave scheduler out: the recipe's schedule follows the budget"),
        ({"bf16": {"enabled": True}}, "bf16.enabled is true, but the recipe's dtype is auto"),
        ({"fp16": {"enabled": True}}, "fp16.enabled is true, but the recipe's dtype is auto"),
        ({"zero_optimization": {"stage": 0}}, "zero_optimization.stage has to be 1, 2 or 3"),
        ({"zero_optimization": {}}, "zero_optimization.stage has to be 1, 2 or 3"),
        ({"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme"}}}, "nvme is not supported"),
        ({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}, "offload_param needs stage 3, not 2"),
        ({"zero_force_ds_cpu_optimizer": True}, "zero_force_ds_cpu_optimizer is true"),
        ({"tensor_parallel": {"autotp_size": 2}}, "leave tensor_parallel out"),
    ],
)  # fmt: skip
def test_a_file_that_contradicts_the_recipe_is_refused_with_its_key(tmp_path: Path, change: Any, text: str):
    with pytest.raises(UserError) as error:
        with_file(tmp_path, json.dumps(AUTO | change)).check()
    assert str(error.value).startswith("deepspeed: ")
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_a_dtype_that_the_recipe_says_too_agrees(tmp_path: Path):
    with_file(tmp_path, json.dumps(AUTO | {"bf16": {"enabled": True}}), dtype="bfloat16").check()
    with pytest.raises(UserError, match=r"bf16\.enabled is true, but the recipe's dtype is float16"):
        with_file(tmp_path, json.dumps(AUTO | {"bf16": {"enabled": True}}), dtype="float16").check()


def test_an_adapter_that_starts_from_whole_weights_is_refused_under_zero3_however_it_is_said(tmp_path: Path):
    adapter = {"method": "pissa", "rank": 2}
    with pytest.raises(ValidationError, match="pissa needs whole weights, ZeRO-3 has shards"):
        recipe(deepspeed="zero3-offload", adapter=adapter)
    with_file(tmp_path, json.dumps(AUTO), adapter=adapter).check()
    with pytest.raises(UserError, match=r"^adapter\.method: pissa needs whole weights, ZeRO-3 has shards$"):
        with_file(tmp_path, json.dumps(AUTO | {"zero_optimization": {"stage": 3}}), adapter=adapter).check()


def test_a_file_that_is_not_there_or_not_json_is_said(tmp_path: Path):
    with pytest.raises(UserError, match=r"deepspeed: .*ds\.json is not there"):
        recipe(deepspeed="ds.json").located(tmp_path).check()
    with pytest.raises(UserError, match=r"deepspeed: .*ds\.json is not JSON: "):
        with_file(tmp_path, "{")
    with pytest.raises(UserError, match=r"deepspeed: .*ds\.json is not JSON with keys"):
        with_file(tmp_path, "[1]")
