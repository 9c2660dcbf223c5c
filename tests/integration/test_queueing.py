"""More entries than the cluster holds, on two nodes of two pretended GPUs each, and what a lost node changes."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterTrouble
from cluster.on_ray import pool, ray_process
from cluster.on_ray.connect import connected
from cluster.on_ray.lent_group import lent, placed_on
from cluster.on_ray.ray_workers import RayWorkers
from cluster.placement import MAX_OVERTAKEN
from cluster.resources import Shape
from cluster.workers import WorkerDied
from tests.ray_start import in_time
from tests.worker_contract import is_working, log, work

ONE = Shape("trainer", 1, 1)
GANG_OF_FOUR, GANG_OF_THREE, GANG_OF_TWO = (Shape("trainer", 1, 1, workers=n, gang=True) for n in (4, 3, 2))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """The cluster, whose head holds no work, and its two nodes. A dead node is noticed in a second or two."""
    from ray.cluster_utils import Cluster

    noticing = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": noticing}
    cluster = in_time(lambda: Cluster(initialize_head=True, head_node_args=head))
    two = {"num_cpus": 2, "num_gpus": 2}
    workers = [in_time(partial(cluster.add_node, **two, labels={"kind": kind})) for kind in ("old", "new")]
    cluster.wait_for_nodes()
    yield cluster, workers
    cluster.shutdown()


def single(seconds: float) -> tuple[float, float, list[str]]:
    """When it ran and where."""
    began = time.time()
    time.sleep(seconds)
    return began, time.time(), placed_on()


def gang(seconds: float) -> tuple[float, float, list[str]]:
    """What a gang does: has a member in each bundle of what is held for it, with what the bundle holds."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = lent()

    @ray.remote(num_cpus=1, num_gpus=1)
    def member() -> str:
        time.sleep(seconds)
        return str(ray.get_runtime_context().get_node_id())

    began = time.time()
    strategies = [PlacementGroupSchedulingStrategy(group, index) for index in range(group.bundle_count)]
    stood = ray.get([member.options(scheduling_strategy=strategy).remote() for strategy in strategies])
    assert stood == placed_on()
    return began, time.time(), stood


def forever(started: Path) -> None:
    """Runs until its node is gone, which it names."""
    started.with_suffix(".tmp").write_text(" ".join(placed_on()))
    started.with_suffix(".tmp").rename(started)
    time.sleep(3600)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def until(over: Path) -> tuple[float, float, list[str]]:
    """Runs until it is told that it is over."""
    began = time.time()
    while not over.exists():
        time.sleep(0.02)
    return began, time.time(), placed_on()


def test_a_gang_and_a_stream_of_small_entries(nodes: Any, tmp_path: Path):
    async def scenario() -> dict[str, tuple[float, float, list[str]]]:
        workers, results = RayWorkers(), dict[str, tuple[float, float, list[str]]]()

        async def enter(name: str, shape: Shape, function: Any, argument: Any) -> None:
            results[name] = await workers.call(shape, function, argument)

        def enter_all(names: list[str], shape: Shape, function: Any, argument: Any) -> list[asyncio.Task[None]]:
            return [asyncio.create_task(enter(name, shape, function, argument)) for name in names]

        try:
            before = enter_all(["before"], ONE, until, tmp_path / "over")  # keeps one GPU of the four
            waiting = enter_all(["gang"], GANG_OF_FOUR, gang, 0.3)
            overtaking = enter_all([f"overtaking-{i}" for i in range(MAX_OVERTAKEN)], ONE, single, 0.1)
            after = enter_all([f"after-{i}" for i in range(4)], ONE, single, 0.1)
            await asyncio.gather(*overtaking)
            await asyncio.sleep(1)
            assert not any(task.done() for task in (*before, *waiting, *after))
            (tmp_path / "over").touch()
            await asyncio.gather(*before, *waiting, *after)
            # Three of four GPUs for a gang, and one beside it: both run.
            beside = enter_all(["beside"], ONE, until, tmp_path / "three")
            await asyncio.gather(*enter_all(["three"], GANG_OF_THREE, gang, 0.1))
            (tmp_path / "three").touch()
            await asyncio.gather(*beside)
        finally:
            workers.close()
        return results

    cluster, _ = nodes
    with connected(cluster.address):
        results = asyncio.run(asyncio.wait_for(scenario(), 120))
        with pytest.raises(
            ClusterTrouble,
            match=r"it asks for 5 workers of 1 CPU, 1 GPU each, which this cluster can never hold: "
            r"it has 2 nodes of 2 CPU, 2 GPU; 1 node of 0 CPU, 0 GPU$",
        ):
            RayWorkers().refuse_impossible(Shape("trainer", 1, 1, workers=5, gang=True), "it")
    began, ended, stood = results.pop("gang")
    assert [stood.count(node) for node in set(stood)] == [2, 2]
    for name, (low, high, _) in results.items():  # the gang had the four GPUs to itself
        assert high <= began if name.startswith(("before", "overtaking")) else low >= ended


def test_on_another_node_too_a_process_is_gone_when_its_call_is_and_says_how_it_died(nodes: Any, tmp_path: Path):
    async def scenario() -> None:
        workers = RayWorkers()
        assert workers.has_gpus
        try:
            with pytest.raises(WorkerDied, match=r"^its process died of SIGSEGV \(segmentation fault\)$"):
                await workers.call(ONE, crash)
            call = asyncio.create_task(workers.call(ONE, work, tmp_path, "it"))
            while not log(tmp_path):
                await asyncio.sleep(0.05)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            assert not is_working(tmp_path, "it")
        finally:
            workers.close()

    with connected(nodes[0].address):
        asyncio.run(asyncio.wait_for(scenario(), 120))


def test_whoever_asks_for_a_kind_of_node_stands_there(nodes: Any):
    async def scenario() -> list[tuple[float, float, list[str]]]:
        workers = RayWorkers()
        try:
            shapes = [replace(ONE, labels=(("kind", kind),)) for kind in ("new", "in(old,none)", "!new", "new")]
            return await asyncio.gather(*(workers.call(shape, single, 0.1) for shape in shapes))
        finally:
            workers.close()

    cluster, (old, new) = nodes
    with connected(cluster.address):
        stood = [nodes[0] for _, _, nodes in asyncio.run(asyncio.wait_for(scenario(), 120))]
        with pytest.raises(ClusterTrouble, match="on nodes with kind=newer, which this cluster can never hold"):
            RayWorkers().refuse_impossible(replace(ONE, labels=(("kind", "newer"),)), "it")
    assert stood == [new.node_id, old.node_id, old.node_id, new.node_id]


def test_a_lost_node(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_process, "NODE_POLL_SECONDS", 0.5)
    monkeypatch.setattr(pool, "LOST_ROOM_SECONDS", 1.0)

    cluster, machines = nodes

    async def scenario() -> None:
        workers = RayWorkers()

        async def nodes_of_one(seconds: float) -> list[str]:
            return (await workers.call(ONE, single, seconds))[2]

        async def run_until_lost(shape: Shape, name: str, words: str) -> None:
            """Take a node away under a call, and forget it."""
            call = asyncio.create_task(workers.call(shape, forever, tmp_path / name))
            while not (tmp_path / name).exists():
                await asyncio.sleep(0.05)
            stood = (tmp_path / name).read_text().split()
            lost = next(node for node in machines if node.node_id in stood)
            machines.remove(lost)
            cluster.remove_node(lost, allow_graceful=False)
            with pytest.raises(WorkerDied, match=words) as died:
                await call
            assert died.value.node_lost

        try:
            await asyncio.gather(*(nodes_of_one(0.5) for _ in range(4)))  # four warm processes, two on each node
            await run_until_lost(GANG_OF_TWO, "gang", "^(a node under its gang|its node) died$")
            places = await asyncio.gather(*(nodes_of_one(0.1) for _ in range(3)))
            assert places == [[machines[0].node_id]] * 3
            with pytest.raises(ClusterTrouble, match="trainer asks for 4 workers of 1 CPU, 1 GPU each, which"):
                await workers.call(GANG_OF_FOUR, gang, 0.1)
            await run_until_lost(ONE, "one", "^its node died$")
        finally:
            workers.close()

    with connected(cluster.address):
        asyncio.run(asyncio.wait_for(scenario(), 120))
