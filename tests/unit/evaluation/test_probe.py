"""A model that sees what follows, or what stands beside, is found out before it is scored."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cluster.errors import Forfeit
from evaluation import evaluator
from evaluation.evaluator import score_model
from evaluation.probe import probe
from evaluation.scoring import EncodedRow, encode_rows
from tests.tiny import tiny_model
from tests.unit.evaluation.submissions.making import ROWS, held_out, job


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("probe") / "m")


def rows(folder: Path) -> list[EncodedRow]:
    return encode_rows(ROWS, AutoTokenizer.from_pretrained(folder), 64)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_honest_model_passes(folder: Path, dtype: str):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    probe(model, rows(folder), 0)
    probe(model, [], 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_one_that_sees_what_follows(tmp_path: Path, dtype: str):
    folder = tiny_model(tmp_path / "m", initializer_range=0.5)  # 16 bits need more to be seen by
    config = AutoConfig.from_pretrained(folder)
    config.is_causal = False
    settings = {"config": config, "dtype": getattr(torch, dtype), "attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(folder, **settings)
    with pytest.raises(Forfeit, match="is not causal: other words at the end of a row change"):
        probe(model, rows(folder), 0)


def patched(model: Any, change: Any) -> Any:
    """The model with other hidden states."""
    inner = model.model.forward

    def forward(*args: Any, **settings: Any) -> Any:
        output = inner(*args, **settings)
        output.last_hidden_state = change(output.last_hidden_state)
        return output

    model.model.forward = forward
    return model


def test_one_that_sees_a_little_of_the_next_token(folder: Path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(Forfeit, match="is not causal"):
        probe(patched(model, lambda hidden: hidden + 0.01 * hidden.roll(-1, 1)), rows(folder), 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_one_that_sees_its_neighbours(tmp_path: Path, dtype: str):
    folder = tiny_model(tmp_path / "m", initializer_range=0.5)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    with pytest.raises(Forfeit, match="a row's loss depends on which others are in its batch, by"):
        probe(patched(model, lambda hidden: hidden - 0.5 * hidden[:, 3:4].mean(0, keepdim=True)), rows(folder), 0)


def test_one_that_counts_padding(folder: Path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(Forfeit, match="a row's loss depends on which others are in its batch, by"):
        probe(patched(model, lambda hidden: hidden + hidden.new_tensor(hidden.shape[1] / 10).sin()), rows(folder), 0)


def test_it_is_asked_before_anything_is_scored(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    held_out(tmp_path / "held_out")

    def refuse(*args: Any) -> None:
        raise Forfeit("is not causal")

    monkeypatch.setattr(evaluator, "probe", refuse)
    monkeypatch.setattr(evaluator, "score", None)
    with pytest.raises(Forfeit, match="is not causal"):
        score_model(job(tmp_path, folder))
