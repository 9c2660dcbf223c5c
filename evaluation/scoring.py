"""Scoring: what a model makes of each held-out completion, summed per row.

A row becomes token ids by the rule of `cluster.encoding`, the one that training uses too; the row's loss is the sum
of -log p over the completion's ids (eos included) that remain within `max_tokens`. What else is measured of each
token, the table of figures says.

Only the completion's hidden states go through the output head, a chunk at a time, so that logits over the
whole vocabulary exist in float32 for `HEAD_CHUNK` tokens at once and never for a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.encoding import Encoded, batches, encode
from evaluation.chat import as_chat, stop_id
from evaluation.data.splits import Row
from evaluation.figures import FIGURES
from evaluation.results import Array, RowResults

if TYPE_CHECKING:
    import torch

HEAD_CHUNK = 1024
"""Tokens whose logits exist at once: 1,024 x 128,256 x 4 bytes = 0.5 GB for a Llama 3 vocabulary."""


@dataclass(frozen=True)
class EncodedRow(Encoded):
    """One held-out row as token ids. `bytes` is the UTF-8 length of the completion text that counts."""

    bytes: int


def encode_rows(rows: Sequence[Row], tokenizer: Any, max_tokens: int, chat: bool = False) -> list[EncodedRow]:
    """Token ids of each row; with `chat` the prompt goes through the tokenizer's own chat template."""
    prompts, completions = [row.prompt for row in rows], [row.completion for row in rows]
    if chat:
        prompts = [as_chat(prompt, tokenizer) for prompt in prompts]
    encoded = encode(prompts, completions, tokenizer, max_tokens, bos=not chat, stop=stop_id(tokenizer, chat))
    return [
        EncodedRow(one.ids, one.start, one.cut, _bytes_left(one, completion, tokenizer))
        for one, completion in zip(encoded, completions, strict=True)
    ]


def _bytes_left(row: Encoded, completion: str, tokenizer: Any) -> int:
    if not row.completion_tokens:
        return 0
    left = tokenizer.decode(row.ids[row.start :], skip_special_tokens=True) if row.cut else completion
    return len(left.encode())


def pad_id(tokenizer: Any) -> int:
    """An id to pad with; the mask hides it."""
    return next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)


def score(
    model: Any,
    encoded: Sequence[EncodedRow],
    batch_tokens: int,
    padding: int,
    progress: Callable[[float], None] = lambda fraction: None,
) -> RowResults:
    """What a causal language model makes of each row, in row order: every column that a figure measures."""
    import torch

    measured = {figure.column: np.zeros(len(encoded)) for figure in FIGURES.values() if figure.measure}
    scorable = [i for i, row in enumerate(encoded) if row.completion_tokens]
    done = 0
    model.eval()
    head = completion_head(model, encoded[scorable[0]], padding) if scorable else None
    with torch.inference_mode():
        for batch in batches([len(encoded[i].ids) for i in scorable], batch_tokens):
            rows = [scorable[i] for i in batch]
            ids, mask, where, targets, owners = pad_rows([encoded[i] for i in rows], padding, model.device)
            assert head is not None
            for values, owner in _chunks(head, ids, mask, where, targets, owners):
                for column, sums in measured.items():
                    np.add.at(sums, np.asarray(rows)[owner], values[column])
            done += len(rows)
            progress(done / len(scorable))
    tokens, sizes = [row.completion_tokens for row in encoded], [row.bytes for row in encoded]
    return RowResults(tokens=np.array(tokens, np.float64), bytes=np.array(sizes, np.float64), **measured)


def pad_rows(encoded: Sequence[EncodedRow], padding: int, device: "torch.device") -> tuple["torch.Tensor", ...]:
    """Right-pad to ids and mask (batch, length) and point at every completion id.

    Also `where` (tokens, 2): row and position whose hidden state predicts it; `targets` (tokens,): the id;
    `owners` (tokens,): the row.
    """
    import torch

    length = max(len(e.ids) for e in encoded)
    ids = torch.full((len(encoded), length), padding)
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
) -> Iterator[tuple[dict[str, Array], Any]]:
    """What is measured of each completion token, by column, and the row it belongs to, chunk after chunk."""
    start = 0
    for logits in head(ids, mask, where):
        end = start + len(logits)
        values = {
            figure.column: figure.measure(logits, targets[start:end]).double().cpu().numpy()
            for figure in FIGURES.values()
            if figure.measure
        }
        yield values, owners[start:end].numpy()
        start = end


def completion_head(model: Any, probe: EncodedRow, padding: int) -> Head:
    """How to get the logits of chosen positions from `model`.

    The direct way runs the decoder and puts the chosen hidden states through the output embedding, and a soft cap
    where the config has one. Some architectures do more after it (scaling): `probe` is run both ways, and where they
    differ the model's own forward is used, which holds a batch's logits in the model's own dtype.
    """
    import torch

    decoder, output = model.base_model, model.get_output_embeddings()
    # A probe of 16 bits may not show it: a soft cap of 30 (Gemma Team 2024) changes logits of 10 by a fiftieth.
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)

    def direct(ids: "torch.Tensor", mask: "torch.Tensor", where: "torch.Tensor") -> Iterator["torch.Tensor"]:
        hidden = decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        for part in torch.split(where, HEAD_CHUNK):
            logits = output(hidden[part[:, 0], part[:, 1]]).float()
            yield logits if cap is None else torch.tanh(logits / cap) * cap

    def whole(ids: "torch.Tensor", mask: "torch.Tensor", where: "torch.Tensor") -> Iterator["torch.Tensor"]:
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for part in torch.split(where, HEAD_CHUNK):
            yield logits[part[:, 0], part[:, 1]].float()

    if output is None or decoder is model:
        return whole
    with torch.inference_mode():
        ids, mask, where, _, _ = pad_rows([probe], padding, model.device)
        one, other = next(direct(ids, mask, where)), next(whole(ids, mask, where))
    tolerance = 1e-4 if output.weight.dtype == torch.float32 else 5e-2
    return direct if torch.allclose(one, other, rtol=tolerance, atol=tolerance) else whole
