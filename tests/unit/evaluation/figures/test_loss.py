"""Loss is transformers' own loss, and its measure what torch calls the negative log-likelihood."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.data.splits import Row
from evaluation.figures.loss import FIGURE, nats
from evaluation.scoring import encode_rows, score
from tests.tiny import tiny_model, tiny_rows

ROWS = [Row(str(i), r["instruction"] + " \n", r["response"]) for i, r in enumerate(tiny_rows(12))]


def test_equal_to_transformers_own_loss(tmp_path: Path):
    folder = tiny_model(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    encoded = encode_rows(ROWS, tokenizer, 64)
    results = score(model, encoded, 64, tokenizer.pad_token_id)
    for number, row in enumerate(encoded):
        ids = torch.tensor([row.ids])
        labels = ids.clone()
        labels[0, : row.start] = -100
        with torch.no_grad():
            theirs = float(model(ids, labels=labels).loss)
        assert results.nats[number] / results.tokens[number] == pytest.approx(theirs, rel=1e-5)
    assert FIGURE.compute(results) == pytest.approx(results.nats.sum() / results.tokens.sum())


def test_a_hand_computed_chunk():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    assert nats(logits, torch.tensor([1, 2])).tolist() == pytest.approx([1.3862944, 0.2231435])
