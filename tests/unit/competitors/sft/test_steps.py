"""What a worker's forward passes take, step by step."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from competitors.contract import Allowance
from competitors.sft.passes import by_length
from competitors.sft.steps import Steps
from competitors.sft.stream import IGNORED, Stream, prepare
from tests.tiny import tiny_rows, tiny_tokenizer


def stream(folder: Path, rows_per_step: int, packing: bool = False) -> Stream:
    rows = tiny_rows(40)
    prompts = [(row["instruction"] + " ") * (1 + i % 3) for i, row in enumerate(rows)]
    prompts[0] = ""
    pq.write_table(pa.table({"prompt": prompts, "completion": [r["response"] for r in rows]}), folder / "rows")
    budget = Allowance(steps=4)
    return prepare(folder / "rows", tiny_tokenizer(bos=False), 48, budget, rows_per_step, packing, 7, None)


def steps(found: Stream, workers: int = 1, rank: int = 0, first: int = 0, packing: bool = False) -> Steps:
    def cut(lengths: Any) -> Any:
        return by_length(lengths, workers, 48 if packing else 128, 16)

    return Steps(found, first, rank, cut, DataCollatorForLanguageModeling(pad_token_id=0, padding_free=packing))


def rows_of(step: Any) -> list[tuple[int, ...]]:
    """The unpadded rows of a step's passes, sorted."""
    rows = []
    for batch in step.passes:
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
        rows += [tuple(ids[kept.bool()].tolist()) for ids, kept in zip(batch["input_ids"], mask, strict=True)]
    return sorted(rows)


def test_each_step_has_its_rows_of_the_stream(tmp_path: Path):
    found = stream(tmp_path, 8)
    made = list(steps(found))
    assert len(made) == len(steps(found)) == 4
    ids = found.sequences["input_ids"]
    for number, step in enumerate(made):
        assert rows_of(step) == sorted(tuple(row) for row in ids[8 * number : 8 * number + 8])
        assert len(step.passes) > 1


def test_workers_share_out_a_steps_rows(tmp_path: Path):
    found = stream(tmp_path, 8)
    shares = [list(steps(found, workers=2, rank=rank)) for rank in (0, 1)]
    ids = found.sequences["input_ids"]
    for number, (one, other) in enumerate(zip(*shares, strict=True)):
        assert sorted(rows_of(one) + rows_of(other)) == sorted(tuple(r) for r in ids[8 * number : 8 * number + 8])
        assert len(one.passes) == len(other.passes)
        assert one.predicted == other.predicted


@pytest.mark.parametrize("packing", [False, True])
def test_the_predicted_tokens_are_those_whose_loss_counts(tmp_path: Path, packing: bool):
    """A row's first token is predicted by nothing, also where rows without a prompt are packed."""
    for step in steps(stream(tmp_path, 4, packing), packing=packing):
        assert step.predicted == sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in step.passes)


def test_it_goes_on_from_any_step(tmp_path: Path):
    found = stream(tmp_path, 4)
    whole, rest = list(steps(found)), list(steps(found, first=3))
    assert len(rest) == 1
    assert rows_of(rest[0]) == rows_of(whole[3])


def test_only_what_is_padded_has_a_mask(tmp_path: Path):
    for step in steps(stream(tmp_path, 8)):
        for batch in step.passes:
            lengths = (batch["input_ids"] != 0).sum(dim=1)
            assert ("attention_mask" in batch) == (len(np.unique(lengths)) > 1)
