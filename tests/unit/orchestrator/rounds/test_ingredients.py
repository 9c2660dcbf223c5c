"""What a soup may blend, and what of it a soup gets to read."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from cluster.digest import model_sha256
from cluster.store import LOCAL
from competitors.contract import Brief
from competitors.sft.recipe import SftRecipe
from competitors.soup.recipe import SoupRecipe
from evaluation.scorecard import Scorecard
from orchestrator.field.evolution import child_name
from orchestrator.record.events import Noted
from orchestrator.record.records import Inspection, ModelFolder
from orchestrator.record.snapshot import Snapshot
from orchestrator.rounds.competition import brief_for
from orchestrator.rounds.context import Context
from orchestrator.rounds.evaluators import Evaluators
from orchestrator.rounds.ingredients import ingredients, is_ingredient, lent
from tests.faked import faked_config, play
from tests.tiny import tiny_model
from tests.unit.evaluation.submissions.making import tiny_adapter
from tests.unit.orchestrator.rounds.test_competition import seed_of
from tests.unit.orchestrator.test_real_kinds import workers

SOUP = SoupRecipe(name="mix", kind="soup")


def test_who_is_named_stands_for_its_children_however_long_its_name_is():
    long = "x" * 60
    soup = SoupRecipe(name="mix", kind="soup", of=["full", long])
    for name, is_one in (("full", True), ("full.3a", True), (child_name(long, 3, 0, set()), True), ("other.3a", False)):
        assert is_ingredient(SftRecipe(name=name, kind="sft", learning_rate=1.0), soup) == is_one


@pytest.fixture
def played(tmp_path: Path) -> Snapshot:
    return play(faked_config(tmp_path, rounds=1), tmp_path / "run")


def test_a_soup_blends_what_was_scored_on_this_seed_and_nothing_else(played: Snapshot):
    roster = played.lineages[0].rounds[0].roster

    def labels(seed: ModelFolder, recipe: SoupRecipe = SOUP) -> list[str]:
        return [one.label for one in ingredients(played.run, roster, recipe, seed)]

    assert labels(seed_of(played)) == ["a@1", "b@1"]
    assert labels(seed_of(played).model_copy(update={"sha256": "another"})) == []
    assert labels(seed_of(played), SOUP.model_copy(update={"of": ["b", "c"]})) == ["b@1"]
    file = played.run.entry("l", 1, "a") / "inspection.json"
    before = file.read_text()
    played.run.write(Inspection(form="full", reason="rejected"), file)
    assert labels(seed_of(played)) == ["b@1"]
    LOCAL.write_text(file, before)


def hand_in_weights(played: Snapshot) -> None:
    """In the place of what `a` and `b` only pretended to hand in: an adapter and a full model, scored."""
    seed = seed_of(played)
    assert seed.path is not None
    for name, form in (("a", "adapter"), ("b", "full")):
        folder = played.run.entry("l", 1, name)
        LOCAL.remove(folder / "submission")
        tiny_adapter(folder / "submission", seed.path) if form == "adapter" else tiny_model(folder / "submission", 7)
        card = Scorecard.read(folder / "scorecard.json")
        sha256 = model_sha256(folder / "submission")
        played.run.write(card.model_copy(update={"model_sha256": sha256}), folder / "scorecard.json")
        played.run.write(Inspection.model_validate({"form": form}), folder / "inspection.json")


def lend_to_a_soup(played: Snapshot) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The configs of what a soup was lent, by label, and what was said; that the weights are the submissions'."""
    said, own = list[str](), workers()
    evaluators, run = Evaluators(played.config, played.run, own), played.run
    told = Context(
        played.config,
        run,
        Path(),
        own,
        evaluators,
        lambda event: said.append(event.text) if isinstance(event, Noted) else None,
    )
    roster, seed = played.lineages[0].rounds[0].roster, seed_of(played)
    found = ingredients(run, roster, SOUP, seed)
    brief = brief_for(told, roster, roster.entries[0], seed, 1)
    brief = brief.model_copy(update={"output_dir": run.entry("l", 1, "mix") / "submission", "ingredients": found})
    return asyncio.run(_configs(told, brief, seed)), said


async def _configs(told: Context, brief: Brief, base: ModelFolder) -> dict[str, dict[str, Any]]:
    submissions = {one.label: one.folder for one in brief.ingredients}
    async with lent(told, brief, base) as given:
        found = {}
        for one in given.ingredients:
            (weights,) = one.folder.glob("*.safetensors")
            assert load_file(weights).keys() == load_file(submissions[one.label] / weights.name).keys()
            found[one.label] = json.loads(next(one.folder.glob("*config.json")).read_text())
        folders = [one.folder for one in given.ingredients]
    assert folders
    assert not any(folder.exists() for folder in folders)
    return found


def edit(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_a_soup_is_lent_the_weights_under_configs_that_we_have_written(played: Snapshot):
    hand_in_weights(played)
    submission = played.run.entry("l", 1, "a") / "submission"
    edit(submission / "adapter_config.json", base_model_name_or_path="/etc", peft_version="x")  # not the model: no hash
    edit(played.run.entry("l", 1, "b") / "submission" / "config.json", transformers_version="x")
    configs, said = lend_to_a_soup(played)
    assert (list(configs), said) == (["a@1", "b@1"], [])
    assert {"base_model_name_or_path", "peft_version", "auto_mapping"} & configs["a@1"].keys() == set()
    assert configs["a@1"]["r"] == 2
    seed = seed_of(played).path
    assert seed is not None
    assert configs["b@1"] == json.loads((seed / "config.json").read_text())


@pytest.mark.parametrize(
    ("name", "file", "hostile"),
    [
        ("a", "adapter_config.json", {"layer_replication": [[0, 2], [0, 2]]}),
        ("a", "adapter_config.json", {"unknown": "field"}),
        ("b", "config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}),
    ],
)
def test_what_was_changed_since_it_was_scored_is_not_blended(
    played: Snapshot, name: str, file: str, hostile: dict[str, Any]
):
    hand_in_weights(played)
    edit(played.run.entry("l", 1, name) / "submission" / file, **hostile)
    configs, said = lend_to_a_soup(played)
    assert f"{name}@1" not in configs
    assert said == [f"a leaves out {name}@1: its files are not those that were scored: they were changed since"]
