"""Scoring: the summed negative log-likelihood of each held-out completion.

How a row is scored, so that anyone can compute it again:
ids = [bos, if there is one] + tokens(prompt) + tokens(completion) + [eos, if there is one], prompt and
completion tokenised apart without special tokens, cut on the right at `max_tokens`; the row's loss is the
sum of -log p over the completion's ids (eos included) that remain.

Only the completion's hidden states go through the output head, a chunk at a time, so that logits over the
whole vocabulary exist in float32 for `HEAD_CHUNK` tokens at once and never for a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.scorecard import RowLosses
from evaluation.splits import Row

if TYPE_CHECKING:
    import torch

HEAD_CHUNK = 1024
"""Tokens whose logits exist at once: 1,024 x 128,256 x 4 bytes = 0.5 GB for a Llama 3 vocabulary."""


@dataclass(frozen=True)
class Encoded:
    """One row as token ids; `start` is the index of the completion's first id.

    `cut` says that max_tokens took a part of the completion; `bytes` is the UTF-8 length of what is left.
    """

    ids: list[int]
    start: int
    cut: bool
    bytes: int


def encode(rows: Sequence[Row], tokenizer: Any, max_tokens: int, chat: bool = False) -> list[Encoded]:
    """Token ids of each row; with `chat` the prompt goes through the tokenizer's own chat template."""
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if chat:
        turns = [[{"role": "user", "content": row.prompt.strip()}] for row in rows]
        texts = [tokenizer.apply_chat_template(t, add_generation_prompt=True, tokenize=False) for t in turns]
        bos = []  # the template writes its own
    else:
        texts = [row.prompt for row in rows]
    prompts = tokenizer(texts, add_special_tokens=False)["input_ids"]
    completions = tokenizer([row.completion for row in rows], add_special_tokens=False)["input_ids"]
    encoded = []
    for row, prompt, completion in zip(rows, prompts, completions, strict=True):
        ids = [*bos, *prompt, *completion, *eos]
        # Nothing predicts the first id, so a completion that starts there counts from its second.
        start = min(max(len(bos) + len(prompt), 1), max_tokens)
        cut = len(ids) > max_tokens
        left = tokenizer.decode(ids[start:max_tokens], skip_special_tokens=True) if cut else row.completion
        encoded.append(Encoded(ids[:max_tokens], start, cut, len(left.encode())))
    return encoded


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


def score(
    model: Any,
    encoded: Sequence[Encoded],
    batch_tokens: int,
    pad_id: int,
    progress: Callable[[float], None] = lambda fraction: None,
) -> RowLosses:
    """Per-row summed nats and token counts of `encoded` under a causal language model, in row order."""
    import torch

    nats = np.zeros(len(encoded))
    counts = np.array([max(len(e.ids) - e.start, 0) for e in encoded], dtype=np.float64)
    scorable = [i for i, count in enumerate(counts) if count]
    done = 0
    model.eval()
    head = completion_head(model, encoded[scorable[0]], pad_id) if scorable else None
    with torch.inference_mode():
        for batch in batches([len(encoded[i].ids) for i in scorable], batch_tokens):
            rows = [scorable[i] for i in batch]
            ids, mask, where, targets, owners = _pad([encoded[i] for i in rows], pad_id, model.device)
            assert head is not None
            for tokens, owner in _chunks(head, ids, mask, where, targets, owners):
                np.add.at(nats, np.asarray(rows)[owner], tokens)
            done += len(rows)
            progress(done / len(scorable))
    return RowLosses(nats, counts)


def _pad(encoded: Sequence[Encoded], pad_id: int, device: "torch.device") -> tuple["torch.Tensor", ...]:
    """Right-pad to ids and mask (batch, length) and point at every completion id.

    Also `where` (tokens, 2): row and position whose hidden state predicts it; `targets` (tokens,): the id;
    `owners` (tokens,): the row.
    """
    import torch

    length = max(len(e.ids) for e in encoded)
    ids = torch.full((len(encoded), length), pad_id)
    mask = torch.zeros((len(encoded), length), dtype=torch.long)
    where: list[tuple[int, int]] = []
    for row, e in enumerate(encoded):
        ids[row, : len(e.ids)] = torch.tensor(e.ids)
        mask[row, : len(e.ids)] = 1
        where.extend((row, position) for position in range(e.start - 1, len(e.ids) - 1))
    index = torch.tensor(where)
    targets = ids[index[:, 0], index[:, 1] + 1]
    return ids.to(device), mask.to(device), index.to(device), targets.to(device), index[:, 0]


Head = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor"], Iterator["torch.Tensor"]]
"""(ids, mask, where) -> float32 logits (chunk, vocabulary) of the positions `where`, chunk after chunk."""


def _chunks(
    head: Head,
    ids: "torch.Tensor",
    mask: "torch.Tensor",
    where: "torch.Tensor",
    targets: "torch.Tensor",
    owners: "torch.Tensor",
) -> Iterator[tuple[Any, Any]]:
    """Nats of each completion token, and the row it belongs to, chunk after chunk, as float64 arrays."""
    from torch.nn.functional import cross_entropy

    start = 0
    for logits in head(ids, mask, where):
        end = start + len(logits)
        losses = cross_entropy(logits, targets[start:end], reduction="none")
        yield losses.double().cpu().numpy(), owners[start:end].numpy()
        start = end


def completion_head(model: Any, probe: Encoded, pad_id: int) -> Head:
    """How to get the logits of chosen positions from `model`.

    The direct way runs the decoder and puts the chosen hidden states through the output embedding. Some
    architectures do more after it (soft-capping, scaling): `probe` is run both ways, and where they differ
    the model's own forward is used, which holds a batch's logits in the model's own dtype.
    """
    import torch

    decoder, output = model.base_model, model.get_output_embeddings()

    def direct(ids: "torch.Tensor", mask: "torch.Tensor", where: "torch.Tensor") -> Iterator["torch.Tensor"]:
        hidden = decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        for part in torch.split(where, HEAD_CHUNK):
            yield output(hidden[part[:, 0], part[:, 1]]).float()

    def whole(ids: "torch.Tensor", mask: "torch.Tensor", where: "torch.Tensor") -> Iterator["torch.Tensor"]:
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for part in torch.split(where, HEAD_CHUNK):
            yield logits[part[:, 0], part[:, 1]].float()

    if output is None or decoder is model:
        return whole
    with torch.inference_mode():
        ids, mask, where, _, _ = _pad([probe], pad_id, model.device)
        one, other = next(direct(ids, mask, where)), next(whole(ids, mask, where))
    tolerance = 1e-4 if output.weight.dtype == torch.float32 else 5e-2
    return direct if torch.allclose(one, other, rtol=tolerance, atol=tolerance) else whole
