"""A full model stays loaded, an adapter is what it is promoted to, and a path says nothing of what lies there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.errors import Forfeit
from evaluation import loading
from evaluation.loading import loaded
from evaluation.scoring import encode_rows, score
from evaluation.submissions.promotion import make_full
from tests.tiny import tiny_model
from tests.unit.evaluation.submissions.making import ROWS, tiny_adapter


def nats(folder: Path, adapter: Path | None = None) -> np.ndarray:
    with loaded(folder, adapter, "auto") as model:
        return score(model, encode_rows(ROWS, AutoTokenizer.from_pretrained(folder), 64), 256, 0).nats


def test_a_model_is_loaded_once(tmp_path: Path):
    folder = tiny_model(tmp_path / "m")
    with loaded(folder, None, "auto") as once, loaded(folder, None, "auto") as again:
        assert once is again
    with loaded(folder, None, "float16") as half:
        assert half is not once
    assert list(loading._kept.values()) == [half]


def test_another_model_at_the_same_path_is_another_model(tmp_path: Path):
    folder = tiny_model(tmp_path / "m")
    before = nats(folder)
    tiny_model(folder, seed=1)
    assert np.abs(nats(folder) - before).max() > 0.01


STORED = {"float32": (0.5, "float32"), "bfloat16": (0.5, "bfloat16"), "float16": (0.5, "float16")}
STORED |= {"bfloat16, a small update": (0.003, "float32")}
"""Of a seed, how large its adapters' weights are, and what the merged model is stored in."""
KINDS: dict[str, dict[str, Any]] = {
    "lora": {}, "dora": {"use_dora": True}, "rslora": {"use_rslora": True}, "head": {"target_modules": ["lm_head"]},
    "replaced": {"modules_to_save": ["lm_head"]}, "embedded": {"target_modules": ["embed_tokens", "q_proj"]},
}  # fmt: skip


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_scored_as_the_model_that_it_is_promoted_to(tmp_path: Path, stored: str, kind: str):
    std, becomes = STORED[stored]
    folder = tiny_model(tmp_path / "seed")
    AutoModelForCausalLM.from_pretrained(folder, dtype=stored.partition(",")[0]).save_pretrained(folder)
    adapter = tiny_adapter(tmp_path / "adapter", folder, std=std, **KINDS[kind])
    make_full(folder, adapter, "adapter", folder, tmp_path / "merged")
    before = nats(folder)
    adapted = nats(folder, adapter)
    assert np.array_equal(adapted, nats(tmp_path / "merged"))
    assert not np.array_equal(adapted, before)
    assert np.array_equal(nats(folder), before)
    if kind not in ("replaced", "dora"):  # whose updates are large however small their numbers
        assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == becomes


def test_an_adapter_has_a_seed_of_its_own(tmp_path: Path):
    """It leaves nothing in the one that is kept, whatever it is made of and however its scoring ends."""
    folder = tiny_model(tmp_path / "seed")
    with loaded(folder, None, "auto") as kept:
        with loaded(folder, tiny_adapter(tmp_path / "adapter", folder), "auto") as model:
            assert model is not kept
    assert not loading._kept


@pytest.mark.parametrize(
    ("dtype", "stored", "gpu", "chosen"),
    [
        ("auto", torch.bfloat16, True, torch.bfloat16),
        ("auto", torch.float16, True, torch.float16),
        ("auto", torch.float32, True, torch.float32),
        ("auto", None, True, torch.float32),
        ("auto", torch.bfloat16, False, torch.float32),
        ("bfloat16", torch.float32, True, torch.bfloat16),
        ("float16", torch.float32, False, torch.float16),
    ],
)
def test_a_model_computes_in_the_dtype_that_it_goes_on_in(
    monkeypatch: pytest.MonkeyPatch, dtype: loading.Dtype, stored: Any, gpu: bool, chosen: torch.dtype
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert loading._chosen(dtype, stored) == chosen


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
def test_a_full_submission_computes_in_the_dtype_of_its_weights_whatever_its_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str
):
    seed, folder = tiny_model(tmp_path / "seed"), tiny_model(tmp_path / "submission", seed=1)
    AutoModelForCausalLM.from_pretrained(folder, dtype=stored).save_pretrained(folder)
    plain = nats(folder)
    (folder / "config.json").write_text('{"dtype": "float64", "hidden_act": "relu"}')
    make_full(seed, folder, "full", seed, tmp_path / "promoted")
    chosen, asked = loading._chosen, []
    monkeypatch.setattr(loading, "_chosen", lambda dtype, of: chosen(dtype, asked.append(of) or of))
    with loaded(folder, None, "auto", seed) as model:
        tokenizer = AutoTokenizer.from_pretrained(seed)
        assert np.array_equal(score(model, encode_rows(ROWS, tokenizer, 64), 256, 0).nats, plain)
    assert np.array_equal(nats(tmp_path / "promoted"), plain)
    assert asked == [getattr(torch, stored)] * 2


def test_an_adapter_of_another_model_forfeits(tmp_path: Path):
    seed, other = tiny_model(tmp_path / "seed"), tiny_model(tmp_path / "other", hidden=24)
    adapter = tiny_adapter(tmp_path / "adapter", other)
    with pytest.raises(Forfeit, match="does not fit its seed") as raised:
        with loaded(seed, adapter, "auto"):
            pass
    assert str(raised.value).isprintable()
    with loaded(seed, None, "auto") as model:  # and the evaluator goes on
        assert "lora" not in "".join(name for name, _ in model.named_parameters())


def test_a_seed_that_cannot_be_loaded_is_no_adapters_fault(tmp_path: Path):
    seed = tiny_model(tmp_path / "seed")
    adapter = tiny_adapter(tmp_path / "adapter", seed)
    (seed / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        with loaded(seed, adapter, "auto"):
            pass


def test_the_models_dtype_is_what_was_asked_for(tmp_path: Path):
    folder = tiny_model(tmp_path / "m")
    for dtype in ("float32", "bfloat16"):
        with loaded(folder, None, dtype) as model:
            assert str(model.dtype) == f"torch.{dtype}"
    assert str(AutoModelForCausalLM.from_pretrained(folder).dtype) == "torch.float32"
