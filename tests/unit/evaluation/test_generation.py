"""What a model writes is what its own logits choose, step by step."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.generation import generate
from tests.tiny import tiny_model


def test_greedy_completions_of_prompts_encoded_as_in_scoring(tmp_path: Path):
    folder = tiny_model(tmp_path / "m", initializer_range=0.5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts = ["what is the cat ?", "who"]
    for prompt, text in zip(prompts, generate(folder, folder, prompts, 5, "auto"), strict=True):
        ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
        start = len(ids)
        while len(ids) < start + 5 and ids[-1] != tokenizer.eos_token_id:
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert text == tokenizer.decode(ids[start:], skip_special_tokens=True)
