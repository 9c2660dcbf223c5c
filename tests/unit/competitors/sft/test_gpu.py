"""What only a GPU can show: bfloat16 autocast, 8-bit optimizers, Liger kernels, a 4-bit base."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoTokenizer

from cluster.resources import Resources
from competitors.contract import Allowance, Brief
from competitors.entry import compete
from competitors.events import read_events
from competitors.output import model_form
from evaluation import loading
from evaluation.submissions.inspection import inspect
from orchestrator.planning.memory import estimate
from orchestrator.planning.model_shape import describe_base
from tests.tiny import tiny_model, tiny_rows, write_jsonl
from tests.unit.competitors.making import brief_in, sft_recipe, weights

ROOT = Path(__file__).parents[4]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine"),
]


def gpu_brief(tmp_path: Path, seed_model: Path, train_data: Path) -> Brief:
    return brief_in(tmp_path, seed_model, train_data).model_copy(update={"resources": Resources(gpus=1)})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "adamw_bnb_8bit"},
        {"optimizer": "paged_adamw_8bit"},
        {"optimizer": "lion_8bit"},
        {"optimizer": "ademamix_8bit"},
        {"optimizer": "adamw_torch_8bit"},
        {"liger": True},
        {"liger": True, "packing": True, "batch_size": 1},
        {"dtype": "float16"},
        {"gradient_checkpointing": True},
    ],
    ids=str,
)
def test_a_gpu_entry_delivers_and_keeps_float32_weights(settings: dict[str, Any], tmp_path: Path, train_data: Path):
    # Wide enough for weights of 4,096 values, from which on torchao's state is in 8 bits.
    brief = gpu_brief(tmp_path, tiny_model(tmp_path / "seed", hidden=64), train_data)
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


def test_packed_rows_under_flash_attention_do_not_see_each_other(tmp_path: Path, train_data: Path):
    """The first step's loss is that of the same rows apart: nothing is attended to across their borders."""
    pytest.importorskip("flash_attn")
    seed = tiny_model(tmp_path / "seed", hidden=64)
    losses = []
    for name, settings in (
        ("packed", {"packing": True, "attention": "flash_attention_2", "batch_size": 1}),
        ("apart", {"attention": "sdpa", "batch_size": 1, "gradient_accumulation": 8}),
    ):
        brief = gpu_brief(tmp_path / name, seed, train_data)
        submission = compete(brief, sft_recipe(**settings))
        assert submission.status == "delivered", submission.reason
        losses.append(next(event.loss for event in read_events(brief.progress_file) if event.event == "step"))
    assert losses[0] == pytest.approx(losses[1], abs=0.1)  # bfloat16, and other rows in a step


@pytest.mark.parametrize("stage", ["zero2", "zero3", "zero3-offload"])
def test_a_gang_over_two_gpus_learns_what_one_learns(stage: str, tmp_path: Path):
    if torch.cuda.device_count() < 2:
        pytest.skip("fewer than two GPUs")
    tiny_model(tmp_path / "base", hidden=64)
    write_jsonl(tmp_path / "rows.jsonl", tiny_rows(400))
    common = {"kind": "sft", "learning_rate": 0.01, "warmup": 0, "dtype": "float32"}
    gang = common | {"name": "gang", "deepspeed": stage, "batch_size": 4, "resources": {"workers": 2, "gpus": 1}}
    config = {
        "name": "gang",
        "data": {"source": "rows.jsonl", "prompt": "{instruction} \n", "completion": "{response}", "max_tokens": 64}
        | {"validation": 100, "test": 50},
        "lineages": [{"name": "tiny", "base": "base"}],
        "rounds": 1,
        "budget": {"steps": 20},
        "competitors": [gang, common | {"name": "alone", "batch_size": 8, "resources": {"gpus": 1}}],
    }
    (tmp_path / "gang.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "orchestrator", "run", "gang.yaml", "--run-dir", "run"]
    subprocess.run(command, cwd=tmp_path, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    rounds = json.loads((tmp_path / "run/leaderboard.json").read_text())["lineages"][0]["rounds"]
    losses = {entry["competitor"]: entry["validation_loss"] for entry in rounds[1]["entries"]}
    assert losses["gang"] == pytest.approx(losses["alone"], abs=0.15)  # each has its own order of the rows
    assert losses["gang"] < rounds[0]["validation_loss"] - 1


@pytest.mark.parametrize("settings", [{}, {"adapter": {"method": "lora", "rank": 8}}], ids=["full", "lora"])
def test_training_takes_no_more_memory_than_plan_says(settings: dict[str, Any], tmp_path: Path, train_data: Path):
    """Of 50 million parameters, so that weights, gradients and the optimizer's state are most of it."""
    seed = tiny_model(
        tmp_path / "seed", hidden=768, intermediate_size=2048, num_hidden_layers=8, num_attention_heads=12
    )
    base, recipe = describe_base(str(seed), Path.cwd()), sft_recipe(**settings)
    assert base is not None
    brief = gpu_brief(tmp_path, seed, train_data)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    submission = compete(brief, recipe)
    assert submission.status == "delivered", submission.reason
    measured = (torch.cuda.max_memory_allocated() - before) / 2**30
    assert 0 < measured <= estimate(recipe, base, brief.max_tokens, on_gpu=True).total


def test_scores_in_bfloat16_are_near_those_in_float32(tmp_path: Path):
    seed = tiny_model(tmp_path / "seed", hidden=64)
    row = torch.arange(4, 24)[None].cuda()
    losses = []
    for dtype in ("bfloat16", "float32"):
        with loading.loaded(seed, None, dtype) as model, torch.no_grad():
            assert model.device.type == "cuda"
            losses.append(float(model(row, labels=row).loss))
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
