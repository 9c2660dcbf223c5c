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
    with pytest.raises(Forfeit, match="has shape"):
        inspect(tiny_model(tmp_path / "m", hidden=24), "full", seed)


def test_another_architecture(tmp_path: Path, seed: Path):
    folder = tiny_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mistral"}))
    with pytest.raises(Forfeit, match="is a mistral model, the seed is a llama"):
        inspect(folder, "full", seed)


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
