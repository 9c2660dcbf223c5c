"""The head where a completion token is predicted gives the ordinary forward pass's loss and gradients."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from trl.trainer.utils import add_fused_lm_head

from competitors.sft import head
from competitors.sft.head import choose, fused, ordinary, selected, summed_nats
from competitors.sft.stream import IGNORED

SMALL = {
    "vocab_size": 48, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
KEY_VALUE = {**SMALL, "num_key_value_heads": 1, "head_dim": 8}
MODELS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "tied": ("LlamaForCausalLM", {**SMALL, "tie_word_embeddings": True}, selected),
    "not tied": ("LlamaForCausalLM", {**SMALL, "tie_word_embeddings": False}, selected),
    "a head with bias": ("PhiForCausalLM", SMALL, selected),
    "GPT-2": ("GPT2LMHeadModel", {"vocab_size": 48, "n_embd": 16, "n_layer": 2, "n_head": 2}, selected),
    "scaled": ("GraniteForCausalLM", {**SMALL, "logits_scaling": 4.0}, fused),
    "multiplied": ("CohereForCausalLM", {**SMALL, "logit_scale": 0.25}, fused),
    "capped": ("Gemma2ForCausalLM", {**KEY_VALUE, "final_logit_softcapping": 3.0}, fused),
    "a projection before the head": (
        "OPTForCausalLM",
        {**SMALL, "ffn_dim": 32, "word_embed_proj_dim": 8, "do_layer_norm_before": False},
        selected,
    ),
}


def model_of(name: str) -> Any:
    """With large weights, so that a cap or a factor shows."""
    architecture, settings, _ = MODELS[name]
    torch.manual_seed(0)
    kind = getattr(transformers, architecture)
    model = kind(kind.config_class(**settings, use_cache=False))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 4
    add_fused_lm_head(model, outputs=("log_probs",))
    return model


def batch() -> dict[str, Any]:
    ids = torch.randint(1, 48, (3, 9), generator=torch.Generator().manual_seed(1))
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[0, :4] = labels[1, :7] = labels[2, :2] = IGNORED
    labels[2, 6:], mask[2, 6:] = IGNORED, 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def loss_and_gradients(model: Any, way: Any) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    nats = way(model, batch()).nats
    nats.backward()
    return float(nats.detach()), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(model: Any, way: Any) -> None:
    right, found = loss_and_gradients(model, ordinary), loss_and_gradients(model, way)
    assert found[0] == pytest.approx(right[0], rel=1e-5)
    assert found[1].keys() == right[1].keys()
    for name, gradient in right[1].items():
        assert torch.allclose(found[1][name], gradient, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("name", MODELS)
def test_each_architecture_has_the_loss_and_gradients_of_its_ordinary_forward_pass(name: str):
    model = model_of(name).train()
    way, why = choose(model)
    assert (way, why) == (MODELS[name][2], None)
    assert model.training
    assert_same(model.eval(), way)


@pytest.mark.parametrize("tied", ["tied", "not tied"])
def test_an_adapter_whose_head_is_trained_too(tied: str):
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear", modules_to_save=["lm_head"])
    model = get_peft_model(model_of(tied), config).eval()
    way, _ = choose(model)
    assert way is selected
    assert_same(model, way)
    assert any("lm_head" in name for name in loss_and_gradients(model, way)[1])


def test_an_adapter_over_a_frozen_head():
    model = get_peft_model(model_of("tied"), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    way, _ = choose(model)
    assert way is selected
    assert_same(model.eval(), way)


def test_logits_that_are_too_many_at_once_are_cut_into_chunks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(head, "PLAIN_LOGITS_BYTES", 4 * 48 * 4)
    model = model_of("tied").eval()
    assert_same(model, choose(model)[0])


def test_a_head_that_nobody_knows_takes_all_logits_and_says_so():
    model = model_of("tied").eval()
    inner = model.forward

    def squared(*args: Any, **kwargs: Any) -> Any:
        output = inner(*args, **kwargs)
        if "logits" in output:
            output.logits = output.logits**2
        return output

    model.forward = squared
    way, why = choose(model)
    assert way is ordinary
    assert "logits of all tokens" in str(why)


def test_a_batch_that_predicts_nothing_gives_a_gradient_of_zeros(tmp_path: Path):
    model = model_of("tied")
    hidden = torch.randn(1, 3, 16, requires_grad=True)
    nats = summed_nats(hidden, model.lm_head, torch.full((1, 3), IGNORED))
    nats.backward()
    assert float(nats.detach()) == 0.0
    assert hidden.grad is not None
    assert not hidden.grad.any()
