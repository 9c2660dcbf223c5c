"""Scoring equals what a plain loop over transformers computes, row by row."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.encoding import encode
from evaluation import scoring
from evaluation.data.splits import Row
from evaluation.scoring import EncodedRow, completion_head, encode_rows, pad_rows, score
from tests.tiny import tiny_model
from tests.unit.evaluation.submissions.making import ROWS


def plain_loop(model, tokenizer, rows: list[Row], max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """The definition, one row at a time, with the whole vocabulary's logits."""
    nats, counts = [], []
    for row in rows:
        bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        prompt = bos + tokenizer(row.prompt, add_special_tokens=False)["input_ids"]
        ids = prompt + tokenizer(row.completion, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        ids = torch.tensor([ids[:max_tokens]])
        with torch.no_grad():
            log_p = model(ids).logits[0, :-1].double().log_softmax(-1)
        losses = -log_p[range(ids.shape[1] - 1), ids[0, 1:]][max(len(prompt), 1) - 1 :]
        nats.append(float(losses.sum()))
        counts.append(len(losses))
    return np.array(nats), np.array(counts)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(("batch_tokens", "chunk"), [(1, 4096), (64, 4096), (4096, 4096), (4096, 3)])
def test_equal_to_a_plain_loop(
    tmp_path: Path, bos: bool, batch_tokens: int, chunk: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scoring, "HEAD_CHUNK", chunk)
    folder = tiny_model(tmp_path / "m", bos=bos)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for max_tokens in (64, 11, 9):  # 9 cuts completions short, and with bos away
        nats, counts = plain_loop(model, tokenizer, ROWS, max_tokens)
        losses = score(model, encode_rows(ROWS, tokenizer, max_tokens), batch_tokens, tokenizer.pad_token_id)
        assert np.array_equal(losses.tokens, counts)
        np.testing.assert_allclose(losses.nats, nats, rtol=1e-5, atol=1e-9)


def test_an_architecture_that_caps_its_logits_is_scored_through_its_own_forward(tmp_path: Path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    folder = tiny_model(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.5, initializer_range=2.0, pad_token_id=0,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).float().eval()
    nats, _ = plain_loop(model, tokenizer, ROWS, 64)
    encoded = encode_rows(ROWS, tokenizer, 64)
    np.testing.assert_allclose(score(model, encoded, 256, 0).nats, nats, rtol=1e-5)
    # Of a higher cap and in 16 bits a probe shows nothing, and rows with larger logits would be scored without it.
    config.final_logit_softcapping = 30.0
    wide = Gemma2ForCausalLM(config).bfloat16().eval()
    with torch.no_grad():
        wide.lm_head.weight *= 0.02
        head = completion_head(wide, encoded[0], 0)
        wide.lm_head.weight *= 10_000
        ids, mask, where, _, _ = pad_rows(encoded, 0, "cpu")
        assert next(head(ids, mask, where)).abs().max() <= 30


def test_an_architecture_that_scales_its_logits_is_scored_through_its_own_forward(tmp_path: Path):
    from transformers import GraniteConfig, GraniteForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_model(tmp_path / "m"))
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        logits_scaling=8.0, initializer_range=2.0, pad_token_id=0,
    )  # fmt: skip
    model = GraniteForCausalLM(config).float().eval()
    nats, _ = plain_loop(model, tokenizer, ROWS, 64)
    np.testing.assert_allclose(score(model, encode_rows(ROWS, tokenizer, 64), 256, 0).nats, nats, rtol=1e-5)


def test_chat_prompts_go_through_the_models_own_template(tmp_path: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model(tmp_path / "m"))
    tokenizer.chat_template = "{{ bos_token }} who {{ messages[0]['content'] }} yes "
    (row,) = encode_rows([Row("1", "the cat \n", "is red")], tokenizer, 64, chat=True)
    assert tokenizer.convert_ids_to_tokens(row.ids) == ["<s>", "who", "the", "cat", "yes", "is", "red", "</s>"]
    assert row.start == 5


def test_rows_are_encoded_by_the_rule_of_training(tmp_path: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model(tmp_path / "m"))
    rule = encode([row.prompt for row in ROWS], [row.completion for row in ROWS], tokenizer, 9)
    assert [(e.ids, e.start, e.cut) for e in encode_rows(ROWS, tokenizer, 9)] == [(e.ids, e.start, e.cut) for e in rule]


def test_rows_cut_away_count_nothing_and_are_reported(tmp_path: Path):
    folder = tiny_model(tmp_path / "m")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    rows = [Row("1", "the cat", "is red ."), Row("2", "the", "is red ."), Row("3", "the cat who", "is red .")]
    encoded = encode_rows(rows, tokenizer, 4)
    assert [(len(e.ids), e.start, e.cut) for e in encoded] == [(4, 3, True), (4, 2, True), (4, 4, True)]
    assert [e.bytes for e in encoded] == [len("is"), len("is red"), 0]
    results = score(model, encoded, 8, 0)
    assert (results.tokens.tolist(), results.bytes.tolist()) == ([1, 2, 0], [2, 6, 0])
    assert results.nats[2] == 0.0


def test_all_rows_cut_away_is_zero_tokens_not_a_crash():
    losses = score(torch.nn.Linear(1, 1), [EncodedRow([1, 2], 2, True, 0)], 8, 0)
    assert losses.tokens.sum() == 0
