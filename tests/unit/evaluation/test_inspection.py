"""Inspection finds what is wrong with a submission and says it in words."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.errors import Forfeit
from evaluation.inspection import inspect
from tests.tiny import tiny_model


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "seed")


def edit(folder: Path, **changes: torch.Tensor | None) -> None:
    weights = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        key = "model.embed_tokens.weight" if name == "embedding" else name
        if tensor is None:
            del weights[key]
        else:
            weights[key] = tensor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_sound_model_passes(tmp_path: Path, seed: Path):
    inspect(tiny_model(tmp_path / "m", seed=1), "full", seed)


def test_values_that_are_not_finite(tmp_path: Path, seed: Path):
    folder = tiny_model(tmp_path / "m")
    edit(folder, embedding=torch.full((32, 16), float("nan")))
    with pytest.raises(Forfeit, match="not finite"):
        inspect(folder, "full", seed)


def test_a_missing_weight(tmp_path: Path, seed: Path):
    folder = tiny_model(tmp_path / "m")
    edit(folder, embedding=None)
    with pytest.raises(
        Forfeit, match=r"model\.safetensors lacks lm_head\.weight, model\.embed_tokens\.weight: they would"
    ):
        inspect(folder, "full", seed)


def test_another_shape(tmp_path: Path, seed: Path):
    folder = tiny_model(tmp_path / "m")
    edit(folder, embedding=torch.zeros(32, 24))
    with pytest.raises(Forfeit, match="has shape"):
        inspect(folder, "full", seed)


def configured(folder: Path, **changes: object) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "mistral"}, "is a mistral model, the seed is a llama"),
        (
            {"model_type": "encoder-decoder", "encoder": {"model_type": "bert"}, "decoder": {"model_type": "bert"}},
            "is a encoder-decoder model, the seed is a llama",
        ),
        ({"num_hidden_layers": 10**9}, "says num_hidden_layers: 1000000000, the seed's says 2"),
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, "says rope_parameters: .*1000000"),
        ({"hidden_size": 24}, "says hidden_size: 24"),
        ({"quantization_config": {"quant_method": "gptq"}}, "says quantization_config: .*gptq"),
        ({"num_hidden_layers": "many"}, "config.json cannot be read: .*num_hidden_layers"),
        ({"model_type": ["llama"]}, "config.json cannot be read"),
    ],
)
def test_another_architecture(tmp_path: Path, seed: Path, changes: dict[str, object], reason: str):
    with pytest.raises(Forfeit, match=reason):
        inspect(configured(tiny_model(tmp_path / "m"), **changes), "full", seed)


def test_a_base_whose_config_is_older_says_the_same(tmp_path: Path, seed: Path):
    config = json.loads((seed / "config.json").read_text())
    for key in ("rope_parameters", "head_dim", "dtype", "pretraining_tp"):
        del config[key]
    older = {"rope_theta": 10000.0, "rope_scaling": None, "torch_dtype": "float32", "transformers_version": "4.40.0"}
    (seed / "config.json").write_text(json.dumps(config | older))
    inspect(tiny_model(tmp_path / "m"), "full", seed)


def test_settings_that_change_no_loss_may_differ(tmp_path: Path, seed: Path):
    changes = {"use_cache": False, "pad_token_id": None, "attention_dropout": 0.1, "dtype": "bfloat16"}
    changes |= {"a_trainers_version": "2026.1", "auto_map": {"AutoConfig": "theirs.Config"}}
    inspect(configured(tiny_model(tmp_path / "m"), **changes), "full", seed)


def test_a_file_that_runs_code(tmp_path: Path, seed: Path):
    folder = tiny_model(tmp_path / "m")
    (folder / "modeling_own.py").write_text("print(1)")
    with pytest.raises(Forfeit, match=r"holds modeling_own\.py"):
        inspect(folder, "full", seed)


def test_weights_that_cannot_be_read(tmp_path: Path, seed: Path):
    folder = tiny_model(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    with pytest.raises(Forfeit, match="cannot be read"):
        inspect(folder, "full", seed)


def sharded(folder: Path, seed: int = 0, **config: object) -> Path:
    """A tiny model in two files and an index."""
    weights = load_file(tiny_model(folder, seed, **config) / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    files = {"model-1.safetensors": names[:9], "model-2.safetensors": names[9:]}
    for file, held in files.items():
        save_file({name: weights[name] for name in held}, folder / file, metadata={"format": "pt"})
    write_index(folder, {name: file for file, held in files.items() for name in held})
    return folder


def write_index(folder: Path, weight_map: object) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def read_index(folder: Path) -> dict[str, str]:
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


def test_shards_and_their_index_pass(tmp_path: Path, seed: Path):
    inspect(sharded(tmp_path / "m"), "full", seed)


def test_an_index_of_one_file_passes(tmp_path: Path, seed: Path):
    folder = tiny_model(tmp_path / "m")
    write_index(folder, dict.fromkeys(load_file(folder / "model.safetensors"), "model.safetensors"))
    inspect(folder, "full", seed)


@pytest.mark.parametrize("missing", ["model-1.safetensors", "model-2.safetensors"])
def test_an_index_that_names_an_absent_shard(tmp_path: Path, seed: Path, missing: str):
    folder = sharded(tmp_path / "m")
    (folder / missing).unlink()
    with pytest.raises(Forfeit, match=f"index.json names {missing}, which is not there"):
        inspect(folder, "full", seed)


def test_a_shard_that_the_index_does_not_name(tmp_path: Path, seed: Path):
    folder = sharded(tmp_path / "m")
    save_file({"more": torch.zeros(2)}, folder / "model-3.safetensors")
    with pytest.raises(Forfeit, match=r"model-3\.safetensors lies beside the model's weights and is none of them"):
        inspect(folder, "full", seed)


def test_whole_weights_beside_an_index_of_shards(tmp_path: Path, seed: Path):
    folder, whole = sharded(tmp_path / "m"), tiny_model(tmp_path / "other", seed=5)
    (whole / "model.safetensors").rename(folder / "model.safetensors")
    with pytest.raises(Forfeit, match=r"model\.safetensors lies beside the model's weights"):
        inspect(folder, "full", seed)


def test_other_weights_beside_whole_ones(tmp_path: Path, seed: Path):
    folder = tiny_model(tmp_path / "m")
    save_file({"value_head": torch.zeros(2)}, folder / "trunk.safetensors")
    with pytest.raises(Forfeit, match=r"trunk\.safetensors lies beside the model's weights"):
        inspect(folder, "full", seed)


def test_a_tensor_that_the_index_lists_and_no_shard_holds(tmp_path: Path, seed: Path):
    folder = sharded(tmp_path / "m")
    write_index(folder, read_index(folder) | {"model.more.weight": "model-2.safetensors"})
    with pytest.raises(Forfeit, match=r"model-2\.safetensors lacks model\.more\.weight, which .*index\.json lists"):
        inspect(folder, "full", seed)


def test_a_tensor_that_lies_in_another_shard_than_the_index_says(tmp_path: Path, seed: Path):
    folder = sharded(tmp_path / "m")
    write_index(folder, read_index(folder) | {"model.norm.weight": "model-1.safetensors"})
    with pytest.raises(Forfeit, match=r"model-1\.safetensors lacks model\.norm\.weight"):
        inspect(folder, "full", seed)


def test_a_tensor_that_the_index_leaves_out(tmp_path: Path, seed: Path):
    folder = sharded(tmp_path / "m")
    write_index(folder, {name: file for name, file in read_index(folder).items() if name != "model.norm.weight"})
    with pytest.raises(Forfeit, match=r"model-2\.safetensors holds model\.norm\.weight, which .* does not list"):
        inspect(folder, "full", seed)


def test_a_weight_that_neither_index_nor_shard_has(tmp_path: Path, seed: Path):
    folder = sharded(tmp_path / "m")
    index, weights = read_index(folder), load_file(folder / "model-2.safetensors")
    del index["model.norm.weight"], weights["model.norm.weight"]
    save_file(weights, folder / "model-2.safetensors", metadata={"format": "pt"})
    write_index(folder, index)
    with pytest.raises(Forfeit, match=r"model\.safetensors\.index\.json lacks model\.norm\.weight"):
        inspect(folder, "full", seed)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "\x80"])
def test_an_index_that_is_none(tmp_path: Path, seed: Path, text: str):
    folder = sharded(tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text(text, encoding="latin-1")
    with pytest.raises(Forfeit, match=r"model\.safetensors\.index\.json (cannot be read|lists no weights)"):
        inspect(folder, "full", seed)


def test_no_weights_at_all(tmp_path: Path, seed: Path):
    folder = tiny_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(Forfeit, match=r"model\.safetensors is not there"):
        inspect(folder, "full", seed)


def test_an_untied_head_that_is_not_there(tmp_path: Path, seed: Path):
    folder = configured(tiny_model(tmp_path / "m"), tie_word_embeddings=False)
    with pytest.raises(Forfeit, match=r"model\.safetensors lacks lm_head\.weight"):
        inspect(folder, "full", seed)
    inspect(tiny_model(tmp_path / "untied", tie_word_embeddings=False), "full", seed)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.int64, torch.bool, torch.complex64])
def test_weights_of_an_odd_dtype(tmp_path: Path, seed: Path, dtype: torch.dtype):
    folder = tiny_model(tmp_path / "m")
    edit(folder, embedding=torch.zeros(32, 16).to(dtype))
    with pytest.raises(Forfeit, match=r"model\.safetensors: model\.embed_tokens\.weight is stored as [A-Z]+[0-9]*"):
        inspect(folder, "full", seed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_float_pass(tmp_path: Path, seed: Path, dtype: torch.dtype):
    folder = tiny_model(tmp_path / "m")
    edit(folder, embedding=torch.zeros(32, 16).to(dtype))
    inspect(folder, "full", seed)


def test_names_that_the_base_stores_without_a_prefix(tmp_path: Path, seed: Path):
    """GPT-2 and its like lie on the Hub without the prefix that transformers saves them with."""
    weights = load_file(seed / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    save_file(bare, seed / "model.safetensors", metadata={"format": "pt"})
    inspect(tiny_model(tmp_path / "m"), "full", seed)


def test_an_adapters_config_beside_a_full_model(tmp_path: Path, seed: Path):
    """transformers would load the model that it names as its base."""
    folder = tiny_model(tmp_path / "m")
    config = {"peft_type": "LORA", "base_model_name_or_path": str(seed), "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(Forfeit, match=r"holds adapter_config\.json beside a full model"):
        inspect(folder, "full", seed)


def test_settings_that_no_model_can_be_built_with(tmp_path: Path, seed: Path):
    folder = configured(tiny_model(tmp_path / "m"), pad_token_id=10**9)
    with pytest.raises(Forfeit, match="the model cannot be loaded: "):
        inspect(folder, "full", seed)


def test_a_name_that_is_no_text(tmp_path: Path, seed: Path):
    folder = tiny_model(tmp_path / "m")
    (folder / os.fsdecode(b"note-\xff.txt")).write_text("")
    with pytest.raises(Forfeit, match="odd name") as raised:
        inspect(folder, "full", seed)
    assert str(raised.value).isprintable()


def test_a_reason_is_one_plain_line(tmp_path: Path, seed: Path):
    folder = configured(tiny_model(tmp_path / "m"), rope_parameters={"rope_type": "\x1b[31mred\n" * 200})
    with pytest.raises(Forfeit) as raised:
        inspect(folder, "full", seed)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 400


def test_a_disk_that_fails_is_no_forfeit(tmp_path: Path, seed: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tiny_model(tmp_path / "m")

    def fail(*args: object, **settings: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(folder))

    monkeypatch.setattr("safetensors.safe_open", fail)
    with pytest.raises(OSError, match="Input/output error"):
        inspect(folder, "full", seed)
