"""Scoring speed as a ratio to a plain forward pass over the same padded batches, measured in turns in one run."""

import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cluster.encoding import batches
from evaluation.data.splits import Row
from evaluation.scoring import encode_rows, score
from tests.tiny import tiny_rows, tiny_tokenizer

SHARED = Path(__file__).parents[3] / "shared" / "models"
BATCH_TOKENS = 4096


def models() -> dict[str, tuple[object, object]]:
    """A random 4-million-parameter Llama, and the real ones where they are."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8000, hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    found: dict[str, tuple[object, object]] = {"random 4M": (LlamaForCausalLM(config).eval(), tiny_tokenizer())}
    for name in ("stories260k", "stories15m"):
        if (SHARED / name).is_dir():
            model = AutoModelForCausalLM.from_pretrained(SHARED / name, dtype=torch.float32).eval()
            found[name] = model, AutoTokenizer.from_pretrained(SHARED / name)
    return found


@pytest.mark.parametrize("name", models())
def test_scoring_against_a_plain_forward_pass(name: str):
    model, tokenizer = models()[name]
    rows = [Row(str(i), (r["instruction"] + " ") * (1 + i % 5), r["response"]) for i, r in enumerate(tiny_rows(200))]
    encoded = encode_rows(rows, tokenizer, 256)
    groups = list(batches([len(e.ids) for e in encoded], BATCH_TOKENS))

    def plain() -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            for group in groups:
                length = max(len(encoded[i].ids) for i in group)
                ids = torch.zeros((len(group), length), dtype=torch.long)
                mask = torch.zeros_like(ids)
                for row, i in enumerate(group):
                    ids[row, : len(encoded[i].ids)] = torch.tensor(encoded[i].ids)
                    mask[row, : len(encoded[i].ids)] = 1
                model(input_ids=ids, attention_mask=mask, use_cache=False)
        return time.perf_counter() - began

    def scored() -> float:
        began = time.perf_counter()
        score(model, encoded, BATCH_TOKENS, 0)
        return time.perf_counter() - began

    plain(), scored()
    pairs = [(plain(), scored()) for _ in range(5)]
    ratios = sorted(a / b for a, b in pairs)
    tokens = sum(len(e.ids) for e in encoded)
    print(
        f"\n{name}: scoring {tokens / min(b for _, b in pairs):,.0f} tokens/s, {ratios[2]:.2f} of a plain forward pass"
    )
