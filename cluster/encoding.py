"""How a row becomes token ids, and rows become batches: one rule for training and for scoring.

ids = [bos, if the tokenizer has one] + tokens(prompt) + tokens(completion) + [eos, if it has one], prompt and
completion tokenised apart without special tokens, cut on the right at `max_tokens`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Encoded:
    """One row as token ids.

    `start` is the index of the completion's first id that anything predicts: of a row without bos and prompt that
    is the second. `cut` says that max_tokens took a part of the row.
    """

    ids: list[int]
    start: int
    cut: bool

    @property
    def completion_tokens(self) -> int:
        """How many of the ids count; 0 where the completion was cut away."""
        return max(len(self.ids) - self.start, 0)


def encode(
    prompts: Sequence[str],
    completions: Sequence[str],
    tokenizer: Any,
    max_tokens: int,
    bos: bool = True,
    stop: int | None = None,
) -> list[Encoded]:
    """Token ids of each row. Without `bos` none is put before the prompt: a chat template has written its own.

    `stop` ends a completion in the place of eos.
    """
    first = [tokenizer.bos_token_id] if bos and tokenizer.bos_token_id is not None else []
    last = [end for end in (tokenizer.eos_token_id if stop is None else stop,) if end is not None]
    left = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    right = tokenizer(list(completions), add_special_tokens=False)["input_ids"]
    rows = []
    for prompt, completion in zip(left, right, strict=True):
        ids = [*first, *prompt, *completion, *last]
        start = min(max(len(first) + len(prompt), 1), max_tokens)
        rows.append(Encoded(ids[:max_tokens], start, len(ids) > max_tokens))
    return rows


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of rows, longest first, in batches of at most `batch_tokens` padded tokens (or one row)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    for index in order:
        if batch and lengths[batch[0]] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
