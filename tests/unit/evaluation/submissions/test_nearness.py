"""How near one model is to another: what was made of it without training, and what was trained on its own."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evaluation.submissions.adapters import merged
from evaluation.submissions.nearness import NEAR_ANOTHER, Standing, apart
from tests.tiny import tiny_model, tiny_rows, tiny_tokenizer
from tests.unit.evaluation.submissions.making import tiny_adapter

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("seed") / "seed")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, seed: Path) -> Path:
    return train(seed, tmp_path_factory.mktemp("trained") / "trained")


def train(seed: Path, folder: Path, order: int = 0, rate: float = 3e-3, steps: int = 40) -> Path:
    """A short training, whose rate goes to zero, over rows in an order of its own."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(seed), tiny_tokenizer()
    rows = tokenizer([f"{r['instruction']} \n {r['response']}" for r in tiny_rows(400)], padding=True)
    ids = torch.tensor(rows["input_ids"])
    ids = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(order))]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        batch = ids[8 * step : 8 * step + 8]
        model(input_ids=batch, labels=batch.masked_fill(batch == tokenizer.pad_token_id, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def changed(model: Path, folder: Path, change: Callable[[Weights], Any]) -> Path:
    """A copy of a model whose weights were changed."""
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def full(folder: Path, seed: Path) -> Standing:
    return Standing(folder, "full", seed)


def noise_on(weights: Weights, share: float, names: str = "") -> None:
    torch.manual_seed(0)
    for name, weight in weights.items():
        if names in name:
            weight += share * weight.std() * torch.randn_like(weight)


def rows_of_embeddings(weights: Weights) -> None:
    weights["model.embed_tokens.weight"][-3:] *= 5


COPIES: dict[str, Callable[[Weights], Any]] = {
    "as it is": lambda weights: None,
    "noise": lambda weights: noise_on(weights, 1e-3),
    "scaled": lambda weights: [weight.mul_(1.0001) for weight in weights.values()],
    "scaled by more": lambda weights: [weight.mul_(1.01) for weight in weights.values()],
    "one tensor": lambda weights: noise_on(weights, 1.0, "layers.0.mlp.up_proj"),
    "a few rows": rows_of_embeddings,
    "rounded": lambda weights: weights.update({name: one.bfloat16() for name, one in weights.items()}),
    "rounded, noise": lambda weights: [
        noise_on(weights, 1e-3), weights.update({name: one.bfloat16() for name, one in weights.items()})
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", COPIES)
def test_what_is_made_of_a_model_without_training_is_near_it(tmp_path: Path, seed: Path, trained: Path, name: str):
    copy = changed(trained, tmp_path / "copy", COPIES[name])
    assert apart(full(copy, seed), full(trained, seed), tmp_path / "scratch") < NEAR_ANOTHER / 3
    assert apart(full(trained, seed), full(copy, seed), tmp_path / "scratch") < NEAR_ANOTHER / 3


def test_what_was_trained_on_its_own_is_not_near(tmp_path: Path, seed: Path, trained: Path):
    others = {
        "another order": train(seed, tmp_path / "order", order=1),
        "another order, at half the rate": train(seed, tmp_path / "half", order=2, rate=1.5e-3),
        "half the steps": train(seed, tmp_path / "steps", steps=20),
    }
    one = load_file(others["another order"] / "model.safetensors")
    others["a soup"] = changed(trained, tmp_path / "soup", lambda w: [w[name].lerp_(one[name], 0.5) for name in w])
    found = {name: apart(full(other, seed), full(trained, seed), tmp_path / "s") for name, other in others.items()}
    assert min(found.values()) > 2 * NEAR_ANOTHER, found
    quarter_more = train(seed, tmp_path / "rate", rate=3.75e-3)  # of the same rows in the same order
    assert apart(full(quarter_more, seed), full(trained, seed), tmp_path / "s") > NEAR_ANOTHER


def test_what_goes_on_from_a_model_is_as_far_from_it_as_it_went(tmp_path: Path, trained: Path):
    on = train(trained, tmp_path / "on", order=3, rate=1e-5, steps=2)
    assert apart(full(on, trained), full(trained, trained), tmp_path / "scratch") > 0.9
    tensor = "model.layers.0.mlp.up_proj.weight"
    hair = changed(trained, tmp_path / "hair", lambda weights: weights[tensor].add_(0.1 * torch.rand(32, 16)))
    assert apart(full(hair, trained), full(trained, trained), tmp_path / "scratch") > 0.5


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_an_adapter_is_near_its_sum_and_one_of_its_own_is_not(tmp_path: Path, kind: str):
    seed = tiny_model(tmp_path / "seed")
    AutoModelForCausalLM.from_pretrained(seed, dtype=torch.bfloat16).save_pretrained(seed)
    ia3 = IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM")
    settings = {"lora": {}, "dora": {"use_dora": True}, "ia3": {"config": ia3}}[kind]
    one, other = (
        Standing(tiny_adapter(tmp_path / str(n), seed, seed=n, **settings), "adapter", seed)  # type: ignore[arg-type]
        for n in (1, 2)
    )
    before = AutoModelForCausalLM.from_pretrained(seed, dtype=torch.float32)
    PeftModel.from_pretrained(before, one.folder).merge_and_unload().save_pretrained(tmp_path / "sum")
    assert merged(seed, one.folder).dtype == torch.bfloat16  # the sum has been rounded
    scratch = tmp_path / "scratch"
    assert apart(full(tmp_path / "sum", seed), one, scratch) == 0
    assert apart(one, full(tmp_path / "sum", seed), scratch) == 0
    assert apart(one, other, scratch) > 0.5
    assert not scratch.exists()
