"""Token accuracy is what transformers' own logits say, token by token."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.data.splits import Row
from evaluation.figures.token_accuracy import FIGURE, hits
from evaluation.scoring import encode_rows, score
from tests.tiny import tiny_model

ROWS = [Row("0", "what is the cat ?", "the cat is red ."), Row("1", "who ?", "two two two"), Row("2", "a", "dog")]


def test_equal_to_a_count_by_hand(tmp_path: Path):
    folder = tiny_model(tmp_path / "m", initializer_range=0.5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    # Half of the answers are the model's own first choices, so that there is something to hit.
    start = tokenizer("<s> no no", add_special_tokens=False, return_tensors="pt")["input_ids"]
    own = model.generate(start, max_new_tokens=6, do_sample=False)[0, 3:].tolist()
    rows = [*ROWS, Row("3", "no no", " ".join(tokenizer.convert_ids_to_tokens(own)))]
    counted, right = 0, []
    for row in rows:
        prompt = [tokenizer.bos_token_id, *tokenizer(row.prompt, add_special_tokens=False)["input_ids"]]
        answer = [*tokenizer(row.completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0]
        first_choices = [int(logits[len(prompt) - 1 + i].argmax()) for i in range(len(answer))]
        right.append(sum(a == b for a, b in zip(first_choices, answer, strict=True)))
        counted += len(answer)
    results = score(model, encode_rows(rows, tokenizer, 64), 64, tokenizer.pad_token_id)
    assert results.column("hits").tolist() == right
    assert FIGURE.compute(results) == sum(right) / counted
    assert 0 < sum(right) < counted


def test_a_hand_computed_chunk():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert hits(logits, torch.tensor([1, 2])).tolist() == [True, False]


def test_it_is_shown_as_a_share():
    assert FIGURE.text(0.4321) == "43.2%"
