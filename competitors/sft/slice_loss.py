"""The loss on a slice of the training rows: what a search ranks its trials by and a greedy soup its blends.

Competitors never see held-out rows, so whoever has to choose inside an entry chooses by this. The rule is that
of the tournament's scoring: the sum of -log p over the completion's ids, eos included, by their count.
"""

import hashlib
import heapq
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster.encoding import Encoded, batches, encode
from cluster.errors import Forfeit
from competitors.sft.stream import Counts

BATCH_TOKENS = 4096
"""Padded tokens of a forward pass, whose logits exist at once: 1 GB for a Llama 3 vocabulary in 16 bit."""
LARGEST_SHARE = 0.25
"""Of little data a slice takes at most this."""


def take_slice(train_data: Path, rows: int, seed: int) -> Counts:
    """Row numbers, ascending, of about `rows` rows of a parquet with prompt and completion; at most a quarter.

    The rows whose hash of seed and prompt is smallest: rows that share a prompt stand together, so that at most
    one prompt lies on both sides. The same content and seed give the same rows in whatever order they lie.
    Raises Forfeit when there are fewer than four rows to take a quarter of.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(train_data) as file:
        wanted = min(rows, int(file.metadata.num_rows * LARGEST_SHARE))
        if wanted < 1:
            raise Forfeit(f"{file.metadata.num_rows} training rows are too few to hold a slice of them back")
        taken = heapq.nsmallest(wanted, _hashed(file, seed))
    return np.sort(np.array([number for _, _, number in taken], np.int64))


def _hashed(file: Any, seed: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Hash of prompt, hash of completion and number of every row."""
    numbers = itertools.count()
    for batch in file.iter_batches(columns=["prompt", "completion"]):
        for prompt, completion in zip(batch["prompt"].to_pylist(), batch["completion"].to_pylist(), strict=True):
            yield _hash(seed, prompt), _hash(seed, completion), next(numbers)


def _hash(seed: int, text: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=8).digest()


def read_rows(train_data: Path, numbers: Counts) -> tuple[list[str], list[str]]:
    """Prompts and completions of these rows."""
    import pyarrow.parquet as pq

    table = pq.read_table(train_data, columns=["prompt", "completion"]).take(numbers)
    return table["prompt"].to_pylist(), table["completion"].to_pylist()


def mean_loss(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    completions: Sequence[str],
    max_tokens: int,
    batch_tokens: int = BATCH_TOKENS,
) -> float:
    """Mean negative log-likelihood per completion token, in nats, of a causal language model on these rows.

    The model stays where it is and in the mode (training or not) it was in; a caller who trains under autocast
    calls this under autocast. Raises Forfeit when max_tokens leaves no completion.
    """
    import torch

    scorable = [row for row in encode(prompts, completions, tokenizer, max_tokens) if row.completion_tokens]
    if not scorable:
        raise Forfeit(f"no row of the slice has a completion within max_tokens ({max_tokens})")
    training = model.training
    model.eval()
    nats, count = 0.0, 0
    try:
        with torch.no_grad():
            for batch in batches([len(row.ids) for row in scorable], batch_tokens):
                losses = _token_losses(model, [scorable[index] for index in batch])
                nats, count = nats + float(losses.double().sum()), count + len(losses)
    finally:
        model.train(training)
    return nats / count


def _token_losses(model: Any, batch: list[Encoded]) -> Any:
    """Nats of every completion token of a batch, (tokens,) in float32."""
    import torch

    length = max(len(row.ids) for row in batch)
    ids = torch.zeros((len(batch), length), dtype=torch.long)
    mask = torch.zeros_like(ids)
    counted = torch.zeros_like(ids, dtype=torch.bool)
    for number, row in enumerate(batch):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        mask[number, : len(row.ids)] = 1
        counted[number, row.start : len(row.ids)] = True
    ids, mask, counted = (tensor.to(model.device) for tensor in (ids, mask, counted))
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    chosen = logits[counted[:, 1:]].float()
    return torch.nn.functional.cross_entropy(chosen, ids[:, 1:][counted[:, 1:]], reduction="none")
