"""What is handed in and what is left behind: averages, cool-downs, the seed's own dtype."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from competitors.contract import Allowance, Brief
from competitors.sft.continuation import Continuation
from competitors.sft.model import seed_weights
from evaluation.submissions.inspection import inspect
from tests.unit.competitors.making import run, weights


def test_tail_average_scores_another_model_than_it_continues(brief: Brief):
    run(brief, score_weights="tail_average", tail=0.5, schedule="constant")
    submitted, trunk = weights(brief.output_dir), load_file(brief.continuation_dir / "trunk.safetensors")
    name = "model.embed_tokens.weight"
    assert not torch.equal(submitted[name], trunk[name])


def test_the_tail_average_is_the_mean_of_the_tails_weights(brief: Brief, tmp_path: Path):
    """Ten steps with a tail of three: the mean of the trunk after 8, 9 and 10 steps."""
    run(brief, score_weights="tail_average", tail=0.3, schedule="constant")
    trunks = []
    for steps in (8, 9, 10):
        part = brief.model_copy(
            update={"budget": Allowance(steps=steps), "output_dir": tmp_path / f"part-{steps}" / "submission"}
        )
        part.output_dir.mkdir(parents=True)
        run(part, schedule="constant")
        trunks.append(weights(part.output_dir)["model.embed_tokens.weight"])
    mean = torch.stack(trunks).mean(0)
    assert torch.allclose(weights(brief.output_dir)["model.embed_tokens.weight"], mean, atol=1e-6)


def test_a_cool_down_continues_from_before_it(brief: Brief, tmp_path: Path):
    run(brief, score_weights="cool_down", tail=0.4, schedule="constant")
    part = brief.model_copy(update={"budget": Allowance(steps=7), "output_dir": tmp_path / "part" / "submission"})
    part.output_dir.mkdir(parents=True)
    run(part, schedule="constant")
    assert Continuation.read(brief.continuation_dir / "continuation.json").steps in (6, 7)
    trunk = load_file(brief.continuation_dir / "trunk.safetensors")["model.embed_tokens.weight"]
    submitted = weights(brief.output_dir)["model.embed_tokens.weight"]
    assert not torch.equal(trunk, submitted)


@pytest.mark.parametrize(("rate", "stored"), [(0.01, torch.bfloat16), (1e-5, torch.float32)])
def test_a_bfloat16_seed_gives_a_bfloat16_submission_unless_that_would_swallow_what_was_learnt(
    brief: Brief, tmp_path: Path, rate: float, stored: torch.dtype
):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "bf16"
    AutoModelForCausalLM.from_pretrained(brief.seed_model, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(brief.seed_model).save_pretrained(folder)
    notes = [
        event.text for event in run(brief.model_copy(update={"seed_model": folder}), learning_rate=rate) if event.text
    ]
    assert {t.dtype for t in weights(brief.output_dir).values()} == {stored}
    assert json.loads((brief.output_dir / "config.json").read_text())["dtype"] == str(stored).removeprefix("torch.")
    said = [text for text in notes if text.startswith("stored in float32: bfloat16 would lose ")]
    assert len(said) == (stored == torch.float32)
    inspect(brief.output_dir, "full", folder)


def test_the_seeds_values_are_found_under_either_name_and_in_any_file(tmp_path: Path, seed_model: Path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(seed_model)
    state = model.state_dict()
    model.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    without_prefix = {name.removeprefix("model."): tensor for name, tensor in weights(seed_model).items()}
    (tmp_path / "bare").mkdir()
    save_file(without_prefix | {"of another library": torch.zeros(1)}, tmp_path / "bare" / "model.safetensors")
    for folder in (tmp_path / "shards", tmp_path / "bare"):
        found = seed_weights(folder, model, state)
        assert found.keys() == state.keys() - {"lm_head.weight"}  # which is the embedding
        assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())
