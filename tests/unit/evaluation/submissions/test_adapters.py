"""An adapter is put on its seed and merged, or forfeits in words before it is scored."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cluster.digest import model_sha256
from cluster.errors import Forfeit
from evaluation.loading import loaded
from evaluation.submissions import adapters
from evaluation.submissions.adapters import merged
from evaluation.submissions.inspection import inspect
from tests.tiny import tiny_model
from tests.unit.evaluation.submissions.making import tiny_adapter

IDS = torch.tensor([[2, 5, 9, 11, 17, 6]])


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base") / "seed")


def edit_config(folder: Path, **changes: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def edit_weights(folder: Path, change: Any) -> Path:
    weights = {name: change(name, tensor) for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    save_file({name: t for name, t in weights.items() if t is not None}, folder / "adapter_model.safetensors")
    return folder


PLAIN: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "ranks": {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 3}},
    "ia3": {"config": peft.IA3Config(task_type="CAUSAL_LM", target_modules=["v_proj"], feedforward_modules=[])},
}


@pytest.mark.parametrize("name", PLAIN)
def test_known_types_pass_without_a_trial(tmp_path: Path, seed: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    folder = tiny_adapter(tmp_path / "a", seed, **PLAIN[name])
    monkeypatch.setattr(adapters, "merged", None)
    inspect(folder, "adapter", seed)


@pytest.mark.parametrize("name", PLAIN)
def test_merged_is_what_was_scored(tmp_path: Path, seed: Path, name: str):
    folder = tiny_adapter(tmp_path / "a", seed, **PLAIN[name])
    base = AutoModelForCausalLM.from_pretrained(seed, dtype=torch.float32)
    with torch.no_grad():
        before = base(IDS).logits.clone()
        scored = adapters.put_on(base, folder)(IDS).logits
        after = merged(seed, folder)(IDS).logits
    torch.testing.assert_close(after, scored, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(before, scored, atol=1e-2)


def test_whole_modules_are_merged_on_trial(tmp_path: Path, seed: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tiny_adapter(tmp_path / "a", seed, std=0.05, modules_to_save=["lm_head"])
    tried = []
    monkeypatch.setattr(adapters, "merged", lambda *paths: tried.append(merged(*paths)))
    inspect(folder, "adapter", seed)
    assert len(tried) == 1


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "activated lora": ({"alora_invocation_tokens": [3]}, "alora_invocation_tokens.*: it acts only after some tokens"),
    "lora with a bias": ({"lora_bias": True}, "lora_bias: True: it cannot be merged"),
    "trained tokens": ({"trainable_token_indices": [3, 4]}, "trainable_token_indices.*: only whole modules"),
    "loha": ({"config": peft.LoHaConfig(r=2, target_modules=["q_proj"])}, "of type 'LOHA'; only LoRA"),
    "lokr": ({"config": peft.LoKrConfig(r=2, target_modules=["q_proj"])}, "of type 'LOKR'; only LoRA"),
    "oft": ({"config": peft.OFTConfig(r=0, oft_block_size=4, target_modules=["q_proj"])}, "of type 'OFT'; only LoRA"),
    "lily": (
        {"config": peft.LilyConfig(r=2, target_modules=["q_proj"], stride_A=1, num_B=2)},
        "of type 'LILY'; only LoRA",
    ),
    "poly": ({"config": peft.PolyConfig(r=2, target_modules=["q_proj"])}, "of type 'POLY'; only LoRA"),
    "prompts": (
        {"config": peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)},
        "of type 'PROMPT_TUNING'; only LoRA",
    ),
    "prefixes": (
        {"config": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)},
        "of type 'PREFIX_TUNING'; only LoRA",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_types_and_settings_are_refused_by_name(tmp_path: Path, seed: Path, name: str):
    settings, reason = OTHERS[name]
    folder = tiny_adapter(tmp_path / "a", seed, **settings)
    with pytest.raises(Forfeit, match=reason):
        inspect(folder, "adapter", seed)


def test_a_merge_that_overflows_the_seeds_dtype(tmp_path: Path):
    seed = tiny_model(tmp_path / "seed")
    AutoModelForCausalLM.from_pretrained(seed, dtype=torch.float16).save_pretrained(seed)
    inspect(tiny_adapter(tmp_path / "small", seed), "adapter", seed)
    with pytest.raises(Forfeit, match=r"cannot be merged into its seed: .*proj\.weight is not finite"):
        inspect(tiny_adapter(tmp_path / "large", seed, std=300.0), "adapter", seed)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a bad regular expression": ({"target_modules": "(("}, r"must be a pattern that can be read"),
    "no such module": ({"target_modules": ["absent"]}, "does not fit its seed"),
    "no such type": ({"peft_type": "MAGIC"}, r"of type 'MAGIC'"),
    "another rank": ({"r": 8}, "does not fit its seed"),
    "a rank that is no number": ({"r": "many"}, "r: 'many': it must be a number from 1"),
    "layers that are not there": ({"layers_to_transform": [99]}, "does not fit its seed"),
    "more modules than it has weights for": ({"target_modules": ["q_proj", "up_proj", "v_proj"]}, "lacks 4 weights"),
    "other adapters by path": ({"peft_type": "XLORA", "adapters": {"a": "/tmp/a"}}, "of type 'XLORA'"),
}


def inspect_and_load(folder: Path, seed: Path) -> None:
    inspect(folder, "adapter", seed)
    with loaded(seed, folder, "auto"):
        pass


@pytest.mark.parametrize("name", BROKEN)
def test_a_config_that_fits_nothing_is_a_forfeit_and_nothing_else(tmp_path: Path, seed: Path, name: str):
    changes, reason = BROKEN[name]
    folder = edit_config(tiny_adapter(tmp_path / "a", seed), **changes)
    with pytest.raises(Forfeit, match=reason):
        inspect_and_load(folder, seed)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "\x80"])
def test_a_config_that_is_none(tmp_path: Path, seed: Path, text: str):
    folder = tiny_adapter(tmp_path / "a", seed)
    (folder / "adapter_config.json").write_text(text, encoding="latin-1")
    with pytest.raises(Forfeit, match=r"adapter_config\.json cannot be read|is an adapter of type None"):
        inspect(folder, "adapter", seed)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_file_that_is_not_there(tmp_path: Path, seed: Path, name: str):
    folder = tiny_adapter(tmp_path / "a", seed)
    (folder / name).unlink()
    with pytest.raises(Forfeit, match=f"{name} is missing"):
        inspect(folder, "adapter", seed)


def test_weights_that_are_none_or_not_finite_or_odd(tmp_path: Path, seed: Path):
    def changed(name: str, change: Any) -> Path:
        return edit_weights(tiny_adapter(tmp_path / name, seed), change)

    with pytest.raises(Forfeit, match="has no weights"):
        inspect(changed("none", lambda name, tensor: None), "adapter", seed)
    with pytest.raises(Forfeit, match="not finite"):
        inspect(changed("nan", lambda name, tensor: tensor / 0), "adapter", seed)
    with pytest.raises(Forfeit, match="is stored as F8_E5M2"):
        inspect(changed("odd", lambda name, tensor: tensor.to(torch.float8_e5m2)), "adapter", seed)


def test_an_adapter_that_lacks_weights_is_not_completed_by_chance(tmp_path: Path, seed: Path):
    folder = edit_weights(tiny_adapter(tmp_path / "a", seed), lambda name, t: None if "layers.1" in name else t)
    with pytest.raises(Forfeit, match=r"lacks 4 weights that its config promises, .*layers\.1"):
        adapters.put_on(AutoModelForCausalLM.from_pretrained(seed), folder)


def test_an_adapter_trained_in_two_folders_has_one_hash(tmp_path: Path, seed: Path):
    """Its config names the folder of its base, and lists modules in no order."""
    shutil.copytree(seed, tmp_path / "elsewhere")
    modules = ["q_proj", "v_proj", "up_proj", "down_proj"]
    one = tiny_adapter(tmp_path / "one", seed, target_modules=modules)
    other = tiny_adapter(tmp_path / "two" / "other", tmp_path / "elsewhere", target_modules=modules)
    config = json.loads((other / "adapter_config.json").read_text())
    edit_config(other, target_modules=config["target_modules"][::-1], peft_version="0.20.0")
    assert (one / "adapter_config.json").read_text() != (other / "adapter_config.json").read_text()
    assert model_sha256(one) == model_sha256(other)
    assert model_sha256(one) != model_sha256(tiny_adapter(tmp_path / "three", seed, target_modules=modules, seed=2))
    assert model_sha256(one) != model_sha256(edit_config(other, lora_alpha=99))
