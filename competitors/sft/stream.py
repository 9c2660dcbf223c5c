"""Which training rows an entry sees, in which order, in which optimizer step, and how many tokens that is.

Everything is settled before the first step, from the brief's seed: the token budget is then met to the last
whole step, the learning-rate schedule knows where it ends, and a continuation can say which rows are spent.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.encoding import Encoded, encode
from cluster.errors import Forfeit
from competitors.contract import Allowance

MAX_EPOCHS_BY_TIME = 64
"""With only minutes as a budget nothing says how many rows will be needed: prepare this many epochs, or
`MAX_ROWS_BY_TIME` rows."""
MAX_ROWS_BY_TIME = 4_000_000
COUNTED_ROWS = 8192
CHUNK = 1024
WINDOW_STEPS = 16
"""Rows of about the same length are looked for among those of so many steps."""
IGNORED = -100
NEVER = 2**40
"""A row that was seen so often is never the least seen."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """The sequences of a round in training order, and what each optimizer step takes."""

    sequences: Any
    """datasets.Dataset with input_ids, labels and, when packed, seq_lengths; `batch` of them make a step."""
    tokens_after: Counts
    """(steps + 1,): training tokens, prompts included and padding not, spent after each step; starts with 0."""
    rows_after: Counts
    """(steps + 1,): rows of `order` spent after each step (unpacked), else proportional."""
    order: Counts
    """Row numbers of the training data in the order in which they are taken."""
    rows: int
    """How many rows the training data has."""

    @property
    def steps(self) -> int:
        """How many whole steps the budget holds."""
        return len(self.tokens_after) - 1


def row_passes(counts: Counts, seed: int) -> Iterator[tuple[Counts, npt.NDArray[np.bool_]]]:
    """Row numbers without end: all of them in an order that follows from `seed` and the pass, and which are taken.

    Those are the least seen. `counts` (rows,) says how often each row was trained on before, so that going on from a
    continuation takes the rows it has not seen: with the same seed in the order in which an uninterrupted training
    would have, with another in an order of one's own. It is counted up here; the caller may set a row to NEVER.
    """
    while (least := counts.min()) < NEVER:
        order = np.random.default_rng([seed, least]).permutation(len(counts))
        is_taken = counts[order] == least
        counts[order[is_taken]] += 1
        yield order, is_taken


def count_tokens(train_data: Path, tokenizer_folder: Path, max_tokens: int) -> tuple[int, int, int]:
    """How many rows have a completion within `max_tokens`, how many tokens all those hold, prompts included, and how
    many bytes of completions, which carry the loss.

    Of more than `COUNTED_ROWS` rows so many are looked at, evenly spread, and the counts are scaled up.
    """
    import pyarrow.parquet as pq
    from transformers import AutoTokenizer

    table = pq.read_table(train_data, columns=["prompt", "completion"])
    looked_at = np.unique(np.linspace(0, table.num_rows - 1, min(table.num_rows, COUNTED_ROWS)).astype(np.int64))
    part = table.take(looked_at)
    texts = (part["prompt"].to_pylist(), part["completion"].to_pylist())
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    kept = [row for row in encode(*texts, tokenizer, max_tokens) if row.completion_tokens]
    completions = tokenizer.batch_decode([row.ids[row.start :] for row in kept], skip_special_tokens=True)
    counts = len(kept), sum(len(row.ids) for row in kept), sum(len(text.encode()) for text in completions)
    rows, tokens, in_bytes = (round(count * table.num_rows / len(looked_at)) for count in counts)
    return rows, tokens, in_bytes


def prepare(
    train_data: Path,
    tokenizer: Any,
    max_tokens: int,
    budget: Allowance,
    sequences_per_step: int,
    packing: bool,
    seed: int,
    seen: Counts | None,
    held_back: Counts | None = None,
    group_by_length: bool = False,
) -> Stream:
    """Tokenise as many rows as the budget holds, and cut them into steps that stay within it.

    With `group_by_length` the rows of a step are of about the same length: see `alike`. The rows numbered in
    `held_back` are never taken, nor those whose completion max_tokens cuts away: they teach nothing and cost nothing.
    Raises Forfeit when the budget holds not even one step, or no row has a completion within `max_tokens`.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(train_data, columns=["prompt", "completion"])
    rows = table.num_rows
    limit = _rows_to_prepare(rows, budget, sequences_per_step, packing)
    counts = np.zeros(rows, np.int64) if seen is None else seen.copy()
    if held_back is not None:
        counts[held_back] = NEVER
    encoded: dict[int, Encoded] = {}
    taken: list[int] = []
    tokens = 0
    window = WINDOW_STEPS * sequences_per_step if group_by_length else 1
    waiting: list[int] = []
    for chunk, place in _chunks(row_passes(counts, seed), max(CHUNK // window, 1) * window):
        new = [i for i in chunk if i not in encoded]
        if new:
            part = table.take(new)
            texts = (part["prompt"].to_pylist(), part["completion"].to_pylist())
            encoded |= dict(zip(new, encode(*texts, tokenizer, max_tokens), strict=True))
        useful = [i for i in chunk if encoded[i].completion_tokens]
        counts[[i for i in chunk if not encoded[i].completion_tokens]] = NEVER
        if group_by_length:
            lengths = {i: len(encoded[i].ids) for i in (*waiting, *useful)}
            useful, waiting = alike(waiting, useful, place, lengths, sequences_per_step)
        useful = useful[: limit - len(taken)]
        taken += useful
        tokens += sum(len(encoded[i].ids) for i in useful)
        if len(taken) >= limit or (budget.tokens is not None and tokens > budget.tokens + CHUNK):
            break
    if not taken:
        raise Forfeit(f"no training row has a completion within max_tokens ({max_tokens})")
    return _cut_into_steps(rows, taken, encoded, max_tokens, budget, sequences_per_step, packing)


def alike(
    waiting: Sequence[int], rows: Sequence[int], place: Counts, lengths: Mapping[int, int], step: int
) -> tuple[list[int], list[int]]:
    """`rows`, put so that each `step` of them are of about the same length, and which of them wait for the next ones.

    As transformers' `group_by_length`: rows that are neighbours by length within a window of `WINDOW_STEPS` steps
    are one step, and the steps come in an order at random. Windows are cut by `place`, where each row stands in the
    pass, and a window's last rows that make no whole step are taken with the next one's: so it is the same from
    wherever in the pass it goes on, if that is after a whole step.
    """
    put, wait = list[int](), list(waiting)
    for _, of_it in groupby(rows, lambda i: int(place[i]) // (WINDOW_STEPS * step)):
        there = sorted([*wait, *of_it], key=lambda i: int(place[i]))
        whole = len(there) - len(there) % step
        wait, by_length = there[whole:], sorted(there[:whole], key=lambda i: (lengths[i], i))
        steps = [by_length[start : start + step] for start in range(0, whole, step)]
        for one in sorted(steps, key=lambda one: min(place[i] for i in one)):
            put += one
    return put, wait


def _chunks(passes: Iterable[tuple[Counts, npt.NDArray[np.bool_]]], size: int) -> Iterator[tuple[list[int], Counts]]:
    """The rows that are taken of each `size` of a pass, and where each row of the data stands in it."""
    for order, is_taken in passes:
        place = np.argsort(order)
        for start in range(0, len(order), size):
            part = slice(start, start + size)
            yield [int(i) for i in order[part][is_taken[part]]], place


def _rows_to_prepare(rows: int, budget: Allowance, sequences_per_step: int, packing: bool) -> int:
    if budget.steps is not None and not packing:
        return budget.steps * sequences_per_step
    if budget.tokens is not None:
        return budget.tokens  # a row has at least one token; the loop ends when the tokens do
    return max(rows, min(rows * MAX_EPOCHS_BY_TIME, MAX_ROWS_BY_TIME))


def _cut_into_steps(
    rows: int,
    taken: list[int],
    encoded: dict[int, Encoded],
    max_tokens: int,
    budget: Allowance,
    sequences_per_step: int,
    packing: bool,
) -> Stream:
    from datasets import Dataset

    sequences = Dataset.from_dict(
        {
            "input_ids": [encoded[i].ids for i in taken],
            "labels": [[IGNORED] * (row := encoded[i]).start + row.ids[row.start :] for i in taken],
        }
    )
    if packing:
        from trl import pack_dataset

        sequences = pack_dataset(sequences, max_tokens, "bfd").with_format(None)
    lengths = np.array([len(ids) for ids in sequences["input_ids"]])
    steps = len(lengths) // sequences_per_step
    if budget.steps is not None:
        steps = min(steps, budget.steps)
    used = lengths[: steps * sequences_per_step].reshape(steps, sequences_per_step).sum(axis=1)
    tokens_after = np.concatenate([[0], np.cumsum(used)]).astype(np.int64)
    if budget.tokens is not None:
        tokens_after = tokens_after[tokens_after <= budget.tokens]
    steps = len(tokens_after) - 1
    if steps < 1:
        raise Forfeit(
            f"the budget does not hold one step of {sequences_per_step} sequences"
            f" ({int(lengths[:sequences_per_step].sum())} tokens)"
        )
    share = np.arange(steps + 1) * sequences_per_step / len(lengths)
    rows_after = np.round(share * len(taken)).astype(np.int64)
    kept = sequences.select(range(steps * sequences_per_step))
    return Stream(kept, tokens_after, rows_after, np.array(taken, np.int64), rows)
