"""Soups without Ray: what is averaged, what is chosen, and what whoever goes on from a soup gets."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cluster.errors import Forfeit
from competitors.contract import Brief, Ingredient
from competitors.events import reporter
from competitors.output import model_form
from competitors.sft.continuation import Continuation
from competitors.soup.blend import Blend, fresh_rows, weights_of
from competitors.soup.blend import blend as blend_soup
from competitors.soup.recipe import SoupRecipe
from evaluation.submissions.inspection import inspect
from tests.unit.competitors.making import beside, brief_in, run, weights

LORA = {"method": "lora", "rank": 2}


def entry(brief: Brief, name: str, seed: int, **settings: Any) -> Ingredient:
    """A trained entry beside the brief's own folder."""
    own = beside(brief, brief.output_dir.parent.parent / name, competitor=name, random_seed=seed)
    run(own, **settings)
    out = own.output_dir
    form = model_form(out)
    assert form is not None
    continuation = out.parent / "continuation"
    return Ingredient(label=f"{name}@1", folder=out, form=form, seed_sha256="0", continuation=continuation)


def cook(brief: Brief, ingredients: list[Ingredient], **settings: Any) -> Blend:
    recipe = SoupRecipe.model_validate({"name": "soup", "kind": "soup"} | settings)
    blend_soup(brief.model_copy(update={"ingredients": ingredients}), recipe, reporter(brief.progress_file))
    return Blend.read(brief.output_dir.parent / "soup.json")


def test_a_uniform_soup_is_the_mean_of_weights_trunks_and_moments(brief: Brief, seed_model: Path):
    ingredients = [entry(brief, name, number, score_weights="tail_average") for number, name in enumerate("abc")]
    assert cook(brief, ingredients).blended == ["a@1", "b@1", "c@1"]
    inspect(brief.output_dir, "full", seed_model)
    parts = [weights(i.folder) for i in ingredients]
    for name, tensor in weights(brief.output_dir).items():
        torch.testing.assert_close(tensor, sum(part[name] for part in parts) / 3)
    for file in ("trunk.safetensors", "optimizer.safetensors"):
        parts = [load_file(Path(str(i.continuation)) / file) for i in ingredients]
        blended = load_file(brief.continuation_dir / file)
        assert set(blended) == set(parts[0])
        for name, tensor in blended.items():
            torch.testing.assert_close(tensor, sum(part[name] for part in parts) / 3)
    assert not torch.equal(blended[name], parts[0][name])
    record = Continuation.read(brief.continuation_dir / "continuation.json")
    assert (record.optimizer, record.full_model, record.steps) == ("adamw_torch", True, 10)
    seen = np.load(brief.continuation_dir / "seen.npy")
    assert seen.sum() == sum(np.load(Path(str(i.continuation)) / "seen.npy").sum() for i in ingredients) == 120


def test_moments_in_8_bits_have_no_mean(brief: Brief):
    ingredients = [entry(brief, name, number) for number, name in enumerate("ab")]
    for one in ingredients:
        file = Path(str(one.continuation)) / "optimizer.safetensors"
        save_file({name: tensor.to(torch.uint8) for name, tensor in load_file(file).items()}, file)
    assert cook(brief, ingredients).blended == ["a@1", "b@1"]
    assert not brief.continuation_dir.exists()


def test_an_entry_goes_on_from_a_soup_with_its_trunk_and_its_moments(brief: Brief, tmp_path: Path):
    cook(brief, [entry(brief, "a", 1), entry(brief, "b", 2)])
    out = tmp_path / "next" / "submission"
    out.mkdir(parents=True)
    following = brief.model_copy(update={"seed_continuation": brief.continuation_dir, "output_dir": out})
    notes = [e.text for e in run(following, **{"continue": True}) if e.event == "note"]
    assert notes == ["goes on with the seed's optimizer"]


def test_adapters_and_full_models_blend_into_a_full_model(brief: Brief, seed_model: Path):
    ingredients = [entry(brief, "full", 1), entry(brief, "lora", 2, adapter=LORA)]
    cook(brief, ingredients)
    full, lora = (weights_of(brief, ingredient) for ingredient in ingredients)
    seed = weights(seed_model)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(lora[name], seed[name])  # the adapter counts
    torch.testing.assert_close(weights(brief.output_dir)[name], (full[name] + lora[name]) / 2)
    # Its trunk is the full model's trunk and the adapter's scored weights.
    torch.testing.assert_close(
        load_file(brief.continuation_dir / "trunk.safetensors")[name], (full[name] + lora[name]) / 2
    )


def test_a_greedy_soup_leaves_out_what_makes_it_worse(brief: Brief):
    good = entry(brief, "good", 1)
    bad = entry(brief, "bad", 2)
    broken = {name: tensor + torch.randn_like(tensor) for name, tensor in weights(bad.folder).items()}
    save_file(broken, bad.folder / "model.safetensors", metadata={"format": "pt"})
    result = cook(brief, [bad, good], method="greedy")
    assert result.blended == ["good@1"]
    assert result.slice_losses["good@1"] < result.slice_losses["bad@1"]
    torch.testing.assert_close(weights(brief.output_dir), weights(good.folder))


def test_the_best_so_many_are_blended(brief: Brief):
    ingredients = [entry(brief, name, number, learning_rate=rate) for number, (name, rate) in enumerate(
        [("slow", 1e-5), ("fast", 0.01), ("faster", 0.02)]
    )]  # fmt: skip
    result = cook(brief, ingredients, best=2)
    assert set(result.blended) == {"fast@1", "faster@1"}
    assert result.blend_loss is not None


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, seed_model: Path, train_data: Path) -> list[Ingredient]:
    """Three of two shapes, and two that no merge takes; trained once, and left as they are by whoever blends them."""
    brief = brief_in(tmp_path_factory.mktemp("adapters"), seed_model, train_data)
    return [
        entry(brief, "a", 1, adapter=LORA),
        entry(brief, "b", 2, adapter=LORA | {"target_modules": ["q_proj", "up_proj"]}),
        entry(brief, "wide", 3, adapter={"method": "lora", "rank": 4}),
        entry(brief, "dora", 4, adapter={"method": "dora", "rank": 2}),
        entry(brief, "full", 5),
    ]


def updates(ingredient: Ingredient, seed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a LoRA adapter adds to each weight of its seed: alpha / rank of B times A."""
    config = json.loads((ingredient.folder / "adapter_config.json").read_text())
    tensors, factor = weights(ingredient.folder), config["lora_alpha"] / config["r"]
    found = {name: torch.zeros_like(tensor) for name, tensor in seed.items()}
    for name in tensors:
        if name.endswith("lora_A.weight"):
            own = name.removeprefix("base_model.model.").replace(".lora_A", "")
            found[own] = factor * tensors[name.replace("lora_A", "lora_B")] @ tensors[name]
    return found


def agreed(both: torch.Tensor) -> torch.Tensor:
    """The mean over those that go where the sum goes."""
    agrees = both.sign() == torch.where(both.sum(0) >= 0, 1, -1)
    return (both * agrees).sum(0) / agrees.sum(0).clamp(min=1)


@pytest.mark.parametrize("method", ["linear", "ties", "dare_linear", "dare_ties"])
def test_a_merge_is_of_what_the_adapters_add_number_by_number(
    brief: Brief, seed_model: Path, adapters: list[Ingredient], method: str
):
    """All numbers are kept, so that DARE leaves nothing to chance. A mean of A and B apart would be another update."""
    assert cook(brief, adapters, method=method, density=1).blended == ["a@1", "b@1", "wide@1"]
    inspect(brief.output_dir, "full", seed_model)
    seed = weights(seed_model)
    added = [updates(adapter, seed) for adapter in adapters[:3]]
    moved = 0
    for name, tensor in weights(brief.output_dir).items():
        each = torch.stack([one[name] for one in added])
        expected = agreed(each) if "ties" in method else each.mean(0)
        torch.testing.assert_close(tensor - seed[name], expected, atol=1e-6, rtol=1e-4)
        moved += bool(expected.abs().max() > 1e-3)
    assert moved == 2 * 7
    notes = [line for line in brief.progress_file.read_text().splitlines() if "leaves out" in line]
    assert "dora@1, full@1" in notes[0]


def test_a_linear_merge_is_the_uniform_soup_of_the_same_adapters(brief: Brief, adapters: list[Ingredient]):
    cook(brief, adapters[:3], method="linear")
    linear = weights(brief.output_dir)
    shutil.rmtree(brief.output_dir)
    cook(brief, adapters[:3])
    torch.testing.assert_close(linear, weights(brief.output_dir))


@pytest.mark.parametrize("method", ["ties", "dare_linear", "dare_ties"])
def test_a_density_leaves_numbers_out(brief: Brief, seed_model: Path, adapters: list[Ingredient], method: str):
    cook(brief, [adapters[0], adapters[2]], method=method, density=0.3)
    seed = weights(seed_model)
    moved = [tensor - seed[name] for name, tensor in weights(brief.output_dir).items() if "proj" in name]
    zeros = sum(int((tensor == 0).sum()) for tensor in moved)
    assert 0.25 < zeros / sum(tensor.numel() for tensor in moved) < 0.75


@pytest.mark.parametrize(("rate", "stored"), [(1e-5, torch.float32), (0.05, torch.bfloat16)])
def test_a_soup_whose_update_the_seeds_dtype_would_swallow_is_stored_in_float32(
    brief: Brief, seed_model: Path, tmp_path: Path, rate: float, stored: torch.dtype
):
    narrow = tmp_path / "narrow"
    shutil.copytree(seed_model, narrow)
    AutoModelForCausalLM.from_pretrained(narrow, dtype=torch.bfloat16).save_pretrained(narrow)
    brief = brief.model_copy(update={"seed_model": narrow})
    cook(brief, [entry(brief, name, number, adapter=LORA, learning_rate=rate) for number, name in enumerate("ab")])
    assert {tensor.dtype for tensor in load_file(brief.output_dir / "model.safetensors").values()} == {stored}
    assert ("stored in float32" in brief.progress_file.read_text()) == (stored == torch.float32)


def test_too_little_or_the_wrong_thing_to_blend_forfeits_in_words(brief: Brief):
    one = entry(brief, "one", 1)
    with pytest.raises(Forfeit, match="nothing to blend: 1 scored submissions stand on this seed"):
        cook(brief, [one])
    other = one.model_copy(update={"label": "other@1", "seed_sha256": "f"})
    with pytest.raises(Forfeit, match="other@1 stands on another seed"):
        cook(brief, [one, other])
    with pytest.raises(Forfeit, match="no two LoRA adapters"):
        cook(brief, [one, one], method="ties")


def test_the_slice_is_of_rows_that_nobody_trained_on(brief: Brief):
    ingredients = [entry(brief, "a", 1), entry(brief, "b", 1)]
    seen = sum(np.load(Path(str(i.continuation)) / "seen.npy") for i in ingredients)
    rows = fresh_rows(brief, ingredients, 20)
    assert len(rows) == 20
    assert seen[rows].sum() == 0
    assert seen.sum() == 80


def test_rows_that_were_kept_from_all_entries_choose(brief: Brief, tmp_path: Path):
    kept = tmp_path / "slice.parquet"
    pq.write_table(pa.table({"prompt": ["what is the moon ? \n"] * 3, "completion": ["the moon is red ."] * 3}), kept)
    ingredients = [entry(brief, "a", 1), entry(brief, "b", 2)]
    on_train = cook(brief, ingredients, method="greedy").slice_losses
    on_slice = cook(brief.model_copy(update={"slice_data": kept}), ingredients, method="greedy").slice_losses
    assert set(on_slice) == set(on_train) == {"a@1", "b@1"}
    assert on_slice != on_train
