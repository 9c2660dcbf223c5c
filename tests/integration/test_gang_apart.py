"""A gang, and a search, on two nodes that share no disk: files come from a store and go there."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.bucket.object_store import ObjectStore
from cluster.bucket.staged_workers import StagedWorkers
from cluster.bucket.working_copy import WorkingCopy
from cluster.on_ray.connect import connected
from cluster.on_ray.ray_workers import RayWorkers
from cluster.resources import Resources
from competitors.contract import Allowance, Brief, Submission
from competitors.entry import compete
from competitors.events import read_events, reporter
from competitors.output import model_form
from competitors.search.recipe import SearchRecipe
from competitors.search.record import SearchRecord
from competitors.sft.recipe import SftRecipe
from competitors.sft.training import train
from orchestrator.driver import WORKER_ENVIRONMENT
from tests.integration.test_gang import after_a_loss
from tests.integration.test_gang_training import same_continuation
from tests.ray_start import in_time
from tests.tiny import tiny_rows

STEPS = 2400
"""So many, so that the driver hears of a checkpoint on the way."""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head that holds no work, and two nodes of one CPU, each with a cache of its own."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = in_time(lambda: Cluster(initialize_head=True, head_node_args=head))
    for name in ("one", "other"):
        monkeypatch.setenv("TOURNAMENT_CACHE", str(tmp_path / name))
        in_time(lambda: cluster.add_node(num_cpus=1))
    cluster.wait_for_nodes()
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def copy(tmp_path: Path, inputs: Path) -> Iterator[WorkingCopy]:
    (tmp_path / "store").mkdir()
    opened = WorkingCopy(tmp_path / "run", ObjectStore(f"file://{tmp_path}/store")).open()
    shutil.copytree(inputs / "one", opened.root / "seed")
    rows = tiny_rows(60)
    prompts = [row["instruction"] + " \n" for row in rows]
    table = pa.table({"prompt": prompts, "completion": [row["response"] for row in rows]})
    pq.write_table(table, opened.root / "train.parquet")
    for name in ("seed", "train.parquet"):
        opened.keep(opened.root / name)
    yield opened
    opened.close()


def brief(copy: WorkingCopy, name: str, workers: int) -> Brief:
    return Brief(
        tournament="t", lineage="l", round=1, competitor=name, seed_model=copy.root / "seed", seed_sha256="0",
        seed_continuation=None, train_data=copy.root / "train.parquet", max_tokens=64,
        budget=Allowance(steps=STEPS), progress=(0.0, 1.0), output_dir=copy.root / name / "submission", random_seed=7,
        resources=Resources(workers=workers, gpus=0),
    )  # fmt: skip


def recipe(workers: int, **settings: Any) -> SftRecipe:
    resources = {"workers": workers, "gpus": 0}
    base = {"name": "gang", "kind": "sft", "learning_rate": 1e-4, "checkpoints": 9, "resources": resources}
    return SftRecipe.model_validate(base | settings)


@pytest.mark.slow
def test_it_ends_where_one_worker_ends_though_a_worker_was_lost(copy: WorkingCopy, address: str):
    given, sharded = brief(copy, "gang", 2), recipe(2, batch_size=4, deepspeed="zero2")
    copy.write_text(given.output_dir.parent / "brief.json", "{}")
    with connected(address):
        workers = StagedWorkers(RayWorkers(WORKER_ENVIRONMENT), copy)
        submission = asyncio.run(after_a_loss(workers, sharded.shape(has_gpus=False), given, sharded))
    assert (submission.status, submission.reason) == ("delivered", "used its budget")
    assert submission.train_steps == STEPS
    notes = [event.text or "" for event in read_events(given.progress_file) if event.event == "note"]
    assert [note.rpartition(" ")[0] for note in notes] == ["a worker was lost: goes on from step"]
    assert (given.log_file.parent / "log-1.txt").exists(), "that of the worker on the other node"
    copy.fetch(given.continuation_dir)
    alone = brief(copy, "alone", 1)
    alone.output_dir.mkdir(parents=True)
    train(alone, recipe(1, batch_size=8), reporter(alone.progress_file))
    same_continuation(given.continuation_dir, alone.continuation_dir)


@pytest.mark.slow
def test_a_search_has_its_trials_on_both_nodes(copy: WorkingCopy, address: str, tmp_path: Path):
    given = brief(copy, "search", 2)
    given = given.model_copy(update={"budget": Allowance(steps=120)})
    asked = SearchRecipe.model_validate(
        {
            "name": "search", "kind": "search", "recipe": {"batch_size": 4}, "trials": 4, "slice_rows": 10,
            "space": {"learning_rate": {"low": 0.001, "high": 0.05, "log": True}},
            "resources": {"workers": 2, "gpus": 0},
        }
    )  # fmt: skip
    copy.write_text(given.output_dir.parent / "brief.json", "{}")

    async def searched() -> Submission:
        workers = StagedWorkers(RayWorkers(WORKER_ENVIRONMENT), copy)
        try:
            return await workers.call(asked.shape(has_gpus=False), compete, given, asked)
        finally:
            workers.close()

    with connected(address):
        submission = asyncio.run(searched())
    assert submission.status == "delivered", submission.reason
    record = SearchRecord.read(given.output_dir.parent / "search.json")
    assert [trial.reason for trial in record.trials] == [""] * 4
    assert all(trial.loss is not None for trial in record.trials)
    assert record.longer is not None
    spent = sum(trial.steps for trial in [*record.trials, record.longer])
    assert submission.train_steps == spent <= 120
    copy.fetch(given.output_dir)
    assert model_form(given.output_dir) == "full"
    for name in ("one", "other"):
        assert (tmp_path / name / "views").is_dir(), "a trial was at work there"
