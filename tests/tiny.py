"""Tiny models and data made on the spot, for tests."""

from pathlib import Path
from typing import Any

from cluster.libraries import spare_deepspeed

WORDS = "the a cat dog sun moon is was red blue big small what who where yes no one two three".split()  # noqa: SIM905


def tiny_tokenizer(bos: bool = True) -> Any:
    """A word-level tokenizer of a few words, with eos and pad and, if asked, bos."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<s>", "</s>"]
    vocabulary = {word: i for i, word in enumerate(special + WORDS + ["\n", ".", "?"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(r" ", "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>" if bos else None,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def tiny_model(folder: Path, seed: int = 0, bos: bool = True, hidden: int = 16, **config: Any) -> Path:
    """A two-layer Llama of about 6,000 parameters with its tokenizer, as a Hugging Face folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer(bos)
    torch.manual_seed(seed)
    settings = {
        "vocab_size": 32,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    } | config
    spare_deepspeed()
    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_rows(count: int = 120) -> list[dict[str, str]]:
    """Distinct prompts over the tiny vocabulary, each with a completion that follows from it."""
    rows = []
    for number in range(count):
        a, b, c = (WORDS[(number // 20**power) % 20] for power in (0, 1, 2))
        rows.append({"instruction": f"what is {a} {b} {c} ?", "response": f"{a} is {WORDS[(number * 7) % 20]} ."})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    """Rows as a JSONL file."""
    import json

    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
