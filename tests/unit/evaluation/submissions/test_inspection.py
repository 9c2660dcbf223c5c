"""What passes inspection, and what it finds out. What does not pass is in the zoo: test_zoo.py."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cluster.errors import Forfeit
from evaluation.loading import built
from evaluation.submissions import inspection
from evaluation.submissions.examination import NEAR, examine
from evaluation.submissions.inspection import inspect
from tests.tiny import tiny_model
from tests.unit.evaluation.submissions.making import tiny_adapter
from tests.unit.evaluation.submissions.zoo.spoiling import Spoil, configured, sharded, weighted

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "examine_apart", examine)


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "seed")


def other(tmp_path: Path, name: str = "m", **config: object) -> Path:
    return tiny_model(tmp_path / name, seed=1, **config)


def test_a_sound_model_passes(tmp_path: Path, seed: Path):
    findings = inspect(other(tmp_path), "full", seed)
    assert len(findings.content) == 64
    assert findings.distance is not None
    assert findings.distance > NEAR


def test_a_base_whose_config_is_older_says_the_same(tmp_path: Path, seed: Path):
    older(seed)
    inspect(other(tmp_path), "full", seed)


def test_a_submission_whose_config_is_older_says_the_same(tmp_path: Path, seed: Path):
    folder = other(tmp_path)
    older(folder)
    inspect(folder, "full", seed)


def older(folder: Path) -> None:
    """As transformers 4 wrote it."""
    config = json.loads((folder / "config.json").read_text())
    for key in ("rope_parameters", "head_dim", "dtype"):
        del config[key]
    before = {"rope_theta": 10000.0, "rope_scaling": None, "torch_dtype": "float32", "transformers_version": "4.40.0"}
    (folder / "config.json").write_text(json.dumps(config | before))


def test_settings_that_change_no_loss_may_differ(tmp_path: Path, seed: Path):
    folder = other(tmp_path)
    configured(
        use_cache=False,
        attention_dropout=0.1,
        dtype="bfloat16",
        eos_token_id=[3, 0],
        unsloth_version="1",
        output_router_logits=True,
    )(folder)
    inspect(folder, "full", seed)
    config = json.loads((folder / "config.json").read_text()) | {"pad_token_id": None}
    (folder / "config.json").write_text(json.dumps(config))
    inspect(folder, "full", seed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_float_pass(tmp_path: Path, seed: Path, dtype: torch.dtype):
    folder = other(tmp_path)
    weighted(lambda weights: weights.update({EMBEDDING: weights[EMBEDDING].to(dtype)}))(folder)
    inspect(folder, "full", seed)


def test_names_that_the_base_stores_without_a_prefix(tmp_path: Path, seed: Path):
    """GPT-2 and its like lie on the Hub without the prefix that transformers saves them with."""
    weights = load_file(seed / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    save_file(bare, seed / "model.safetensors", metadata={"format": "pt"})
    findings = inspect(other(tmp_path), "full", seed)
    assert findings.distance is not None
    with pytest.raises(Forfeit, match="is a copy of its seed"):
        inspect(tiny_model(tmp_path / "again"), "full", seed)


def test_a_head_that_is_stored_though_it_is_the_embeddings(tmp_path: Path, seed: Path):
    folder = other(tmp_path)
    before = inspect(folder, "full", seed)
    weighted(lambda weights: weights.update({"lm_head.weight": weights[EMBEDDING].clone()}))(folder)
    assert inspect(folder, "full", seed).content == before.content


def test_a_head_under_two_names_one_of_which_is_foreign(tmp_path: Path, seed: Path):
    """Both are the head's; the last one says what the embeddings say, and transformers would take the first."""
    folder = other(tmp_path)
    foreign = torch.randn(load_file(seed / "model.safetensors")[EMBEDDING].shape)
    weighted(
        lambda weights: weights.update({"lm_head.weight": foreign, "model.lm_head.weight": weights[EMBEDDING].clone()})
    )(folder)
    with pytest.raises(Forfeit, match=r"holds (model\.)?lm_head\.weight and (model\.)?lm_head\.weight, which are one"):
        inspect(folder, "full", seed)
    assert built(seed, folder, torch.float32).lm_head.weight.equal(load_file(folder / "model.safetensors")[EMBEDDING])


def test_an_untied_head_where_the_seed_has_one(tmp_path: Path):
    untied = tiny_model(tmp_path / "untied", tie_word_embeddings=False)
    inspect(other(tmp_path, tie_word_embeddings=False), "full", untied)
    with pytest.raises(Forfeit, match="says tie_word_embeddings: True"):
        inspect(other(tmp_path, "tied"), "full", untied)


def to(dtype: torch.dtype) -> Spoil:
    return weighted(lambda weights: weights.update({name: one.to(dtype) for name, one in weights.items()}))


SAME: dict[str, Spoil] = {
    "as it is": lambda folder: None,
    "in other files": sharded(),
    "in 64 bits": to(torch.float64),
    "with zeros below nothing": weighted(lambda weights: [w.masked_fill_(w == 0, -0.0) for w in weights.values()]),
    "with another config": configured(use_cache=False),
}


@pytest.mark.parametrize("name", SAME)
def test_one_content_however_it_is_stored(tmp_path: Path, seed: Path, name: str):
    folder = other(tmp_path)
    before = inspect(folder, "full", seed)
    SAME[name](folder)
    assert inspect(folder, "full", seed).content == before.content
    weighted(lambda weights: weights[EMBEDDING][3, 3:4].add_(0.01), "model.safetensors")(other(tmp_path, "n"))
    assert inspect(tmp_path / "n", "full", seed).content != before.content


@pytest.mark.parametrize("name", [*SAME, "in 16 bits", "in brain's 16 bits"])
def test_a_copy_of_the_seed_or_of_the_champion(tmp_path: Path, seed: Path, name: str):
    spoil = {"in 16 bits": to(torch.float16), "in brain's 16 bits": to(torch.bfloat16)} | SAME
    champion = other(tmp_path, "champion")
    for model, what in ((seed, "its seed"), (champion, "the champion")):
        folder = tmp_path / f"copy of {what}"
        shutil.copytree(model, folder)
        spoil[name](folder)
        with pytest.raises(Forfeit, match=f"is a copy of {what}: no value differs"):
            inspect(folder, "full", seed, champion)
        inspect(folder, "full", seed, champion, is_control=True)


def test_all_but_the_seed_is_told_by_its_distance(tmp_path: Path, seed: Path):
    shutil.copytree(seed, tmp_path / "scaled")
    weighted(lambda weights: [weight.mul_(1.0001) for weight in weights.values()])(tmp_path / "scaled")
    assert inspect(tmp_path / "scaled", "full", seed).distance == pytest.approx(1e-4, rel=0.01)
    shutil.copytree(seed, tmp_path / "noisy")
    torch.manual_seed(0)
    weighted(lambda weights: [w.add_(1e-3 * w.std() * torch.randn_like(w)) for w in weights.values() if w.dim() > 1])(
        tmp_path / "noisy"
    )
    distance = inspect(tmp_path / "noisy", "full", seed).distance
    assert distance is not None
    assert 1e-5 < distance < 1e-3


ADAPTERS = {
    "lora": {}, "rslora": {"use_rslora": True, "lora_alpha": 3}, "by name": {"alpha_pattern": {"q_proj": 3}},
    "embeddings": {"target_modules": ["embed_tokens"]},
}  # fmt: skip


@pytest.mark.parametrize("name", ADAPTERS)
def test_how_far_an_adapter_moves_what_it_changes(tmp_path: Path, seed: Path, name: str):
    from evaluation.submissions.adapters import merged

    folder = tiny_adapter(tmp_path / "a", seed, **ADAPTERS[name])
    after = dict(merged(seed, folder).named_parameters())
    before = dict(AutoModelForCausalLM.from_pretrained(seed).named_parameters())
    changed = [key for key in before if key in after and not torch.equal(before[key], after[key])]
    moved = sum(float((after[key] - before[key]).square().sum()) for key in changed)
    length = sum(float(before[key].square().sum()) for key in changed)
    assert inspect(folder, "adapter", seed).distance == pytest.approx((moved / length) ** 0.5, rel=1e-3)


def test_an_adapter_that_does_nothing_is_a_copy_of_its_seed(tmp_path: Path, seed: Path):
    folder = tiny_adapter(tmp_path / "a", seed)
    weighted(
        lambda weights: [w.zero_() for name, w in weights.items() if "lora_B" in name], "adapter_model.safetensors"
    )(folder)
    with pytest.raises(Forfeit, match="is a copy of its seed"):
        inspect(folder, "adapter", seed)


def test_a_pattern_is_the_names_that_it_matches(tmp_path: Path, seed: Path):
    folder = tiny_adapter(tmp_path / "a", seed, target_modules=r".*layers\.0\..*(q|v)_proj")
    assert inspect(folder, "adapter", seed).distance is not None


def test_embeddings_that_peft_stores_beside_an_adapter(tmp_path: Path, seed: Path):
    folder = tiny_adapter(tmp_path / "a", seed, target_modules=["embed_tokens", "q_proj"])
    assert any("lora" not in name for name in load_file(folder / "adapter_model.safetensors"))
    inspect(folder, "adapter", seed)
