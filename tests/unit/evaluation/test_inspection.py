"""Inspection finds what is wrong with a submission and says it in words."""

import json
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
    with pytest.raises(Forfeit, match=r"embed_tokens\.weight is missing"):
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
