"""Which rows an entry sees: within its budget, in an order of its own, unseen ones first."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import Forfeit
from competitors.contract import Allowance
from competitors.sft.stream import encode, prepare, row_order
from tests.tiny import tiny_rows, tiny_tokenizer


@pytest.fixture
def train_data(tmp_path: Path) -> Path:
    rows = tiny_rows(50)
    table = pa.table({"prompt": [r["instruction"] for r in rows], "completion": [r["response"] for r in rows]})
    pq.write_table(table, tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


def test_unseen_rows_come_first():
    seen = np.array([1, 0, 2, 0, 1])
    order = row_order(seen, seed=3, length=9)
    assert set(order[:2]) == {1, 3}
    assert set(order[2:6]) == {0, 1, 3, 4}
    assert sorted(order[6:9])[0] >= 0
    assert len(order) == 9


def test_every_seed_has_its_own_order_and_each_epoch_takes_every_row_once():
    seen = np.zeros(20, np.int64)
    one, other = row_order(seen, 1, 40), row_order(seen, 2, 40)
    assert list(one) != list(other)
    assert sorted(one[:20]) == sorted(one[20:]) == list(range(20))
    assert list(one) == list(row_order(seen, 1, 40))


def test_encoding_is_bos_prompt_completion_eos_cut_on_the_right():
    tokenizer = tiny_tokenizer()
    (ids, start), *_ = encode(["the cat"], ["is red"], tokenizer, 64)
    assert tokenizer.convert_ids_to_tokens(ids) == ["<s>", "the", "cat", "is", "red", "</s>"]
    assert start == 3
    assert encode(["the cat"], ["is red"], tokenizer, 4) == [(ids[:4], 3)]
    assert encode(["the cat"], ["is red"], tokenizer, 2) == [(ids[:2], 2)]


def test_the_token_budget_holds_to_the_last_whole_step(train_data: Path):
    stream = prepare(train_data, tiny_tokenizer(), 64, Allowance(tokens=300), 4, False, 1, None)
    assert stream.tokens_after[0] == 0
    assert 300 - 4 * 14 < stream.tokens_after[-1] <= 300
    lengths = [len(ids) for ids in stream.sequences["input_ids"]]
    assert sum(lengths) == stream.tokens_after[-1]
    assert len(lengths) == stream.steps * 4


def test_a_budget_of_steps_is_exact_over_epochs(train_data: Path):
    stream = prepare(train_data, tiny_tokenizer(), 64, Allowance(steps=30), 4, False, 1, None)
    assert stream.steps == 30
    assert stream.rows_after[-1] == 120
    assert np.bincount(stream.order[:120], minlength=50).max() - np.bincount(stream.order[:120]).min() <= 1


def test_labels_hide_the_prompt(train_data: Path):
    stream = prepare(train_data, tiny_tokenizer(), 64, Allowance(steps=1), 2, False, 1, None)
    row = stream.sequences[0]
    hidden = sum(label == -100 for label in row["labels"])
    assert hidden == 7  # <s> and the six words of the prompt
    assert row["labels"][hidden:] == row["input_ids"][hidden:]


def test_packing_fills_sequences_and_keeps_the_budget(train_data: Path):
    stream = prepare(train_data, tiny_tokenizer(), 64, Allowance(tokens=600), 2, True, 1, None)
    assert stream.tokens_after[-1] <= 600
    lengths = [len(ids) for ids in stream.sequences["input_ids"]]
    assert np.mean(lengths) > 48
    assert "seq_lengths" in stream.sequences.column_names


def test_a_budget_below_one_step_forfeits(train_data: Path):
    with pytest.raises(Forfeit, match="does not hold one step"):
        prepare(train_data, tiny_tokenizer(), 64, Allowance(tokens=20), 8, False, 1, None)


def test_rows_without_a_completion_in_reach_are_left_out(train_data: Path):
    with pytest.raises(Forfeit, match="no training row"):
        prepare(train_data, tiny_tokenizer(), 5, Allowance(steps=3), 2, False, 1, None)
