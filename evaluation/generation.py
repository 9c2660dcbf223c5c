"""Generation: what a model writes, for a person to see before and after."""

from pathlib import Path

from cluster.encoding import encode
from evaluation.loading import Dtype, loaded
from evaluation.scoring import pad_id


def generate(model: Path, tokenizer: Path, prompts: list[str], max_new_tokens: int, dtype: Dtype) -> list[str]:
    """Greedy completions of `prompts`, encoded as in scoring."""
    import torch
    from transformers import AutoTokenizer

    codec = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    texts = []
    with loaded(model, None, dtype) as network, torch.inference_mode():
        for row in encode(prompts, [""] * len(prompts), codec, max_tokens=1_000_000):
            ids = torch.tensor([row.ids[: row.start]], device=network.device)
            written = network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=codec.eos_token_id,
                pad_token_id=pad_id(codec),
            )
            texts.append(codec.decode(written[0, ids.shape[1] :], skip_special_tokens=True))
    return texts
