"""Two base models small enough to be made on the spot: a tokenizer of its own each, and a short pretraining.

They stand in for real base models where nothing can be downloaded: plain Hugging Face folders of the Llama
architecture that write simple sentences and cannot follow an instruction yet.
"""

import logging
import math
import string
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import UserError
from cluster.libraries import spare_deepspeed
from cluster.records import nearest
from cluster.store import LOCAL
from competitors.builtin.corpus import corpus

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

log = logging.getLogger(__name__)

TOKENIZER_DOCUMENTS = 2000
PRETRAINING_DOCUMENTS = 12000
CONTEXT_TOKENS = 256
BATCH_ROWS, BATCH_TOKENS = 8, 64
LEARNING_RATE = 4e-3
INITIAL_DEVIATION = 0.07  # about 1 / sqrt(hidden): with the usual 0.02 so narrow a model is slow to attend


@dataclass(frozen=True)
class Base:
    """The shape of one built-in base model and how its tokenizer comes about."""

    tokenizer: Callable[[list[str]], "PreTrainedTokenizerFast"]
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int


def build(name: str, folder: Path, seed: int = 0, steps: int = 240) -> None:
    """Make the built-in base `name` and save it in `folder` (replaced if there) as a plain Hugging Face folder.

    `steps` of pretraining at 512 tokens each, on one thread. The same name, seed and steps give the same
    bytes on one machine. Raises UserError when there is no such base.
    """
    if name not in BUILTIN_BASES:
        raise UserError(f"no built-in base named {name!r}{nearest(name, BUILTIN_BASES)}")
    base = BUILTIN_BASES[name]
    with _one_thread():
        tokenizer = base.tokenizer(corpus(seed, TOKENIZER_DOCUMENTS))
        model = _model(base, tokenizer, seed)
        documents = min(PRETRAINING_DOCUMENTS, (steps + 1) * BATCH_ROWS * BATCH_TOKENS)  # more than are read
        loss_nats = _pretrain(model, tokenizer, corpus(seed + 1, documents), steps)
    log.info("built %s: %d parameters, pretraining loss %.2f nats", name, model.num_parameters(), loss_nats)
    spare_deepspeed()
    with LOCAL.writing(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def byte_level_bpe(texts: list[str]) -> "PreTrainedTokenizerFast":
    """768 tokens, GPT-2 style: bytes merged to pieces of words; one special token ends a text, none begins it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        special_tokens=["<|end|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", model_max_length=CONTEXT_TOKENS
    )


def metaspace_unigram(texts: list[str]) -> "PreTrainedTokenizerFast":
    """About 1,000 tokens, Llama 2 style: likely pieces, spaces as ▁, single bytes for whatever else there is.

    The library's own Unigram trainer gives other pieces in every process. So the pieces are found by merging,
    which it does the same way each time, and scored here by how often they occur.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    merging = Tokenizer(models.BPE())
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Punctuation()]
    )
    merging.pre_tokenizer = splitter
    letters = list(string.ascii_letters + string.digits + string.punctuation)
    trainer = trainers.BpeTrainer(vocab_size=760, initial_alphabet=letters, show_progress=False)
    merging.train_from_iterator(texts, trainer)
    counts = Counter(piece for encoding in merging.encode_batch(texts) for piece in encoding.tokens)
    scores = {piece: math.log((counts[piece] + 0.5) / counts.total()) for piece in sorted(merging.get_vocab())}
    bytes_ = {f"<0x{byte:02X}>": min(scores.values()) - 10 for byte in range(256)}
    special = dict.fromkeys(["<unk>", "<s>", "</s>", "<pad>"], 0.0)

    vocabulary = list((special | bytes_ | scores).items())
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.add_special_tokens(list(special))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=CONTEXT_TOKENS,
    )


BUILTIN_BASES = {
    "tiny-bpe": Base(byte_level_bpe, hidden=128, intermediate=256, layers=3, heads=4, key_value_heads=4),
    "tiny-unigram": Base(metaspace_unigram, hidden=96, intermediate=256, layers=4, heads=4, key_value_heads=2),
}


def _model(base: Base, tokenizer: "PreTrainedTokenizerFast", seed: int) -> "LlamaForCausalLM":
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=base.hidden,
        intermediate_size=base.intermediate,
        num_hidden_layers=base.layers,
        num_attention_heads=base.heads,
        num_key_value_heads=base.key_value_heads,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        initializer_range=INITIAL_DEVIATION,
        **special,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).float()
    model.generation_config = GenerationConfig(max_new_tokens=32, do_sample=False, **special)
    return model


def _pretrain(model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", texts: list[str], steps: int) -> float:
    """Next-token prediction over the texts end to end, each begun and ended as the tokenizer does; the last loss."""
    import torch

    begin = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([token for text in encoded for token in [*begin, *text, tokenizer.eos_token_id]])
    rows = ids[: len(ids) // BATCH_TOKENS * BATCH_TOKENS].view(-1, BATCH_TOKENS)
    batches = torch.split(rows, BATCH_ROWS)  # each [row, token]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1, pct_start=0.1)
    model.train()
    loss = torch.tensor(math.nan)
    for step in range(steps):
        batch = batches[step % len(batches)]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
    return loss.item()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in the same order every time, which is what makes the bytes equal."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
