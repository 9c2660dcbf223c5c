"""Generation: what a model writes, for figures of its texts and for a person to see before and after."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.encoding import batches, encode
from evaluation.loading import Dtype, loaded, tokenizer_of
from evaluation.scoring import pad_id

SAMPLE_BATCH_TOKENS = 4096


def generate(model: Path, tokenizer: Path, prompts: list[str], max_new_tokens: int, dtype: Dtype) -> list[str]:
    """Greedy completions of `prompts`, encoded as in scoring."""
    codec = tokenizer_of(tokenizer)
    rows = encode(prompts, [""] * len(prompts), codec, max_tokens=1_000_000)
    with loaded(model, None, dtype) as network:
        ids = [row.ids[: row.start] for row in rows]
        return write(network, codec, ids, codec.eos_token_id, max_new_tokens, SAMPLE_BATCH_TOKENS)


def write(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], stop: int | None, max_new_tokens: int, batch_tokens: int
) -> list[str]:
    """Greedy completions of prompts as token ids, in their order, each up to `stop` or `max_new_tokens`.

    By the model's weights alone: what its folder says of sampling, penalties or other ends of a text is left aside.
    """
    import torch
    from transformers import GenerationConfig

    padding = pad_id(tokenizer)
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=stop, pad_token_id=padding)
    texts = [""] * len(prompts)
    for batch in batches([len(ids) + max_new_tokens for ids in prompts], batch_tokens):
        longest = max(len(prompts[i]) for i in batch)
        ids = torch.full((len(batch), longest), padding)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, i in enumerate(batch):  # on the left: what is written begins in one column
            ids[row, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, longest - len(prompts[i]) :] = 1
        with torch.inference_mode():
            ids, mask = ids.to(model.device), mask.to(model.device)
            written = model.generate(ids, attention_mask=mask, max_new_tokens=max_new_tokens)
        for i, text in zip(batch, tokenizer.batch_decode(written[:, longest:], skip_special_tokens=True), strict=True):
            texts[i] = text
    return texts
