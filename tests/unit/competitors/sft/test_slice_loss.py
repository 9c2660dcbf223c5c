"""The loss inside an entry: which rows it is taken on, and that it is the tournament's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.encoding import Encoded, encode
from cluster.errors import Forfeit
from competitors.sft.slice_loss import mean_loss, read_rows, take_slice
from tests.tiny import tiny_model, tiny_rows

ROWS = [(r["instruction"] + " \n", r["response"]) for r in tiny_rows(60)]


def written(path: Path, rows: list[tuple[str, str]]) -> Path:
    pq.write_table(pa.table({"prompt": [p for p, _ in rows], "completion": [c for _, c in rows]}), path)
    return path


def texts(path: Path, rows: int, seed: int) -> set[tuple[str, str]]:
    return set(zip(*read_rows(path, take_slice(path, rows, seed)), strict=True))


def test_a_slice_follows_from_content_and_seed_not_from_order(tmp_path: Path):
    one, other = written(tmp_path / "one.parquet", ROWS), written(tmp_path / "other.parquet", ROWS[::-1])
    assert len(texts(one, 10, seed=1)) == 10
    assert texts(one, 10, seed=1) == texts(other, 10, seed=1)
    assert texts(one, 10, seed=1) != texts(one, 10, seed=2)
    assert len(take_slice(one, 40, seed=1)) == 15  # a quarter at most


def test_at_most_one_prompt_lies_on_both_sides(tmp_path: Path):
    path = written(tmp_path / "shared.parquet", [(p, f"{c} {i}") for p, c in ROWS for i in range(4)])
    inside = take_slice(path, 30, seed=1)
    outside = np.setdiff1d(np.arange(240), inside)
    assert len(set(read_rows(path, inside)[0]) & set(read_rows(path, outside)[0])) <= 1


def test_too_little_data_for_a_slice_forfeits(tmp_path: Path):
    with pytest.raises(Forfeit, match="3 training rows are too few"):
        take_slice(written(tmp_path / "three.parquet", ROWS[:3]), 10, seed=1)


def by_hand(model: Any, rows: list[Encoded]) -> float:
    """Row by row and token by token, as the design says."""
    nats, count = 0.0, 0
    for row in rows:
        with torch.no_grad():
            log_p = torch.log_softmax(model(torch.tensor([row.ids])).logits[0].double(), dim=-1)
        for place in range(row.start, len(row.ids)):
            nats, count = nats - float(log_p[place - 1, row.ids[place]]), count + 1
    return nats / count


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("max_tokens", [64, 11, 9])
def test_the_loss_is_that_of_the_tournaments_scoring(tmp_path: Path, bos: bool, max_tokens: int):
    folder = tiny_model(tmp_path / "m", bos=bos)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = [*ROWS[:20], ("", "the cat is red")]
    prompts, completions = [p for p, _ in rows], [c for _, c in rows]
    expected = by_hand(model.eval(), encode(prompts, completions, tokenizer, max_tokens))
    model.train()
    for batch_tokens in (1, 100, 4096):
        loss = mean_loss(model, tokenizer, prompts, completions, max_tokens, batch_tokens)
        assert loss == pytest.approx(expected, rel=1e-5)
    assert model.training
    with pytest.raises(Forfeit, match="no row of the slice has a completion"):
        mean_loss(model, tokenizer, prompts[:20], completions[:20], 4)
