"""What each adapter method submits, as the evaluator reads it, what is frozen, and what a seed lacks."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from competitors.contract import Allowance, Brief
from competitors.entry import compete
from competitors.events import reporter
from competitors.output import model_form
from competitors.sft import training
from competitors.sft.adapters import METHODS
from evaluation import loading
from evaluation.submissions import promotion
from evaluation.submissions.inspection import inspect
from tests.tiny import tiny_model
from tests.unit.competitors.making import run, sft_recipe, weights

IDS = torch.tensor([[2, 5, 9, 11, 17, 6, 25, 3]])


ON_A_CPU = [method for method in METHODS if method != "qlora"]


def trained_logits(brief: Brief, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> torch.Tensor:
    """Train, and return what the model in memory said when it was handed in."""
    kept = {}

    def watch(self: Any, folder: Path) -> None:
        save(self, folder)
        if folder == brief.output_dir:
            kept["logits"] = logits(self.model)

    save = training.RecipeTrainer.save_to
    monkeypatch.setattr(training.RecipeTrainer, "save_to", watch)
    run(brief, **settings)
    return kept["logits"]


def logits(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(IDS).logits.float()


def scored_logits(brief: Brief) -> torch.Tensor:
    inspect(brief.output_dir, "adapter", brief.seed_model)
    with loading.loaded(brief.seed_model, brief.output_dir, "float32") as model:
        return logits(model)


def full_logits(brief: Brief, tmp_path: Path) -> torch.Tensor:
    promotion.make_full(brief.seed_model, brief.output_dir, "adapter", brief.seed_model, tmp_path / "full")
    with loading.loaded(tmp_path / "full", None, "float32") as model:
        return logits(model)


def agree(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("method", [*ON_A_CPU, "pissa_niter_4"])
def test_what_is_scored_and_what_seeds_the_next_round_is_what_was_trained(
    brief: Brief, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
):
    rank = {} if method == "ia3" else {"rank": 4}
    trained = trained_logits(brief, monkeypatch, adapter={"method": method} | rank, learning_rate=0.05)
    with loading.loaded(brief.seed_model, None, "float32") as seed:
        before = logits(seed)
    assert not torch.allclose(before, trained, atol=1e-2)
    assert agree(scored_logits(brief), trained)
    assert agree(full_logits(brief, tmp_path), trained)
    assert model_form(brief.output_dir) == "adapter"
    assert {f.name for f in brief.output_dir.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize("method", ["pissa", "olora"])
def test_averages_checkpoints_and_modules_to_save_stand_on_the_seed_too(
    brief: Brief, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
):
    """With an untied head among `modules_to_save`, which PEFT's own conversion would leave out."""
    brief = brief.model_copy(update={"seed_model": tiny_model(tmp_path / "untied", tie_word_embeddings=False)})
    checked = []

    def watch(self: Any, folder: Path) -> None:
        save(self, folder)
        with loading.loaded(brief.seed_model, folder, "float32") as model:
            checked.append(agree(logits(model), logits(self.model)))
        self.model.train()

    save = training.RecipeTrainer.save_to
    monkeypatch.setattr(training.RecipeTrainer, "save_to", watch)
    adapter = {"method": method, "rank": 2, "modules_to_save": ["lm_head"]}
    run(brief, adapter=adapter, score_weights="tail_average", learning_rate=0.05, checkpoints=2)
    assert checked == [True, True, True]
    assert any("lm_head" in name for name in weights(brief.output_dir))
    assert agree(full_logits(brief, tmp_path), scored_logits(brief))


def test_a_tied_head_that_an_adapter_replaces_is_kept_apart_when_merged(brief: Brief, tmp_path: Path):
    run(brief, adapter={"method": "lora", "rank": 2, "modules_to_save": ["lm_head"]}, learning_rate=0.05)
    assert agree(full_logits(brief, tmp_path), scored_logits(brief))


def test_pissa_is_stored_as_lora_of_twice_the_rank(brief: Brief):
    run(brief, adapter={"method": "pissa", "rank": 4})
    config = json.loads((brief.output_dir / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16, True)


def test_an_adapter_that_changes_the_seed_leaves_no_trace_in_the_evaluator(brief: Brief):
    """A user's own program may replace whole modules. PiSSA as PEFT stores it, which splits its seed, is refused."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    before = logits(AutoModelForCausalLM.from_pretrained(brief.seed_model))
    model = AutoModelForCausalLM.from_pretrained(brief.seed_model)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear", modules_to_save=["lm_head"])
    wrapped = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad and ("lora_B" in name or "lm_head" in name):
                parameter.mul_(1.5)
    wrapped.save_pretrained(brief.output_dir)
    after = logits(wrapped)
    assert not agree(after, before)
    assert agree(scored_logits(brief), after)
    with loading.loaded(brief.seed_model, None, "float32") as seed:
        assert agree(logits(seed), before)


def test_an_adapter_that_is_scored_leaves_nothing_in_its_seed(brief: Brief):
    run(brief, adapter={"method": "pissa", "rank": 2})
    with loading.loaded(brief.seed_model, None, "float32") as seed:
        before = logits(seed)
    scored_logits(brief)
    with loading.loaded(brief.seed_model, None, "float32") as seed:
        assert torch.equal(logits(seed), before)


def test_qlora_asks_for_nf4_and_submits_float32_over_the_seed(
    brief: Brief, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All but the 4-bit weights themselves, which need a GPU (test_sft_gpu.py): the seed is loaded whole instead."""
    asked = {}

    def load(folder: Path, quantization_config: Any, **settings: Any) -> Any:
        asked.update(quantization_config.to_dict())
        return AutoModelForCausalLM.from_pretrained(folder, **settings)

    from transformers import AutoModelForCausalLM

    monkeypatch.setattr("competitors.sft.model.on_gpu", lambda brief: True)
    monkeypatch.setattr("competitors.sft.recipe.SftRecipe.gpu_packages", {})
    monkeypatch.setattr("competitors.sft.model.AutoModelForCausalLM", SimpleNamespace(from_pretrained=load))
    run(brief, adapter={"method": "qlora", "rank": 2}, dtype="float32")
    assert asked["load_in_4bit"]
    assert (asked["bnb_4bit_quant_type"], asked["bnb_4bit_use_double_quant"]) == ("nf4", True)
    assert {tensor.dtype for tensor in weights(brief.output_dir).values()} == {torch.float32}
    assert "quantization" not in (brief.output_dir / "adapter_config.json").read_text()
    assert scored_logits(brief).shape == (1, 8, 32)


def test_mica_trains_a_only(brief: Brief):
    run(brief, adapter={"method": "mica", "rank": 2})
    trunk = load_file(brief.continuation_dir / "trunk.safetensors")
    assert trunk
    assert not any("lora_B" in name for name in trunk)


def test_lora_plus_moves_b_faster(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    rates = {}

    def watch(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        names = {id(p): name for name, p in self.trainer.model.named_parameters()}
        rates.update({names[id(p)]: g["lr"] for g in self.trainer.optimizer.param_groups for p in g["params"]})

    monkeypatch.setattr(training.BudgetCallback, "on_step_begin", watch, raising=False)
    adapter = {"method": "lora", "rank": 2, "lora_plus_ratio": 8}
    events = run(brief, adapter=adapter, schedule="constant", weight_decay=0.1, learning_rate=0.001)
    assert {rate for name, rate in rates.items() if "lora_A" in name} == {0.001}
    assert {rate for name, rate in rates.items() if "lora_B" in name} == {0.008}
    assert events[-2].learning_rate == 0.001


def test_ia3_averages_its_factors(brief: Brief):
    run(brief, adapter={"method": "ia3"}, score_weights="tail_average", tail=0.5, learning_rate=0.05)
    submitted, trunk = weights(brief.output_dir), load_file(brief.continuation_dir / "trunk.safetensors")
    assert len(submitted) == len(trunk) == 2 * 3
    name = "base_model.model.model.layers.0.mlp.down_proj.ia3_l"
    assert not torch.equal(submitted[name], trunk[f"{name}.default"])


@pytest.mark.parametrize(
    ("settings", "frozen", "trained"),
    [
        ({"freeze": ["embed_tokens", "layers.0"]}, ["embed_tokens", "layers.0."], ["layers.1.", "model.norm"]),
        ({"freeze": ["mlp", "*norm"]}, [".mlp.", "norm"], ["self_attn", "embed_tokens"]),
        ({"train_only": ["layers.1.self_attn"]}, ["layers.0.", ".mlp.", "norm", "embed"], ["layers.1.self_attn"]),
        ({"train_only": ["lm_head"]}, ["layers."], ["embed_tokens"]),
        ({"freeze": ["embed_tokens", "layers.0"], "gradient_checkpointing": True}, ["layers.0."], ["layers.1."]),
    ],
)  # fmt: skip
def test_frozen_modules_stay_and_the_others_move(
    brief: Brief, seed_model: Path, settings: dict[str, Any], frozen: list[str], trained: list[str]
):
    run(brief, **settings)
    seed, after = weights(seed_model), weights(brief.output_dir)
    assert set(seed) == set(after)
    for part, moved in [(part, False) for part in frozen] + [(part, True) for part in trained]:
        names = [name for name in seed if part in name]
        assert names
        assert all(torch.equal(seed[name], after[name]) != moved for name in names), part
    trunk = load_file(brief.continuation_dir / "trunk.safetensors")
    assert not any(part in name for name in trunk for part in frozen)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"adapter": {"method": "lora", "target_modules": ["q_proj", "qq_proj"]}},
            "adapter.target_modules: no module of the seed is named qq_proj; it has q_proj, k_proj, v_proj,",
        ),
        ({"adapter": {"method": "lora", "target_modules": "x.*"}}, "adapter.target_modules: no module of the seed"),
        ({"adapter": {"method": "lora", "modules_to_save": ["score"]}}, "adapter.modules_to_save: no module of"),
        ({"freeze": ["layer.0"]}, "freeze: no module of the seed matches layer.0; it has model.embed_tokens, model."),
        ({"train_only": ["head"]}, "train_only: no module of the seed matches head"),
        ({"freeze": ["model"]}, "nothing is left to train: freeze model covers the whole seed"),
        ({"adapter": {"method": "qlora"}}, "qlora: bitsandbytes needs a GPU for a 4-bit base"),
        ({"optimizer": "lion_32bit"}, "optimizer lion_32bit: bitsandbytes needs a GPU"),
        ({"attention": "flash_attention_2"}, "attention flash_attention_2: flash attention needs a GPU"),
    ],
)
def test_what_the_seed_or_the_machine_lacks_forfeits_with_the_reason(
    brief: Brief, settings: dict[str, Any], reason: str
):
    submission = compete(brief, sft_recipe(**settings))
    assert submission.status == "forfeit"
    assert submission.reason.startswith(reason)


@pytest.mark.parametrize(
    ("settings", "package", "key"),
    [
        ({"adapter": {"method": "qlora"}}, "bitsandbytes", "qlora"),
        ({"optimizer": "adamw_8bit"}, "bitsandbytes", "optimizer adamw_8bit"),
        ({"liger": True}, "liger_kernel", "liger"),
    ],
)
def test_a_gpu_machine_without_the_extra_says_how_to_install_it(
    brief: Brief, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], package: str, key: str
):
    monkeypatch.setattr("competitors.sft.model.on_gpu", lambda brief: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    submission = compete(brief, sft_recipe(**settings))
    assert submission.reason.startswith(f"{key}: needs {package}, which is not installed")
    assert submission.reason.endswith("install the extra gpu there")


def test_an_adapter_over_a_budget_of_one_step(brief: Brief):
    """Fewer steps than PiSSA has checkpoints: the hand-in is the only save."""
    short = brief.model_copy(update={"budget": Allowance(steps=1)})
    training.train(short, sft_recipe(adapter={"method": "pissa", "rank": 2}), reporter(short.progress_file))
    assert model_form(brief.output_dir) == "adapter"
