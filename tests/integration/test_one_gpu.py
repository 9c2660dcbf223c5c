"""One GPU, a pretended one or a real one: who shares it, at once or in turn, without ending each other's process."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterTrouble
from cluster.on_ray.connect import connected
from cluster.on_ray.ray_workers import RayWorkers
from cluster.resources import Shape
from cluster.workers import EVALUATOR
from tests.ray_start import in_time
from tests.worker_contract import fail, until, work

TRAINING, SCORING = Shape("trainer", 1, 1), Shape("evaluator", 0, 1)


@pytest.fixture(scope="module", params=["pretended", pytest.param("real", marks=pytest.mark.gpu)])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    import torch  # not above: what is called in workers is imported there with this file

    if request.param == "real" and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU on this machine")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "num_gpus": 1, "include_dashboard": False}
    cluster = in_time(lambda: Cluster(initialize_head=True, head_node_args=head))
    yield str(cluster.address)
    cluster.shutdown()


def where() -> tuple[int, str | None, bool]:
    """The process, the GPU that it is shown, and whether it has torch, as one has that is kept within a part of it."""
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), "torch" in sys.modules


def played(address: str, scenario: Any) -> Any:
    async def play() -> Any:
        workers = RayWorkers()
        try:
            return await asyncio.wait_for(scenario(workers), 120)
        finally:
            workers.close()

    with connected(address):
        return asyncio.run(play())


def test_trainer_and_evaluator_take_turns_in_the_same_two_processes(address: str):
    async def rounds(workers: RayWorkers) -> list[Any]:
        await workers.call(SCORING, where, priority=EVALUATOR)  # the base
        found = []
        for _ in range(2):
            trained = await workers.call(TRAINING, where)
            found.append((trained, await workers.call(SCORING, where, priority=EVALUATOR)))
        with pytest.raises(ClusterTrouble):
            await workers.call(SCORING, fail, "bug")
        return [*found, (await workers.call(TRAINING, where), None)]

    first, second, after_trouble = played(address, rounds)
    assert first == second
    (trainer, *of_trainer), (evaluator, *of_evaluator) = first
    assert trainer != evaluator
    assert of_trainer == of_evaluator == ["0", False]
    assert after_trouble[0][0] != trainer  # what it held of the GPU may have been the trouble


def test_parts_of_a_gpu_run_side_by_side(address: str, tmp_path: Path):
    """So racing decides while what it scores trains on."""
    large, small = Shape("trainer", 0.5, 0.7), Shape("evaluator", 0, 0.3)

    async def race(workers: RayWorkers) -> tuple[Any, Any]:
        training = asyncio.create_task(workers.call(large, work, tmp_path, "it"))
        await until((tmp_path / "it.thread").exists)
        scored = [await workers.call(small, where, priority=EVALUATOR) for _ in range(2)]
        assert not training.done()
        (tmp_path / "it").touch()
        await training
        return scored[0], scored[1]

    first, second = played(address, race)
    assert first == second
    assert first[1:] == ("0", True)


def test_four_quarters_of_a_gpu_are_one(address: str, tmp_path: Path):
    quarter = Shape("trainer", 0.25, 0.25)

    async def five(workers: RayWorkers) -> None:
        names = [f"n{number}" for number in range(5)]
        calls = [asyncio.create_task(workers.call(quarter, work, tmp_path, name)) for name in names]
        await until(lambda: len([*tmp_path.glob("*.thread")]) == 4)
        await asyncio.sleep(0.5)
        assert len([*tmp_path.glob("*.thread")]) == 4
        (tmp_path / "all").touch()
        await asyncio.gather(*calls)

    played(address, five)
