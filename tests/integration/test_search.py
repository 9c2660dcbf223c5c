"""Searches in a real tournament: two in one round, side by side in one Ray job; and one of them again."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from cluster.on_ray.connect import connected
from cluster.on_ray.ray_workers import RayWorkers
from cluster.resources import Shape
from competitors.contract import Brief, Submission
from competitors.entry import compete
from competitors.search.recipe import SearchRecipe
from competitors.search.record import SearchRecord
from tests.tournaments import run

TOKENS = 3000
FULL = {
    "name": "full",
    "kind": "search",
    "recipe": {"batch_size": 8},
    "space": {"learning_rate": {"low": 0.005, "high": 0.05, "log": True}},
    "trials": 3,
    "slice_rows": 20,
}
ADAPTERS = {
    "name": "adapters",
    "kind": "search",
    "recipe": {"batch_size": 8, "learning_rate": 0.02, "adapter": {"method": "lora"}},
    "space": {"adapter.rank": [2, 3, 5]},
    "trials": 3,
    "slice_rows": 20,
}


@pytest.mark.slow
def test_two_searches_in_one_round_do_not_mix_and_stay_within_their_budgets(write_config: Any, tmp_path: Path):
    config = write_config([FULL, ADAPTERS], rounds=1, budget={"tokens": TOKENS})
    board = run(config, tmp_path / "run")
    entries = {entry.competitor: entry for entry in board.lineages[0].rounds[1].entries}
    assert {name: entry.status for name, entry in entries.items()} == {"full": "scored", "adapters": "scored"}
    folders = {name: tmp_path / "run" / "lineages" / "one" / "round-001" / name for name in entries}
    records = {name: SearchRecord.read(folder / "search.json") for name, folder in folders.items()}

    # Each drew from its own space and trained its own recipe.
    drawn = {name: [trial.values for trial in record.trials] for name, record in records.items()}
    assert all(0.005 <= values.pop("learning_rate") <= 0.05 and not values for values in drawn["full"])
    assert all(values in [{"adapter.rank": rank} for rank in (2, 3, 5)] for values in drawn["adapters"])
    submissions = {name: Submission.read(folder / "submission.json") for name, folder in folders.items()}
    assert (submissions["full"].form, submissions["adapters"].form) == ("full", "adapter")
    adapter = json.loads((folders["adapters"] / "submission" / "adapter_config.json").read_text())
    assert {"adapter.rank": adapter["r"]} == drawn["adapters"][records["adapters"].best]

    # The budget is that of all trials and the longer training together, and most of it is used.
    for name, record in records.items():
        assert len(record.trials) == 3
        assert not any(trial.reason for trial in record.trials)
        assert record.longer is not None
        spent = sum(trial.tokens for trial in [*record.trials, record.longer])
        assert 0.8 * TOKENS < spent <= TOKENS
        assert entries[name].train_tokens == spent
        assert not (folders[name] / "scratch").exists()


@pytest.mark.slow
def test_a_search_with_one_trial_at_a_time_repeats(write_config: Any, tmp_path: Path, ray_address: str):
    run(write_config([FULL], rounds=1, budget={"tokens": TOKENS}), tmp_path / "run")
    entry = tmp_path / "run" / "lineages" / "one" / "round-001" / "full"
    submission = asyncio.run(once_more(entry, tmp_path / "again", ray_address))
    assert submission.sha256 == Submission.read(entry / "submission.json").sha256
    assert SearchRecord.read(entry / "search.json") == SearchRecord.read(tmp_path / "again" / "search.json")


async def once_more(entry: Path, folder: Path, ray_address: str) -> Submission:
    """Has the search of an entry run again on the same brief, in another folder."""
    brief = Brief.read(entry / "brief.json", root=entry.parents[3]).model_copy(
        update={"output_dir": folder / "submission"}
    )
    with connected(ray_address):
        workers = RayWorkers({})
        try:
            recipe = SearchRecipe.model_validate(FULL)
            return await workers.call(Shape("trainer", 1, 0, gang=True), compete, brief, recipe)
        finally:
            workers.close()
