"""What only a GPU can show: bfloat16 autocast, 8-bit optimizers, Liger kernels, a 4-bit base."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from cluster.resources import Resources
from competitors.contract import Allowance, Brief
from competitors.entry import compete
from competitors.events import read_events
from competitors.output import model_form
from evaluation import loading
from evaluation.submissions.inspection import inspect
from tests.tiny import tiny_model
from tests.unit.competitors.making import brief_in, sft_recipe, weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine"),
]


def gpu_brief(tmp_path: Path, seed_model: Path, train_data: Path) -> Brief:
    return brief_in(tmp_path, seed_model, train_data).model_copy(update={"resources": Resources(gpus=1)})


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "adamw_bnb_8bit"}, {"liger": True}, {"dtype": "float16"}, {"gradient_checkpointing": True}],
)
def test_a_gpu_entry_delivers_and_keeps_float32_weights(
    settings: dict[str, Any], tmp_path: Path, seed_model: Path, train_data: Path
):
    brief = gpu_brief(tmp_path, seed_model, train_data)
    out = brief.output_dir
    submission = compete(brief, sft_recipe(**settings))
    assert submission.status == "delivered", submission.reason
    assert model_form(out) == "full"
    assert {t.dtype for t in weights(out).values()} == {torch.float32}


def test_qlora_trains_over_four_bits_and_submits_a_float32_adapter_over_the_seed(tmp_path: Path, train_data: Path):
    """Wide enough for blocks of 64 weights; the 4-bit base differs from the seed, so the two losses differ a little."""
    pytest.importorskip("bitsandbytes")
    seed = tiny_model(tmp_path / "seed", hidden=64)
    brief = gpu_brief(tmp_path, seed, train_data)
    brief = brief.model_copy(update={"budget": Allowance(steps=30)})
    submission = compete(brief, sft_recipe(adapter={"method": "qlora", "rank": 4}, score_weights="tail_average"))
    assert submission.status == "delivered", submission.reason
    assert model_form(brief.output_dir) == "adapter"
    assert {t.dtype for t in weights(brief.output_dir).values()} == {torch.float32}
    inspect(brief.output_dir, "adapter", seed)
    losses = [event.loss for event in read_events(brief.progress_file) if event.event == "step"]
    assert losses[-1] < losses[0]
    tokenizer = AutoTokenizer.from_pretrained(seed)
    row = tokenizer("what is the a cat ? \n the is the .", return_tensors="pt", add_special_tokens=False)["input_ids"]
    scores = []
    for adapter in (None, brief.output_dir):
        with loading.loaded(seed, adapter, "float32") as model, torch.no_grad():
            scores.append(float(model(row.to(model.device), labels=row.to(model.device)).loss))
    assert scores[1] < scores[0]


@pytest.mark.parametrize("method", ["lora", "dora", "pissa", "olora", "ia3"])
def test_adapters_over_a_bfloat16_pass_stand_on_the_seed(
    method: str, tmp_path: Path, seed_model: Path, train_data: Path
):
    brief = gpu_brief(tmp_path, seed_model, train_data)
    rank = {} if method == "ia3" else {"rank": 4}
    submission = compete(brief, sft_recipe(adapter={"method": method} | rank))
    assert submission.status == "delivered", submission.reason
    assert {t.dtype for t in weights(brief.output_dir).values()} == {torch.float32}
    inspect(brief.output_dir, "adapter", seed_model)
