"""A submission becomes the next seed, and nothing that was there before is changed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.digest import model_sha256
from cluster.errors import Forfeit
from evaluation.submissions import promotion
from evaluation.submissions.inspection import inspect
from evaluation.submissions.promotion import lend, make_full
from tests.tiny import tiny_model
from tests.unit.evaluation.submissions.making import contents, inodes, tiny_adapter

MODEL = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "seed")


@pytest.mark.parametrize("form", ["full", "adapter"])
def test_neither_submission_nor_seed_nor_base_is_changed_or_shared(tmp_path: Path, seed: Path, form: str):
    if form == "full":
        submission = tiny_model(tmp_path / "submission", seed=1)
    else:
        submission = tiny_adapter(tmp_path / "submission", seed)
    base = tiny_model(tmp_path / "base", seed=2)
    theirs = AutoTokenizer.from_pretrained(submission if form == "full" else seed)
    theirs.chat_template = "{{ 'of the competitor' }}"
    theirs.save_pretrained(submission)
    before = [contents(folder) for folder in (submission, seed, base)]
    sha256 = make_full(seed, submission, form, base, tmp_path / "out")
    assert sha256 == model_sha256(tmp_path / "out")
    assert [contents(folder) for folder in (submission, seed, base)] == before
    shared = inodes(tmp_path / "out").keys() & (inodes(submission) | inodes(seed) | inodes(base)).keys()
    assert [inodes(tmp_path / "out")[inode] for inode in shared] == (["model.safetensors"] if form == "full" else [])
    assert {file.name for file in (tmp_path / "out").iterdir()} == MODEL
    assert "of the competitor" not in "".join(f.read_text() for f in (tmp_path / "out").glob("*.json"))


def test_what_is_written_to_out_later_does_not_reach_the_submission(tmp_path: Path, seed: Path):
    submission = tiny_model(tmp_path / "submission", seed=1)
    before = contents(submission)
    make_full(seed, submission, "full", seed, tmp_path / "out")
    for file in (tmp_path / "out").glob("*.json"):
        file.write_text("{}")
    assert contents(submission) == before


def test_a_full_model_of_several_files_in_a_folder_with_a_checkpoint(tmp_path: Path, seed: Path):
    submission = tmp_path / "submission"
    model = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path / "m", seed=3))
    model.save_pretrained(submission, max_shard_size="8KB")
    (submission / "generation_config.json").write_text('{"repetition_penalty": 9.0}')
    inspect(submission, "full", seed)
    model.save_pretrained(submission / "checkpoint-5", max_shard_size="8KB")
    make_full(seed, submission, "full", seed, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    assert not any(path.is_dir() for path in (tmp_path / "out").iterdir())
    assert (tmp_path / "out" / "generation_config.json").read_bytes() == (seed / "generation_config.json").read_bytes()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_an_adapter_is_stored_in_the_seeds_dtype(tmp_path: Path, seed: Path):
    AutoModelForCausalLM.from_pretrained(seed, dtype=torch.bfloat16).save_pretrained(seed)
    make_full(seed, tiny_adapter(tmp_path / "a", seed), "adapter", seed, tmp_path / "out")
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    inspect(tmp_path / "out", "full", seed)  # and may be handed in as it is


def test_an_update_that_the_seeds_dtype_would_swallow_is_stored_in_float32(tmp_path: Path, seed: Path):
    AutoModelForCausalLM.from_pretrained(seed, dtype=torch.bfloat16).save_pretrained(seed)
    adapter, own = tiny_adapter(tmp_path / "a", seed, std=0.003), tiny_model(tmp_path / "next", seed=5)
    make_full(seed, adapter, "adapter", seed, tmp_path / "out")
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}
    inspect(own, "full", tmp_path / "out")  # what trains on from it is stored as it likes
    inspect(tmp_path / "out", "full", seed)


def test_out_appears_whole_or_not_at_all(tmp_path: Path, seed: Path, monkeypatch: pytest.MonkeyPatch):
    submission = tiny_model(tmp_path / "submission", seed=1)
    with pytest.raises(OSError, match="absent"):
        make_full(seed, submission, "full", tmp_path / "absent", tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []
    seen = []
    monkeypatch.setattr(promotion, "model_sha256", lambda out: seen.append({file.name for file in out.iterdir()}))
    make_full(seed, submission, "full", seed, tmp_path / "new" / "out")
    assert seen == [MODEL]


def test_what_cannot_be_merged_is_said_in_words(tmp_path: Path, seed: Path):
    with pytest.raises(Forfeit, match="it cannot be merged"):
        make_full(seed, tiny_adapter(tmp_path / "a", seed, lora_bias=True), "adapter", seed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_soup_is_lent_is_what_was_scored(tmp_path: Path, seed: Path):
    from peft import PeftModel

    adapter = tiny_adapter(
        tmp_path / "a", seed, target_modules=r".*\.q_proj", use_rslora=True, alpha_pattern={"q_proj": 3}
    )
    make_full(seed, adapter, "adapter", seed, tmp_path / "promoted", model_sha256(adapter))
    lend(seed, adapter, "adapter", tmp_path / "lent", model_sha256(adapter))
    assert contents(tmp_path / "lent").keys() == {"adapter_config.json", "adapter_model.safetensors"}
    blended = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(seed), tmp_path / "lent")
    promoted = AutoModelForCausalLM.from_pretrained(tmp_path / "promoted")
    for ours, theirs in zip(blended.merge_and_unload().parameters(), promoted.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_what_was_changed_since_it_was_scored_is_neither_lent_nor_promoted(tmp_path: Path, seed: Path):
    submission = tiny_model(tmp_path / "submission", seed=1)
    scored = model_sha256(submission)
    tiny_model(submission, seed=2)
    with pytest.raises(Forfeit, match="changed since"):
        make_full(seed, submission, "full", seed, tmp_path / "out", scored)
    with pytest.raises(Forfeit, match="changed since"):
        lend(seed, submission, "full", tmp_path / "out", scored)
    assert not (tmp_path / "out").exists()
