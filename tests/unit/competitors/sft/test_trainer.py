"""What is handed in and what is left behind: averages, cool-downs, the seed's own dtype."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from competitors.contract import Allowance, Brief
from competitors.sft.continuation import Continuation
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


def test_a_bfloat16_seed_gives_a_bfloat16_submission(brief: Brief, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "bf16"
    AutoModelForCausalLM.from_pretrained(brief.seed_model, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(brief.seed_model).save_pretrained(folder)
    run(brief.model_copy(update={"seed_model": folder}))
    assert {t.dtype for t in weights(brief.output_dir).values()} == {torch.bfloat16}
    assert json.loads((brief.output_dir / "config.json").read_text())["dtype"] == "bfloat16"
