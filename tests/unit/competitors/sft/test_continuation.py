"""Going on from a seed: its trunk, its optimizer, its place in the data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from competitors.contract import Allowance, Brief
from competitors.events import Event, read_events
from competitors.sft.continuation import Continuation
from tests.unit.competitors.making import beside, run, weights


def next_round(brief: Brief, tmp_path: Path, **changes: Any) -> Brief:
    out = tmp_path / "next" / "submission"
    out.mkdir(parents=True)
    update = {"output_dir": out, "seed_model": brief.output_dir, "seed_continuation": brief.continuation_dir}
    return brief.model_copy(update=update | {"round": 2, "progress": (0.5, 1.0)} | changes)


def with_tokenizer(brief: Brief) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(brief.seed_model).save_pretrained(brief.output_dir)


LINE = {"schedule": "linear", "schedule_spans": "lineage", "weight_decay": 0.1}


def in_two_rounds(brief: Brief, tmp_path: Path, same_seed: bool, **recipe: Any) -> tuple[Brief, list[Event]]:
    """700 tokens and then 500 of one line of 1,200, from the brief's seed."""
    run(brief.model_copy(update={"budget": Allowance(tokens=700), "progress": (0.0, 700 / 1200)}), **LINE, **recipe)
    spent = read_events(brief.progress_file)[-1].tokens
    assert spent is not None
    with_tokenizer(brief)
    second = next_round(brief, tmp_path, budget=Allowance(tokens=1200 - spent), progress=(spent / 1200, 1.0))
    if same_seed:
        second = second.model_copy(update={"seed_model": brief.seed_model})
    return second, run(second, **LINE, **recipe, **{"continue": True})


@pytest.mark.parametrize(
    ("same_seed", "recipe"),
    [
        (False, {}),
        (True, {}),
        (True, {"group_by_length": True}),
        (True, {"adapter": {"method": "lora", "rank": 2}}),
        (True, {"adapter": {"method": "dora", "rank": 2, "lora_plus_ratio": 4}}),
        (True, {"adapter": {"method": "pissa", "rank": 2}}),
    ],
)
def test_a_line_in_two_rounds_equals_an_uninterrupted_one(
    brief: Brief, tmp_path: Path, same_seed: bool, recipe: dict[str, Any]
):
    """Trunk, moments, schedule and place in the data carry over: nothing is lost at the seam, full or adapter."""
    second, events = in_two_rounds(brief, tmp_path, same_seed, **recipe)
    assert any("goes on with the seed's optimizer" in (e.text or "") for e in events)
    whole = beside(brief, tmp_path / "whole", budget=Allowance(tokens=1200), progress=(0.0, 1.0))
    at_once = run(whole, **LINE, **recipe)
    first_tokens = read_events(brief.progress_file)[-1].tokens
    assert (first_tokens or 0) + (events[-1].tokens or 0) == at_once[-1].tokens
    assert np.array_equal(*(np.load(b.continuation_dir / "seen.npy") for b in (second, whole)))
    for name, tensor in weights(whole.output_dir).items():
        assert torch.allclose(tensor, weights(second.output_dir)[name], atol=1e-6), name


def test_moments_are_those_of_the_batch_that_they_go_on_with(brief: Brief, tmp_path: Path):
    """At four times the batch a gradient's variance is a quarter, and a step is worth four."""
    run(brief)
    with_tokenizer(brief)
    second = next_round(brief, tmp_path, budget=Allowance(steps=1))
    run(second, batch_size=16, learning_rate=1e-12, betas=(1.0 - 1e-9, 1.0 - 1e-9), **{"continue": True})
    before, after = (load_file(b.continuation_dir / "optimizer.safetensors") for b in (brief, second))
    for name in before:
        expected = before[name] / 4 if name.endswith("exp_avg_sq") else before[name]
        assert torch.allclose(after[name], expected, rtol=1e-3, atol=1e-9), name
    record = Continuation.read(second.continuation_dir / "continuation.json")
    assert {scalars["step"] for scalars in record.scalars.values()} == {round(10 / 4) + 1}


def test_weights_alone_go_on_with_a_fresh_optimizer(brief: Brief, tmp_path: Path):
    run(brief)
    with_tokenizer(brief)
    second = next_round(brief, tmp_path, budget=Allowance(steps=1))
    events = run(second, learning_rate=1e-12, **{"continue": "weights"})
    assert not any("optimizer" in (e.text or "") for e in events)
    trunk, after = weights(brief.continuation_dir.parent / "submission"), weights(second.output_dir)
    assert all(torch.allclose(trunk[name], after[name], atol=1e-6) for name in trunk)
    record = Continuation.read(second.continuation_dir / "continuation.json")
    assert {scalars["step"] for scalars in record.scalars.values()} == {1}


def test_what_cannot_be_continued_is_said(brief: Brief, tmp_path: Path):
    run(brief)
    with_tokenizer(brief)
    events = run(next_round(brief, tmp_path), optimizer="sgd", **{"continue": True})
    notes = [e.text for e in events if e.event == "note"]
    assert notes == ["starts with a fresh optimizer: it was trained with adamw_torch, this recipe has sgd"]


def test_an_adapter_takes_over_the_place_in_the_data_only(brief: Brief, tmp_path: Path):
    run(brief)
    with_tokenizer(brief)
    second = next_round(brief, tmp_path)
    events = run(second, adapter={"method": "lora", "rank": 2}, **{"continue": True})
    assert any("its place in the data only" in (e.text or "") for e in events)
    assert np.load(second.continuation_dir / "seen.npy").sum() == 80
