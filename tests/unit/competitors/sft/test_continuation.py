"""Going on from a seed: its trunk, its optimizer, its place in the data."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from competitors.contract import Allowance, Brief
from competitors.sft.stream import row_passes
from tests.unit.competitors.making import run, weights


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
    assert any("goes on with the seed's optimizer" in (e.text or "") for e in events)
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
        patch.setattr("competitors.sft.stream.row_passes", lambda counts, seed: iter([np.arange(len(counts))]))
        run(whole.model_copy(update={"train_data": path}), schedule="constant", weight_decay=0.1)
    for name, tensor in weights(whole.output_dir).items():
        assert torch.allclose(tensor, weights(second.output_dir)[name], atol=1e-6), name


def recorded_order(brief: Brief, seen: Any) -> Any:
    passes = row_passes(np.zeros(60, np.int64) if seen is None else seen.copy(), brief.random_seed)
    return np.concatenate([next(passes), next(passes)])[:40]


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
