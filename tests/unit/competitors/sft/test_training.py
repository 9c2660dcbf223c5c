"""A whole training without Ray: its submission, its budget, and that it repeats."""

from pathlib import Path
from typing import Any

import pytest
import torch

from competitors.contract import Allowance, Brief
from competitors.entry import compete
from competitors.output import model_form
from tests.unit.competitors.making import run, sft_recipe, weights


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
    losses = [e.loss for e in events if e.event == "step"]
    assert losses[-1] < 0.8 * losses[0]
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
