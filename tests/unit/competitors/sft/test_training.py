"""A whole training without Ray: its submission, its budget, and that it repeats."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig, MixtralForCausalLM
from transformers.models.llama import modeling_llama

from cluster.encoding import encode
from competitors.contract import Allowance, Brief
from competitors.entry import compete
from competitors.output import model_form
from competitors.sft import callback
from competitors.sft.callback import BudgetCallback
from competitors.sft.passes import in_order
from competitors.sft.training import module_as_it_was
from evaluation.submissions.inspection import inspect
from tests.plain_trl import losses, stream_of, train_plainly
from tests.ray_nodes import free_ports
from tests.tiny import tiny_rows, tiny_tokenizer
from tests.unit.competitors.making import beside, brief_in, rows_file, run, sft_recipe, steps, weights

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("adapter", "form"),
    [
        (None, "full"),
        ({"method": "lora", "rank": 2}, "adapter"),
        ({"method": "dora", "rank": 2}, "adapter"),
        ({"method": "rslora", "rank": 2}, "adapter"),
    ],
)
def test_each_adapter_method_leaves_a_whole_submission(brief: Brief, adapter: Any, form: str):
    events = run(brief, adapter=adapter)
    assert model_form(brief.output_dir) == form
    assert not list(brief.output_dir.glob("checkpoint-*"))
    steps = [e for e in events if e.event == "step"]
    assert steps[-1].step == 10
    assert events[-1].event == "ended"
    assert (brief.continuation_dir / "continuation.json").is_file()


def test_training_lowers_the_loss_and_repeats_with_its_seed(brief: Brief, tmp_path: Path):
    brief = brief.model_copy(update={"budget": Allowance(steps=40)})
    events = run(brief)
    found = [e.loss for e in events if e.event == "step"]
    assert found[-1] < 0.8 * found[0]
    again = brief.model_copy(update={"output_dir": tmp_path / "again" / "submission"})
    again.output_dir.mkdir(parents=True)
    run(again)
    for name, tensor in weights(brief.output_dir).items():
        assert torch.equal(tensor, weights(again.output_dir)[name])
    other = brief.model_copy(update={"output_dir": tmp_path / "other" / "submission", "random_seed": 8})
    other.output_dir.mkdir(parents=True)
    run(other)
    name = "model.embed_tokens.weight"
    assert not torch.equal(weights(brief.output_dir)[name], weights(other.output_dir)[name])


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adafactor", "sgd"])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", "inverse_sqrt", "warmup_stable_decay"])
def test_optimizers_and_schedules_by_their_names(brief: Brief, optimizer: str, schedule: str):
    extra = {"optimizer_args": {"scale_parameter": False, "relative_step": False}} if optimizer == "adafactor" else {}
    events = run(
        brief.model_copy(update={"budget": Allowance(steps=4)}),
        optimizer=optimizer, schedule=schedule, warmup=0.1, **extra,
    )  # fmt: skip
    rates = [e.learning_rate for e in events if e.event == "step"]
    assert max(rates) <= 0.01
    if schedule in ("linear", "cosine"):
        assert rates[-1] == pytest.approx(0.0, abs=1e-9)


def test_a_schedule_over_the_lineage_ends_the_first_of_two_rounds_half_way(brief: Brief):
    events = run(brief, schedule_spans="lineage")
    assert [e for e in events if e.event == "step"][-1].learning_rate == pytest.approx(0.005)


def test_gradient_accumulation_reports_the_loss_of_the_whole_batch(brief: Brief, tmp_path: Path):
    one = run(brief.model_copy(update={"budget": Allowance(steps=1)}), batch_size=8)
    again = brief.model_copy(update={"output_dir": tmp_path / "b" / "submission", "budget": Allowance(steps=1)})
    again.output_dir.mkdir(parents=True)
    two = run(again, batch_size=2, gradient_accumulation=4)
    loss = [next(e.loss for e in events if e.event == "step") for events in (one, two)]
    assert loss[0] == pytest.approx(loss[1], rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"liger": True}, "liger: its kernels need a GPU"),
        ({"optimizer": "adamw_bnb_8bit"}, "optimizer adamw_bnb_8bit: bitsandbytes needs a GPU"),
        ({"optimizer": "paged_adamw_32bit"}, "optimizer paged_adamw_32bit: bitsandbytes needs a GPU"),
    ],
)
def test_what_needs_a_gpu_forfeits_with_the_reason(brief: Brief, settings: dict[str, Any], reason: str):
    submission = compete(brief, sft_recipe(**settings))
    assert (submission.status, submission.reason) == ("forfeit", reason)


def test_a_crash_forfeits_with_what_was_raised_and_its_traceback_in_the_log(brief: Brief):
    submission = compete(brief, sft_recipe(attention="nowhere"))
    assert submission.status == "forfeit"
    assert submission.reason.startswith("raised ")
    assert "nowhere" in submission.reason
    assert "Traceback" in brief.log_file.read_text()


TWENTY = {"schedule": "constant", "checkpoints": 0, "learning_rate": 0.003}
SAME_AS_TRL: dict[str, dict[str, Any]] = {
    "full": {"batch_size": 8},
    "accumulated": {"batch_size": 2, "gradient_accumulation": 3, "weight_decay": 0.1},
    "one row": {"batch_size": 1},
    "packed": {"packing": True, "batch_size": 3},
    "lora": {"adapter": {"method": "lora", "rank": 2}, "batch_size": 8},
    "head": {"adapter": {"method": "lora", "rank": 2, "modules_to_save": ["lm_head"]}, "batch_size": 8},
    "frozen": {"freeze": ["embed_tokens", "layers.0"], "batch_size": 8},
    "checkpointed": {"gradient_checkpointing": True, "batch_size": 8},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1, "batch_size": 8},
}


def step_losses(brief: Brief, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[float]:
    """The loss of every step."""
    monkeypatch.setattr("competitors.sft.callback.REPORT_SECONDS", 0.0)
    return [event.loss or 0.0 for event in steps(run(brief, **TWENTY | settings))]


@pytest.fixture
def uneven(brief: Brief, tmp_path: Path) -> Brief:
    """A budget of 20 steps over rows of many lengths."""
    rows = tiny_rows(60)
    prompts = [(row["instruction"] + " ") * (1 + i % 5) + "\n" for i, row in enumerate(rows)]
    completions = [" ".join([row["response"]] * (1 + i % 3)) for i, row in enumerate(rows)]
    pq.write_table(pa.table({"prompt": prompts, "completion": completions}), tmp_path / "uneven")
    return brief.model_copy(update={"train_data": tmp_path / "uneven", "budget": Allowance(steps=20)})


@pytest.mark.parametrize("name", SAME_AS_TRL)
def test_its_losses_are_those_of_trl_on_the_same_rows(
    uneven: Brief, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    settings = SAME_AS_TRL[name]
    ours = step_losses(uneven, monkeypatch, **settings)
    theirs = losses(train_plainly(uneven, sft_recipe(**TWENTY | settings), str(tmp_path)))
    assert len(ours) == len(theirs) == 20
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-5
    assert ours[-1] < ours[0]


def test_packed_rows_have_the_loss_of_the_same_rows_unpacked(uneven: Brief, tmp_path: Path, monkeypatch: Any):
    """Attention does not reach from one packed row to the next."""
    packed_brief = uneven.model_copy(update={"budget": Allowance(steps=1)})
    packed = stream_of(packed_brief, sft_recipe(packing=True, batch_size=4)).sequences
    rows = [tuple(row) for row in stream_of(uneven, sft_recipe(batch_size=3)).sequences["input_ids"]]
    inside: list[tuple[int, ...]] = []
    for ids, lengths in zip(packed["input_ids"], packed["seq_lengths"], strict=True):
        ends = np.cumsum(lengths)
        inside += [tuple(ids[end - length : end]) for end, length in zip(ends, lengths, strict=True)]
    assert len(inside) > 4
    assert set(inside) <= set(rows)
    model = AutoModelForCausalLM.from_pretrained(uneven.seed_model)
    tokenizer = AutoTokenizer.from_pretrained(uneven.seed_model)
    nats, count = 0.0, 0
    table = pq.read_table(uneven.train_data).to_pylist()
    for row in encode([r["prompt"] for r in table], [r["completion"] for r in table], tokenizer, uneven.max_tokens):
        for _ in range(inside.count(tuple(row.ids))):
            labels = torch.tensor([[-100] * row.start + list(row.ids[row.start :])])
            predicted = len(row.ids) - row.start
            nats += float(model(torch.tensor([row.ids]), labels=labels).loss.detach()) * predicted
            count += predicted
    ours = step_losses(packed_brief, monkeypatch, packing=True, batch_size=4)
    assert ours[0] == pytest.approx(nats / count, abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"adapter": {"method": "lora", "rank": 2}}])
def test_how_rows_are_put_into_passes_changes_nothing(
    uneven: Brief, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    many = step_losses(uneven, monkeypatch, batch_size=12, **settings)
    monkeypatch.setattr("competitors.sft.passes.by_length", lambda lengths, workers, **_: in_order(12, workers, 12))
    one = step_losses(beside(uneven, tmp_path / "one"), monkeypatch, batch_size=12, **settings)
    assert max(abs(a - b) for a, b in zip(many, one, strict=True)) < 1e-5


def test_a_step_that_float16_skips_takes_the_schedule_along(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    """A gradient scaler skips its first steps. Their budget is spent, and the schedule ends at zero with it."""
    skips = iter([True] * 3)
    brief = brief.model_copy(update={"budget": Allowance(steps=30)})
    monkeypatch.setattr(callback, "REPORT_SECONDS", 0)
    asked = {"skipped": False}

    def on_step_begin(self: BudgetCallback, *args: Any, **more: Any) -> None:
        asked["skipped"] = next(skips, False)

    monkeypatch.setattr(BudgetCallback, "on_step_begin", on_step_begin)
    monkeypatch.setattr(Accelerator, "optimizer_step_was_skipped", property(lambda accelerator: asked["skipped"]))
    rates = [event.learning_rate or 0.0 for event in steps(run(brief, schedule="linear"))]
    assert rates[-1] <= 0.01 / 30
    assert rates == sorted(rates, reverse=True)


def test_what_liger_puts_into_a_models_module_is_taken_out_again(seed_model: Path):
    model = AutoModelForCausalLM.from_pretrained(seed_model)
    before = modeling_llama.LlamaMLP
    with module_as_it_was(model):
        modeling_llama.LlamaMLP = torch.nn.Identity
    assert modeling_llama.LlamaMLP is before


def test_a_mixture_of_experts_is_trained_and_passes(tmp_path: Path):
    """TRL asks such a model for its routers' loss, and transformers writes that into the config."""
    tokenizer, seed = tiny_tokenizer(), tmp_path / "seed"
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = MixtralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, num_local_experts=2, num_experts_per_tok=1, **ids,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(seed)
    tokenizer.save_pretrained(seed)
    entered = brief_in(tmp_path, seed, rows_file(tmp_path / "rows.parquet"))
    assert compete(entered, sft_recipe()).status == "delivered"
    assert inspect(entered.output_dir, "full", seed).distance


FROZEN = """
import sys, torch
from pathlib import Path
import torch.distributed as dist
from competitors.contract import Brief
from competitors.events import reporter
from competitors.sft.training import train
from tests.unit.competitors.making import sft_recipe

dist.init_process_group("gloo")
brief = Brief.read(Path(sys.argv[1]))
train(brief, sft_recipe(deepspeed="zero2", dtype="bfloat16", freeze=["embed_tokens"]), reporter(brief.progress_file))
"""


@pytest.mark.slow
def test_what_is_frozen_stays_the_seeds_under_deepspeed_in_bfloat16(brief: Brief, seed_model: Path):
    brief.write(brief.output_dir.parent / "brief.json")
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    environment = os.environ | alone | {"MASTER_PORT": free_ports(1)[0], "DS_ACCELERATOR": "cpu"}
    arguments = [sys.executable, "-c", FROZEN, str(brief.output_dir.parent / "brief.json")]
    subprocess.run(arguments, cwd=ROOT, env=environment, check=True, capture_output=True)
    handed_in, seeds = weights(brief.output_dir), weights(seed_model)
    assert torch.equal(handed_in["model.embed_tokens.weight"], seeds["model.embed_tokens.weight"])
    name = "model.layers.1.mlp.up_proj.weight"
    assert not torch.equal(handed_in[name], seeds[name])
    inspect(brief.output_dir, "full", seed_model)  # the head is the embedding yet
