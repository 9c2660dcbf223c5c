"""The schema takes every config that is one, and refuses what an editor should underline."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from orchestrator.config.loading import load_config
from orchestrator.config.schema import MODELINE, SCHEMA_FILE, config_schema, schema_text
from tests.unit.orchestrator.config.test_loading import MINIMAL

CONFIGS = Path(__file__).parents[4] / "configs"
VALIDATOR = Draft7Validator(config_schema())


def competing(*items: Any) -> dict[str, Any]:
    """A config of these competitors."""
    return MINIMAL | {"competitors": list(items)}


def sft() -> dict[str, Any]:
    """A plain recipe."""
    return {"name": "f", "kind": "sft", "learning_rate": 1e-4}


def test_it_is_a_schema_and_what_is_printed():
    Draft7Validator.check_schema(config_schema())
    assert json.loads(schema_text()) == config_schema()


@pytest.mark.parametrize(
    "path", sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("examples/*.yaml")]), ids=lambda path: path.name
)
def test_the_configs_that_come_along_are_valid(path: Path):
    raw = yaml.safe_load(path.read_text())
    assert [error.message for error in VALIDATOR.iter_errors(raw)] == []


@pytest.mark.parametrize(
    "config",
    [
        MINIMAL,
        MINIMAL | {"competitors": "auto"},
        competing(sft() | {"learning_rate": {"each": [1e-4, 2e-4]}, "batch_size": {"each": [8]}}),
        competing(sft() | {"adapter": {"method": "lora", "rank": {"each": [4, 8]}}}),
        competing(
            sft() | {"adapter": {"method": "lora"}},
            {"name": "g", "like": "f", "adapter": {"rank": 64}},
            {"name": "h", "like": "f", "adapter": "none"},
        ),
        competing(sft() | {"adapter": "none", "continue": True}),
        competing({"name": "s", "kind": "search", "recipe": {"batch_size": 8}, "space": {"learning_rate": [0.1, 0.2]}}),
        competing({"name": "u", "kind": "unchanged"}),
        competing(sft() | {"repeats": 3}, {"name": "g", "like": "f", "repeats": 1}),
        MINIMAL | {"budget": {"total_tokens": 20_000_000}},
    ],
)  # fmt: skip
def test_what_yaml_allows_is_valid(config: dict[str, Any], tmp_path: Path):
    assert [error.message for error in VALIDATOR.iter_errors(config)] == []
    if config["competitors"] != "auto":  # the loader agrees
        (tmp_path / "t.yaml").write_text(yaml.safe_dump(config))
        load_config(tmp_path / "t.yaml")


@pytest.mark.parametrize(
    "config",
    [
        MINIMAL | {"roundz": 3},
        MINIMAL | {"competitors": "aut"},
        {key: value for key, value in MINIMAL.items() if key != "data"},
        competing(sft() | {"kind": "stf"}),
        competing({"name": "f", "kind": "sft"}),
        competing(sft() | {"adaptr": None}),
        competing(sft() | {"learning_rate": "fast"}),
        competing(sft() | {"repeats": 17}),
        competing({"name": "g", "like": "f", "learnin_rate": 1}),
        MINIMAL | {"budget": {"tokns": 3}},
    ],
)
def test_mistakes_are_not(config: dict[str, Any]):
    assert not VALIDATOR.is_valid(config)


def test_the_schema_beside_the_configs_is_this_one():
    written = (CONFIGS / SCHEMA_FILE).read_text()
    assert written == schema_text(), f"write it again: tournament schema > configs/{SCHEMA_FILE}"


@pytest.mark.parametrize(
    "path", sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("examples/*.yaml")]), ids=lambda path: path.name
)
def test_the_configs_name_the_schema(path: Path):
    up = "../" * (len(path.relative_to(CONFIGS).parts) - 1)
    assert path.read_text().splitlines()[0] == MODELINE.replace(SCHEMA_FILE, up + SCHEMA_FILE)
