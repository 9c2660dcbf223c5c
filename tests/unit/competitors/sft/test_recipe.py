"""Recipes of kind sft in a config."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from cluster.errors import UserError
from competitors.sft.adapters import METHODS
from competitors.sft.recipe import SftRecipe
from orchestrator.field.shorthand import expand
from tests.unit.competitors.making import sft_recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_plus_ratio": 4}, 'unknown key "lora_plus_ratio"'),
        ({"freeze": ["mlp"], "adapter": {"method": "lora"}}, "freeze: an adapter leaves the whole seed frozen"),
        ({"freeze": ["mlp"], "train_only": ["norm"]}, "train_only: give it or freeze, not both"),
        (
            {"optimizer": "galore_adamw", "adapter": {"method": "lora", "lora_plus_ratio": 4}},
            "adapter.lora_plus_ratio: optimizer galore_adamw makes its own parameter groups",
        ),
    ],
)
def test_bad_recipes_are_refused_when_the_config_is_read(settings: dict[str, Any], message: str):
    with pytest.raises(ValidationError) as raised:
        sft_recipe(**settings)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resources": {"gpus": 2}}, "resources.gpus: a process trains on one GPU, not on 2: give that many workers"),
        ({"optimizer": "schedule_free_adamw"}, "optimizer: schedule_free_adamw trains on other weights than it means"),
    ],
)
def test_what_earlier_versions_took_is_read_and_not_begun(settings: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        sft_recipe(**settings).check()


def test_the_recipes_in_the_documentation_are_valid():
    page = (Path(__file__).parents[4] / "docs" / "competitors" / "sft.md").read_text()
    blocks = re.findall(r"```yaml competitors\n(.*?)```", page, re.DOTALL)
    shown = [entry for block in blocks for entry in yaml.safe_load(block)]
    recipes = expand([entry for entry in shown if "like" not in entry])
    methods = {SftRecipe.model_validate(r).summary.split(" ")[0].rstrip(",") for r in recipes if r.get("kind") == "sft"}
    assert methods >= set(METHODS) - {"pissa"} | {"pissa_niter_16", "full"}
