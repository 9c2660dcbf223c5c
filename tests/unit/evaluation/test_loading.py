"""The last full model stays loaded, adapters come and go, and a path says nothing about what lies there."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.errors import Forfeit
from evaluation import loading
from evaluation.loading import loaded
from evaluation.promotion import make_full
from evaluation.scoring import encode_rows, score
from tests.tiny import tiny_model
from tests.unit.evaluation.making import ROWS, tiny_adapter


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


def test_an_adapter_is_scored_on_its_seed_as_if_merged_and_leaves_the_seed_as_it_was(tmp_path: Path):
    folder = tiny_model(tmp_path / "seed")
    adapter = tiny_adapter(tmp_path / "adapter", folder, use_dora=True)
    make_full(folder, adapter, "adapter", folder, tmp_path / "merged")
    before = nats(folder)
    (kept,) = loading._kept.values()
    adapted = nats(folder, adapter)
    after = nats(folder)
    assert list(loading._kept.values()) == [kept]
    assert np.array_equal(before, after)
    assert np.abs(adapted - before).max() > 0.02
    np.testing.assert_allclose(adapted, nats(tmp_path / "merged"), rtol=1e-4)


def test_an_adapter_that_replaces_whole_modules_leaves_no_trace(tmp_path: Path):
    folder = tiny_model(tmp_path / "seed")
    before = nats(folder)
    nats(folder, tiny_adapter(tmp_path / "adapter", folder, modules_to_save=["lm_head"]))
    assert not loading._kept
    assert np.array_equal(nats(folder), before)


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
