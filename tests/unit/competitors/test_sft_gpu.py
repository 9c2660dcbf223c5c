"""What only a GPU can show: bfloat16 autocast, 8-bit optimizers, Liger kernels, packing with flash attention."""

from pathlib import Path
from typing import Any

import pytest
import torch

from competitors.contract import Allowance, Brief, Resources, model_form
from competitors.entry import compete
from tests.unit.competitors.test_sft_training import recipe, seed_model, train_data, weights

__all__ = ["seed_model", "train_data"]  # fixtures

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine"),
]


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "adamw_bnb_8bit"}, {"liger": True}, {"dtype": "float16"}, {"gradient_checkpointing": True}],
)
def test_a_gpu_entry_delivers_and_keeps_float32_weights(
    settings: dict[str, Any], tmp_path: Path, seed_model: Path, train_data: Path
):
    out = tmp_path / "entry" / "submission"
    out.mkdir(parents=True)
    brief = Brief(
        tournament="t", lineage="l", round=1, competitor="a", seed_model=seed_model, seed_sha256="0",
        seed_continuation=None, train_data=train_data, max_tokens=64, budget=Allowance(steps=10), progress=(0.0, 0.5),
        output_dir=out, random_seed=7, resources=Resources(gpus=1),
    )  # fmt: skip
    submission = compete(brief, recipe(**settings))
    assert submission.status == "delivered", submission.reason
    assert model_form(out) == "full"
    assert {t.dtype for t in weights(out).values()} == {torch.float32}
