"""Gangs on real local Ray: a lost worker, and a coordinator that is ended from outside."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import ClusterTrouble
from cluster.on_ray.connect import connected
from cluster.on_ray.lent_group import placed_on
from cluster.on_ray.ray_workers import RayWorkers
from cluster.resources import Resources, Shape
from cluster.workers import Workers
from competitors.contract import Allowance, Brief, Submission
from competitors.entry import compete
from competitors.events import read_events
from competitors.output import model_form
from competitors.sft.recipe import SftRecipe
from tests.tiny import tiny_rows

SHAPE = Shape("trainer", 1, 0, workers=2, gang=True)
STEPS = 100


@pytest.fixture
def brief(tmp_path: Path, inputs: Path) -> Brief:
    rows = tiny_rows(60)
    prompts = [row["instruction"] + " \n" for row in rows]
    pq.write_table(pa.table({"prompt": prompts, "completion": [row["response"] for row in rows]}), tmp_path / "rows")
    return Brief(
        tournament="t", lineage="l", round=1, competitor="gang", seed_model=inputs / "one", seed_sha256="0",
        seed_continuation=None, train_data=tmp_path / "rows", max_tokens=64, budget=Allowance(steps=STEPS),
        progress=(0.0, 1.0), output_dir=tmp_path / "entry" / "submission", random_seed=7,
        resources=Resources(workers=2, gpus=0),
    )  # fmt: skip


def recipe(**settings: Any) -> SftRecipe:
    base = {"name": "gang", "kind": "sft", "learning_rate": 0.01, "batch_size": 4, "deepspeed": "zero2"}
    return SftRecipe.model_validate(base | {"resources": {"workers": 2, "gpus": 0}} | settings)


def compete_as_if_placed(workers: int, brief: Brief, recipe: SftRecipe) -> Submission:
    """Compete with another number of workers than there was room given for."""
    assert len(placed_on()) != workers
    return compete(brief, recipe)


def processes(word: str) -> list[psutil.Process]:
    """Those of our own Ray with `word` in their title."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any(word in part for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


async def until(what: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    return value


async def after_a_loss(workers: Workers, shape: Shape, brief: Brief, recipe: SftRecipe) -> Submission:
    """What a gang hands in that loses a worker after its first checkpoint."""
    try:
        call = asyncio.create_task(workers.call(shape, compete, brief, recipe))
        await until(lambda: call.done() or (brief.scratch_dir / "resume" / "resume.json").exists())
        os.kill(processes("RayTrainWorker")[1].pid, signal.SIGKILL)
        return await call
    finally:
        workers.close()


@pytest.mark.slow
def test_a_lost_worker_costs_a_gang_the_steps_since_its_checkpoint(brief: Brief, ray_address: str):
    with connected(ray_address):
        workers = RayWorkers({"HF_HUB_OFFLINE": "1"})
        submission = asyncio.run(after_a_loss(workers, SHAPE, brief, recipe(checkpoints=9)))
    assert (submission.status, submission.reason) == ("delivered", "used its budget")
    assert (submission.train_steps, submission.form) == (STEPS, "full")
    assert model_form(brief.output_dir) == "full"
    assert not brief.scratch_dir.exists()
    events = read_events(brief.progress_file)
    assert [event.event for event in events].count("started") == 1
    notes = [event.text for event in events if event.event == "note"]
    assert len(notes) == 1
    assert notes[0].startswith("a worker was lost: goes on from step ")
    assert int(notes[0].rpartition(" ")[2]) >= STEPS // 10
    # Less than a whole budget and the few steps since the checkpoint were reported, not one from the start.
    after = events[[event.text for event in events].index(notes[0]) :]
    assert min(event.step or 0 for event in after if event.event == "step") > STEPS // 10


@pytest.mark.slow
def test_a_coordinator_that_is_ended_takes_its_gang_along(brief: Brief, ray_address: str):
    async def scenario() -> None:
        workers = RayWorkers()
        try:
            call = asyncio.create_task(workers.call(SHAPE, compete, brief, recipe()))
            await until(lambda: "started" in [event.event for event in read_events(brief.progress_file)])
            assert len(processes("RayTrainWorker")) == 2
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await until(lambda: not processes("RayTrainWorker") + processes("TrainController"))
            # What the gang held is free for the next that asks, here for all there is.
            assert await workers.call(Shape("trainer", 2, 0), placed_on)
        finally:
            workers.close()

    with connected(ray_address):
        asyncio.run(scenario())


@pytest.mark.slow
def test_what_goes_wrong_in_a_gang_is_said_as_for_one_worker(brief: Brief, ray_address: str):
    async def scenario() -> tuple[Submission, Submission]:
        workers = RayWorkers({"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "2"})
        try:
            wrong = recipe(adapter={"method": "lora", "target_modules": ["nowhere"]})
            failed = await workers.call(SHAPE, compete, brief, wrong)
            too_many = brief.model_copy(update={"resources": Resources(workers=3, gpus=0)})
            with pytest.raises(ClusterTrouble, match=r"^the workers of gang were not started: "):
                await workers.call(SHAPE, compete_as_if_placed, 3, too_many, recipe())
            alone = Resources(workers=1, gpus=0)
            offloaded = recipe(deepspeed="zero3-offload", resources=alone.model_dump())
            brief.progress_file.unlink()
            few = brief.model_copy(update={"resources": alone, "budget": Allowance(steps=4)})
            return failed, await workers.call(SHAPE, compete_as_if_placed, 1, few, offloaded)
        finally:
            workers.close()

    with connected(ray_address):
        failed, offloaded = asyncio.run(scenario())
    assert failed.status == "forfeit"
    assert failed.reason.startswith("adapter.target_modules: no module of the seed is named nowhere; it has q_proj, ")
    assert (offloaded.status, offloaded.train_steps) == ("delivered", 4)
