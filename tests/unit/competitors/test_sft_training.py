"""Training without Ray: the submission's form, the continuation, the averages, and the budget."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from cluster.errors import Forfeit
from cluster.resources import Resources
from competitors.contract import Allowance, Brief, model_form, read_events, reporter
from competitors.entry import compete
from competitors.sft.continuation import Continuation
from competitors.sft.recipe import SftRecipe
from competitors.sft.training import train
from tests.tiny import tiny_model, tiny_rows


@pytest.fixture(scope="module")
def seed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("seed"))


@pytest.fixture(scope="module")
def train_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.parquet"
    rows = tiny_rows(60)
    prompts = [r["instruction"] + " \n" for r in rows]
    pq.write_table(pa.table({"prompt": prompts, "completion": [r["response"] for r in rows]}), path)
    return path


@pytest.fixture
def brief(tmp_path: Path, seed_model: Path, train_data: Path) -> Brief:
    out = tmp_path / "entry" / "submission"
    out.mkdir(parents=True)
    return Brief(
        tournament="t", lineage="l", round=1, competitor="a", seed_model=seed_model, seed_sha256="0",
        seed_continuation=None, train_data=train_data, max_tokens=64, budget=Allowance(steps=10), progress=(0.0, 0.5),
        output_dir=out, random_seed=7, resources=Resources(gpus=0),
    )  # fmt: skip


def recipe(**settings: Any) -> SftRecipe:
    return SftRecipe.model_validate(
        {"name": "a", "kind": "sft", "learning_rate": 0.01, "batch_size": 4, "warmup": 0} | settings
    )


def run(brief: Brief, **settings: Any) -> list[dict[str, Any]]:
    train(brief, recipe(**settings), reporter(brief.progress_file))
    return read_events(brief.progress_file)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


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
    steps = [e for e in events if e["event"] == "step"]
    assert steps[-1]["step"] == 10
    assert events[-1]["event"] == "ended"
    assert (brief.continuation_dir / "continuation.json").is_file()


def test_training_lowers_the_loss_and_repeats_with_its_seed(brief: Brief, tmp_path: Path):
    brief = brief.model_copy(update={"budget": Allowance(steps=40)})
    events = run(brief)
    losses = [e["loss"] for e in events if e["event"] == "step"]
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
    rates = [e["learning_rate"] for e in events if e["event"] == "step"]
    assert max(rates) <= 0.01
    if schedule in ("linear", "cosine"):
        assert rates[-1] == pytest.approx(0.0, abs=1e-9)


def test_a_schedule_over_the_lineage_ends_the_first_of_two_rounds_half_way(brief: Brief):
    events = run(brief, schedule_spans="lineage")
    assert [e for e in events if e["event"] == "step"][-1]["learning_rate"] == pytest.approx(0.005)


def test_tail_average_scores_another_model_than_it_continues(brief: Brief):
    run(brief, score_weights="tail_average", tail=0.5, schedule="constant")
    submitted, trunk = weights(brief.output_dir), load_file(brief.continuation_dir / "trunk.safetensors")
    name = "model.embed_tokens.weight"
    assert not torch.equal(submitted[name], trunk[name])


def test_the_tail_average_is_the_mean_of_the_tails_weights(brief: Brief, tmp_path: Path):
    """Ten steps with a tail of three: the mean of the trunk after 8, 9 and 10 steps."""
    run(brief, score_weights="tail_average", tail=0.3, schedule="constant")
    trunks = []
    for steps in (8, 9, 10):
        part = brief.model_copy(
            update={"budget": Allowance(steps=steps), "output_dir": tmp_path / f"part-{steps}" / "submission"}
        )
        part.output_dir.mkdir(parents=True)
        run(part, schedule="constant")
        trunks.append(weights(part.output_dir)["model.embed_tokens.weight"])
    mean = torch.stack(trunks).mean(0)
    assert torch.allclose(weights(brief.output_dir)["model.embed_tokens.weight"], mean, atol=1e-6)


def test_a_cool_down_continues_from_before_it(brief: Brief, tmp_path: Path):
    run(brief, score_weights="cool_down", tail=0.4, schedule="constant")
    part = brief.model_copy(update={"budget": Allowance(steps=7), "output_dir": tmp_path / "part" / "submission"})
    part.output_dir.mkdir(parents=True)
    run(part, schedule="constant")
    assert Continuation.read(brief.continuation_dir / "continuation.json").steps in (6, 7)
    trunk = load_file(brief.continuation_dir / "trunk.safetensors")["model.embed_tokens.weight"]
    submitted = weights(brief.output_dir)["model.embed_tokens.weight"]
    assert not torch.equal(trunk, submitted)


def next_round(brief: Brief, tmp_path: Path, **changes: Any) -> Brief:
    out = tmp_path / "next" / "submission"
    out.mkdir(parents=True)
    update = {"output_dir": out, "seed_model": brief.output_dir, "seed_continuation": brief.continuation_dir}
    return brief.model_copy(update=update | {"round": 2, "progress": (0.5, 1.0)} | changes)


def with_tokenizer(brief: Brief) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(brief.seed_model).save_pretrained(brief.output_dir)


def test_two_rounds_continued_equal_one_of_twice_the_length(brief: Brief, tmp_path: Path):
    """The trunk, the optimizer's moments and the place in the data all carry over: nothing is lost at the seam."""
    run(brief, schedule="constant", weight_decay=0.1)
    with_tokenizer(brief)
    second = next_round(brief, tmp_path)
    events = run(second, schedule="constant", weight_decay=0.1, **{"continue": True})
    assert any("goes on with the seed's optimizer" in e.get("text", "") for e in events)
    seen = np.load(second.continuation_dir / "seen.npy")
    assert seen.sum() == 80
    assert seen.max() - seen.min() <= 1

    # The same 20 steps at a stretch, on the same rows in the same order.
    order = pq.read_table(brief.train_data)
    first_rows = recorded_order(brief, None)
    second_rows = recorded_order(second, np.load(brief.continuation_dir / "seen.npy"))
    path = tmp_path / "ordered.parquet"
    pq.write_table(order.take([*first_rows[:40], *second_rows[:40]]), path)
    whole = brief.model_copy(update={"output_dir": tmp_path / "whole" / "submission", "budget": Allowance(steps=20)})
    whole.output_dir.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("competitors.sft.stream.row_order", lambda seen, seed, length: np.arange(length))
        run(whole.model_copy(update={"train_data": path}), schedule="constant", weight_decay=0.1)
    for name, tensor in weights(whole.output_dir).items():
        assert torch.allclose(tensor, weights(second.output_dir)[name], atol=1e-6), name


def recorded_order(brief: Brief, seen: Any) -> Any:
    from competitors.sft.stream import row_order

    return row_order(np.zeros(60, np.int64) if seen is None else seen, brief.random_seed, 40)


def test_what_cannot_be_continued_is_said(brief: Brief, tmp_path: Path):
    run(brief)
    with_tokenizer(brief)
    events = run(next_round(brief, tmp_path), optimizer="sgd", **{"continue": True})
    notes = [e["text"] for e in events if e["event"] == "note"]
    assert notes == ["starts with a fresh optimizer: it was trained with adamw_torch, this recipe has sgd"]


def test_an_adapter_takes_over_the_place_in_the_data_only(brief: Brief, tmp_path: Path):
    run(brief)
    with_tokenizer(brief)
    second = next_round(brief, tmp_path)
    events = run(second, adapter={"method": "lora", "rank": 2}, **{"continue": True})
    assert any("its place in the data only" in e.get("text", "") for e in events)
    assert np.load(second.continuation_dir / "seen.npy").sum() == 80


def test_a_bfloat16_seed_gives_a_bfloat16_submission(brief: Brief, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "bf16"
    AutoModelForCausalLM.from_pretrained(brief.seed_model, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(brief.seed_model).save_pretrained(folder)
    run(brief.model_copy(update={"seed_model": folder}))
    assert {t.dtype for t in weights(brief.output_dir).values()} == {torch.bfloat16}
    assert json.loads((brief.output_dir / "config.json").read_text())["dtype"] == "bfloat16"


def test_gradient_accumulation_reports_the_loss_of_the_whole_batch(brief: Brief, tmp_path: Path):
    one = run(brief.model_copy(update={"budget": Allowance(steps=1)}), batch_size=8)
    again = brief.model_copy(update={"output_dir": tmp_path / "b" / "submission", "budget": Allowance(steps=1)})
    again.output_dir.mkdir(parents=True)
    two = run(again, batch_size=2, gradient_accumulation=4)
    loss = [next(e["loss"] for e in events if e["event"] == "step") for events in (one, two)]
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
    submission = compete(brief, recipe(**settings))
    assert (submission.status, submission.reason) == ("forfeit", reason)


def test_a_crash_forfeits_with_what_was_raised_and_its_traceback_in_the_log(brief: Brief):
    submission = compete(brief, recipe(attention="nowhere"))
    assert submission.status == "forfeit"
    assert submission.reason.startswith("raised ")
    assert "nowhere" in submission.reason
    assert "Traceback" in brief.log_file.read_text()


def test_checkpoints_are_saved_on_the_way(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    """A competitor ended from outside after 6 of 10 steps leaves the checkpoint of step 6 or before."""
    from competitors.sft.callback import BudgetCallback

    def stop(self: Any, step: int) -> None:
        if step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(BudgetCallback, "_report_step", stop)
    with pytest.raises(KeyboardInterrupt):
        run(brief)
    saved = sorted(int(p.name.split("-")[1]) for p in brief.output_dir.glob("checkpoint-*"))
    assert saved == [2, 4, 6]
    assert model_form(brief.output_dir / "checkpoint-6") == "full"


def test_a_race_gets_a_checkpoint_at_each_fraction_once_it_is_whole(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    from competitors.contract import settle_output

    whole: list[str | None] = []
    events: list[dict[str, Any]] = []

    def report(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "checkpoint":
            whole.append(model_form(brief.output_dir / event["folder"]))

    train(brief.model_copy(update={"race_at": (0.25, 0.5)}), recipe(checkpoints=0), report)
    races = [event for event in events if event["event"] == "checkpoint"]
    assert [(r["fraction"], r["step"], r["folder"]) for r in races] == [
        (0.25, 3, "checkpoint-3"),
        (0.5, 5, "checkpoint-5"),
    ]
    assert whole == ["full", "full"]
    assert settle_output(brief.output_dir) == "full"
    assert not list(brief.output_dir.glob("checkpoint-*"))


def test_a_stop_file_ends_an_entry_soon_and_without_a_submission(brief: Brief):
    long = brief.model_copy(update={"budget": Allowance(steps=2000)})
    reports = reporter(brief.progress_file)

    def report(event: dict[str, Any]) -> None:
        reports(event)
        if event["event"] == "step":
            brief.stop_file.write_text("is among the worst half at 25 % of its budget\n")

    with pytest.raises(Forfeit, match=r"^is among the worst half at 25 % of its budget$"):
        train(long, recipe(checkpoints=0), report)
    assert model_form(brief.output_dir) is None
    assert not brief.continuation_dir.exists()
    assert read_events(brief.progress_file)[-1]["step"] < 1000
