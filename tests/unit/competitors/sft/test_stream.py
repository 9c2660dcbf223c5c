"""Which rows an entry sees: within its budget, in an order of its own, unseen ones first."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import Forfeit
from competitors.contract import Allowance
from competitors.sft import stream
from competitors.sft.stream import NEVER, Counts, Stream, count_tokens, prepare, row_passes
from tests.tiny import tiny_rows, tiny_tokenizer


@pytest.fixture
def train_data(tmp_path: Path) -> Path:
    rows = tiny_rows(50)
    table = pa.table({"prompt": [r["instruction"] for r in rows], "completion": [r["response"] for r in rows]})
    pq.write_table(table, tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


def taken_rows(counts: Counts, seed: int) -> Iterator[Counts]:
    for order, is_taken in row_passes(counts, seed):
        yield order[is_taken]


def test_unseen_rows_come_first():
    seen = np.array([1, 0, 2, 0, 1])
    passes = taken_rows(seen, seed=3)
    assert [sorted(next(passes)) for _ in range(4)] == [[1, 3], [0, 1, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_every_seed_has_its_own_order_and_each_epoch_takes_every_row_once():
    def two_passes(seed: int) -> list[int]:
        passes = taken_rows(np.zeros(20, np.int64), seed)
        return [*map(int, next(passes)), *map(int, next(passes))]

    one = two_passes(1)
    assert one != two_passes(2)
    assert one == two_passes(1)
    assert sorted(one[:20]) == sorted(one[20:]) == list(range(20))


def test_going_on_with_the_same_seed_takes_the_rows_that_an_uninterrupted_training_would():
    passes = taken_rows(np.zeros(20, np.int64), 1)
    whole = [*next(passes), *next(passes)]
    for at in (0, 7, 20, 31):
        seen = np.bincount(whole[:at], minlength=20)
        rest = taken_rows(seen, 1)
        went_on = [*next(rest), *next(rest)]
        assert went_on[: 40 - at] == whole[at:]


def test_rows_that_are_never_to_be_taken_are_not_and_none_at_all_is_an_end():
    counts = np.array([NEVER, 0, 0])
    passes = taken_rows(counts, 1)
    assert sorted(next(passes)) == [1, 2]
    counts[1] = NEVER
    assert list(next(passes)) == [2]
    counts[2] = NEVER
    assert list(passes) == []


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


@pytest.fixture
def mostly_too_long(tmp_path: Path) -> Path:
    """1,200 rows of 13 tokens, of which every tenth keeps its completion within 12."""
    long, short = "what is the cat dog sun moon is was red blue", "what is the cat"
    prompts = [short if number % 10 == 0 else long for number in range(1200)]
    pq.write_table(pa.table({"prompt": prompts, "completion": ["red ."] * 1200}), tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


def test_rows_that_are_left_out_cost_nothing(mostly_too_long: Path):
    """Neither their tokens nor their places in the steps: the whole budget is trained on what is left."""
    tokens = prepare(mostly_too_long, tiny_tokenizer(), 12, Allowance(tokens=3000), 4, False, 1, None)
    assert 3000 - 4 * 8 < tokens.tokens_after[-1] <= 3000
    steps = prepare(mostly_too_long, tiny_tokenizer(), 12, Allowance(steps=100), 4, False, 1, None)
    assert steps.steps == 100
    taken = np.bincount(steps.order, minlength=1200)
    assert set(np.flatnonzero(taken)) == set(range(0, 1200, 10))
    assert taken[::10].max() - taken[::10].min() <= 1


def test_rows_that_are_held_back_are_never_taken(train_data: Path):
    held_back = np.array([3, 4, 5])
    stream = prepare(train_data, tiny_tokenizer(), 64, Allowance(steps=60), 4, False, 1, None, held_back)
    assert not set(stream.order) & {3, 4, 5}


@pytest.mark.parametrize("looked_at", [1000, 20])
def test_tokens_are_counted_and_the_bytes_of_completions(
    train_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_at: int
):
    monkeypatch.setattr(stream, "COUNTED_ROWS", looked_at)
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    rows, tokens, in_bytes = count_tokens(train_data, tmp_path / "tokenizer", 64)
    whole = prepare(train_data, tiny_tokenizer(), 64, Allowance(steps=rows), 1, False, 7, None)
    labels = [label for row in whole.sequences["labels"] for label in row]
    completions = pq.read_table(train_data)["completion"].to_pylist()
    of_all = tokens / len(labels), in_bytes / sum(len(text.encode()) for text in completions)
    assert of_all == pytest.approx((1, 1), abs=1e-9 if looked_at == 1000 else 0.1)


@pytest.fixture
def of_all_lengths(tmp_path: Path) -> Path:
    """150 rows of 5 to 24 words, of which a few keep no completion within 24 tokens."""
    words = ["the", "cat", "dog", "sun", "moon", "is", "was", "red", "blue", "what"]
    lengths = [5 + (7 * number) % 20 for number in range(150)]
    prompts = [" ".join(words[(number + k) % 10] for k in range(length)) for number, length in enumerate(lengths)]
    pq.write_table(pa.table({"prompt": prompts, "completion": ["red ."] * 150}), tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


def by_step(stream: Stream, step: int) -> list[list[int]]:
    return stream.order[: stream.steps * step].reshape(-1, step).tolist()


@pytest.mark.parametrize("step", [4, 7, 10, 13])  # of the last two a window holds all rows
def test_rows_of_a_step_are_of_about_the_same_length_and_each_pass_has_all(of_all_lengths: Path, step: int):
    def made(group: bool, steps: int = 60) -> Stream:
        budget = Allowance(steps=steps)
        return prepare(of_all_lengths, tiny_tokenizer(), 24, budget, step, False, 1, None, group_by_length=group)

    def spread(stream: Stream) -> float:
        lengths = np.array([len(ids) for ids in stream.sequences["input_ids"]]).reshape(-1, step)
        return float((lengths.max(axis=1) - lengths.min(axis=1)).mean())

    apart, alike = made(False), made(True)
    assert spread(alike) < spread(apart) / 4
    often = np.bincount(alike.order[: 60 * step], minlength=150)
    useful = often[np.unique(apart.order)]
    assert useful.max() - useful.min() <= 2  # fewer than a step's rows wait over the end of a pass
    assert often.sum() == useful.sum() == 60 * step
    # Steps are in no order of length.
    means = np.array([len(ids) for ids in alike.sequences["input_ids"]]).reshape(-1, step).mean(axis=1)
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.4


@pytest.mark.parametrize("step", [4, 7, 13])
def test_steps_of_like_rows_go_on_as_an_uninterrupted_training_would(of_all_lengths: Path, step: int):
    """After any step, over the ends of windows and passes."""

    def steps_from(seen: Counts | None, steps: int) -> list[list[int]]:
        args = (of_all_lengths, tiny_tokenizer(), 24, Allowance(steps=steps), step, False, 1, seen)
        return by_step(prepare(*args, group_by_length=True), step)

    whole = steps_from(None, 80)
    for at in range(1, 80):
        seen = np.bincount(np.array(whole[:at]).ravel(), minlength=150)
        assert [sorted(one) for one in steps_from(seen, 80 - at)] == [sorted(one) for one in whole[at:]], at
