"""Scoring a job: what it writes, and that nothing is written of a model that has no loss."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.digest import model_sha256
from cluster.errors import BrokenRecord, Forfeit, UserError
from evaluation import evaluator
from evaluation.data.splits import Row
from evaluation.evaluator import score_also, score_model, score_slice
from evaluation.figures.rouge_l import overlap
from evaluation.generation import generate
from evaluation.loading import loaded
from evaluation.results import SPLITS, read_results
from evaluation.scorecard import Scorecard
from evaluation.scoring import encode_rows, score
from evaluation.submissions.inspection import inspect
from tests.tiny import tiny_model
from tests.unit.evaluation.submissions.making import ROWS, held_out, job, tiny_adapter


@pytest.fixture(autouse=True)
def splits(tmp_path: Path) -> Path:
    return held_out(tmp_path / "held_out")


def test_all_splits_are_scored_and_written(tmp_path: Path):
    folder = tiny_model(tmp_path / "m")
    seen: list[float] = []
    card = score_model(job(tmp_path, folder, splits=SPLITS), seen.append)
    assert Scorecard.read(tmp_path / "out" / "scorecard.json") == card
    assert (card.model, card.model_sha256, card.dtype) == ("m", model_sha256(folder), "float32")
    assert (card.validation.rows, card.reported.rows) == (12, 11)
    with loaded(folder, None, "auto") as model:
        expected = score(model, encode_rows(ROWS[12:], AutoTokenizer.from_pretrained(folder), 64), 256, 0)
    read = read_results(tmp_path / "out" / "losses.parquet", "test")
    assert np.array_equal(read.nats, expected.nats)
    assert np.array_equal(read.column("hits"), expected.column("hits"))
    assert read.loss == card.reported.loss
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_rows_that_are_damaged_are_made_anew_with_the_scorecard_and_never_added_to(tmp_path: Path):
    model = tiny_model(tmp_path / "m")
    card, rows = score_model(job(tmp_path, model)), tmp_path / "out" / "losses.parquet"
    rows.write_bytes(rows.read_bytes()[:100])
    with pytest.raises(BrokenRecord, match=r"losses\.parquet: .*remove the scorecard\.json beside it"):
        score_also(job(tmp_path, model), "proof")
    again = score_model(job(tmp_path, model))
    assert again.validation == card.validation
    assert read_results(rows, "validation").loss == card.validation.loss


def test_an_adapter_is_hashed_as_itself(tmp_path: Path):
    seed = tiny_model(tmp_path / "seed")
    adapter = tiny_adapter(tmp_path / "a", seed)
    plain, adapted = score_model(job(tmp_path, seed)), score_model(job(tmp_path, seed, adapter=adapter))
    assert adapted.model_sha256 == model_sha256(adapter)
    assert abs(adapted.validation.loss - plain.validation.loss) > 0.01


@pytest.mark.parametrize(("std", "stored"), [(0.5, "bfloat16"), (0.003, "float32")])
def test_the_scorecard_says_what_merging_an_adapter_takes_from_it(tmp_path: Path, std: float, stored: str):
    seed = tiny_model(tmp_path / "seed")
    AutoModelForCausalLM.from_pretrained(seed, dtype=torch.bfloat16).save_pretrained(seed)
    assert score_model(job(tmp_path, seed)).merge is None
    score_model(job(tmp_path, seed, adapter=tiny_adapter(tmp_path / "a", seed, std=std)))
    merge = Scorecard.read(tmp_path / "out" / "scorecard.json").merge
    assert merge is not None
    assert (merge.dtype, merge.stored) == ("bfloat16", stored)


def huge(folder: Path, value: float = 1e30) -> Path:
    """A model whose weights are finite, and what it computes is not."""
    weights = load_file(folder / "model.safetensors")
    weights = {name: t if "embed" in name else torch.full_like(t, value) for name, t in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_loss_that_is_not_finite_forfeits_without_a_word_written(tmp_path: Path):
    seed, folder = tiny_model(tmp_path / "seed"), huge(tiny_model(tmp_path / "m"))
    inspect(folder, "full", seed)  # every weight is a number
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(Forfeit, match="its loss on the validation rows is not finite"):
            score_model(job(tmp_path, folder, tokenizer=seed))
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_makes_numbers_that_are_none(tmp_path: Path):
    seed = tiny_model(tmp_path / "seed")
    adapter = tiny_adapter(tmp_path / "a", seed, std=1e30)
    inspect(adapter, "adapter", seed)
    with pytest.raises(Forfeit, match="cannot be merged into its seed"):
        score_model(job(tmp_path, seed, adapter=adapter))
    assert not (tmp_path / "out").exists()


def no_number_on_test_rows(tmp_path: Path) -> Path:
    """A model with a finite loss on the validation rows, and none on the test rows."""
    folder = tiny_model(tmp_path / "m", tie_word_embeddings=False)
    weights = load_file(folder / "model.safetensors")
    # `big` is read in the test rows only, and is more than any float once it is squared.
    held_out(tmp_path / "held_out", ROWS[:1], [Row("t", "big", "big")])
    big = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("big")
    weights["model.embed_tokens.weight"][big] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_the_test_rows_of_a_reference_are_checked_too(tmp_path: Path):
    folder = no_number_on_test_rows(tmp_path)
    with pytest.raises(Forfeit, match="its loss on the test rows is not finite"):
        score_model(job(tmp_path, folder, splits=SPLITS))
    assert not (tmp_path / "out").exists()


def test_an_entry_leaves_no_trace_of_the_test_rows_until_it_is_champion(tmp_path: Path):
    folder, out = tiny_model(tmp_path / "m"), tmp_path / "out"
    both = score_model(job(tmp_path, folder, splits=SPLITS, out=tmp_path / "both"))
    (tmp_path / "held_out" / "test.parquet").rename(tmp_path / "test.parquet")  # not even read
    card = score_model(job(tmp_path, folder))
    assert card.test is None
    assert len(read_results(out / "losses.parquet", "test").nats) == 0
    (tmp_path / "test.parquet").rename(tmp_path / "held_out" / "test.parquet")
    assert card.proof is None
    card = score_also(job(tmp_path, folder), "proof")
    assert card.proof == both.proof
    crowned = score_also(job(tmp_path, folder), "test")
    assert crowned == card.model_copy(update={"test": both.test})
    assert Scorecard.read(out / "scorecard.json") == crowned
    for split in SPLITS:
        one, other = (read_results(place / "losses.parquet", split) for place in (out, tmp_path / "both"))
        assert np.array_equal(one.nats, other.nats)
    assert score_also(job(tmp_path, folder), "test") == crowned  # as after a crash: nothing is there twice
    assert len(read_results(out / "losses.parquet", "test").nats) == 11


def test_a_winner_without_a_loss_on_the_rows_that_prove_forfeits(tmp_path: Path):
    folder = no_number_on_test_rows(tmp_path)
    held_out(tmp_path / "held_out", ROWS[:1], proof=[Row("t", "big", "big")])
    score_model(job(tmp_path, folder))
    with pytest.raises(Forfeit, match="its loss on the proof rows is not finite"):
        score_also(job(tmp_path, folder), "proof")
    assert Scorecard.read(tmp_path / "out" / "scorecard.json").proof is None


def test_rows_of_one_prompt_belong_together(tmp_path: Path):
    rows = [Row("0", "what is it ?", "a cat"), Row("1", "What is  it ?", "a dog"), Row("2", "who ?", "a cat")]
    held_out(tmp_path / "held_out", rows)
    score_model(job(tmp_path, tiny_model(tmp_path / "m")))
    group = read_results(tmp_path / "out" / "losses.parquet", "validation").group
    assert group[0] == group[1] != group[2]


def test_the_test_rows_take_no_title_away(tmp_path: Path):
    folder = no_number_on_test_rows(tmp_path)
    score_model(job(tmp_path, folder))
    score_also(job(tmp_path, folder), "test")
    assert np.isnan(Scorecard.read(tmp_path / "out" / "scorecard.json").reported.loss)


def test_no_completion_within_max_tokens_is_the_users_to_mend(tmp_path: Path):
    with pytest.raises(UserError, match=r"data\.max_tokens: 3 cuts the whole completion of every validation row away"):
        score_model(job(tmp_path, tiny_model(tmp_path / "m"), max_tokens=3))


def test_a_model_that_cannot_be_loaded_forfeits(tmp_path: Path):
    seed, folder = tiny_model(tmp_path / "seed"), tiny_model(tmp_path / "m")
    (folder / "generation_config.json").write_text("{")
    (folder / "config.json").write_text("{")
    with pytest.raises(Forfeit, match="the model cannot be loaded: "):
        score_model(job(tmp_path, folder, tokenizer=seed))


def test_a_seed_that_is_gone_is_not_the_adapters_fault(tmp_path: Path):
    seed = tiny_model(tmp_path / "seed")
    adapter = tiny_adapter(tmp_path / "a", seed)
    with pytest.raises(OSError, match="gone"):
        score_model(job(tmp_path, tmp_path / "gone", adapter=adapter, tokenizer=seed))


def test_a_slice_is_the_first_validation_rows_and_writes_nothing(tmp_path: Path):
    folder = tiny_model(tmp_path / "m")
    with loaded(folder, None, "auto") as model:
        expected = score(model, encode_rows(ROWS[:5], AutoTokenizer.from_pretrained(folder), 64), 256, 0)
    assert score_slice(job(tmp_path, folder), 5) == expected.loss
    assert not (tmp_path / "out").exists()


def test_a_slice_is_of_its_rounds_rows_and_probed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, own = tiny_model(tmp_path / "m"), tmp_path / "held_out" / "validation-2.parquet"
    (tmp_path / "held_out" / "test.parquet").rename(own)
    with loaded(folder, None, "auto") as model:
        expected = score(model, encode_rows(ROWS[12:17], AutoTokenizer.from_pretrained(folder), 64), 256, 0)
    assert score_slice(job(tmp_path, folder, splits=("validation-2",)), 5) == expected.loss

    def refuse(*args: object) -> None:
        raise Forfeit("is not causal")

    monkeypatch.setattr(evaluator, "probe", refuse)
    with pytest.raises(Forfeit, match="is not causal"):
        score_slice(job(tmp_path, folder), 5)


def test_a_submission_is_its_weights_on_all_rows_and_probed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seed, folder = tiny_model(tmp_path / "seed"), tiny_model(tmp_path / "m", seed=1)
    expected = score_model(job(tmp_path, folder, splits=SPLITS))
    (folder / "config.json").write_text("{}")
    probed: list[int] = []
    monkeypatch.setattr(evaluator, "probe", lambda model, rows, padding: probed.append(len(rows)))
    score_model(job(tmp_path, folder, seed=seed, tokenizer=seed))
    for split in ("proof", "test"):
        card = score_also(job(tmp_path, folder, seed=seed, tokenizer=seed), split)
    assert (card.validation, card.proof, card.test) == (expected.validation, expected.proof, expected.test)
    assert probed == [12]


def test_a_model_writes_the_completions_of_the_first_rows_itself(tmp_path: Path):
    folder = tiny_model(tmp_path / "m", initializer_range=0.5)
    card = score_model(job(tmp_path, folder, written_rows=5, written_tokens=8))
    texts = generate(folder, folder, [row.prompt for row in ROWS[:5]], 8, "auto")
    read = read_results(tmp_path / "out" / "losses.parquet", "validation")
    overlaps = [overlap(text, row.completion) for text, row in zip(texts, ROWS, strict=False)]
    assert read.column("overlap")[:5].tolist() == overlaps
    assert np.isnan(read.column("overlap")[5:]).all()
    assert any(overlaps)
    assert card.validation.figures["rouge_l"] == pytest.approx(np.mean(overlaps))
    assert "rouge_l" not in score_model(job(tmp_path, folder)).validation.figures
