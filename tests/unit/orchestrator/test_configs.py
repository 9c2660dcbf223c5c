"""Every tournament under configs/ is a valid one, and can be planned without GPU, network or weights."""

from pathlib import Path

import pytest

from competitors.command import sandbox
from orchestrator.config.loading import load_config
from orchestrator.planning.plan import make_plan

CONFIGS = Path(__file__).parents[3] / "configs"
FILES = sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("examples/*.yaml"), *CONFIGS.glob("experiments/*.yaml")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_can_be_planned(file: Path):
    config = load_config(file)
    if "../shared/" in file.read_text() and not (CONFIGS.parent / "../shared").is_dir():
        pytest.skip("its models and data are not beside this checkout")
    if "runs/models/" in file.read_text() and not (CONFIGS.parent / "runs/models").is_dir():
        pytest.skip("`make published` did not fetch its models yet")
    if any(getattr(recipe, "sandbox", "none") != "none" for recipe in config.competitors) and sandbox.trouble():
        pytest.skip(f"no sandbox here: {sandbox.trouble()}")
    plan = make_plan(config, file, address=None)
    training = [recipe for recipe in config.competitors if recipe.trains]
    one = len(training) + config.rounds - 1 if config.is_allocated else len(training) * config.rounds
    assert plan.trainings == one * len(config.lineages)
    assert {entry.competitor for entry in plan.entries} == {recipe.name for recipe in config.competitors}
    assert all(entry.recipe for entry in plan.entries)
