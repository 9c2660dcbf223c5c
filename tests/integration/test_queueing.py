"""More entries than the cluster holds, on two nodes of two pretended GPUs each, and what a lost node changes."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import ray_workers as pool_module
from cluster.connect import connected
from cluster.errors import ClusterTrouble
from cluster.placement import MAX_OVERTAKEN, any_member_selector, member_selectors, placed_on
from cluster.ray_workers import Pool, WorkerDied
from cluster.resources import Shape

ONE = Shape("trainer", 1, 1)
GANG_OF_FOUR, GANG_OF_THREE, GANG_OF_TWO = (Shape("trainer", 1, 1, workers=n, gang=True) for n in (4, 3, 2))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """The cluster, whose head holds no work, and its two nodes. A dead node is noticed in a second or two."""
    from ray.cluster_utils import Cluster

    noticing = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": noticing}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    workers = [cluster.add_node(num_cpus=2, num_gpus=2) for _ in range(2)]
    cluster.wait_for_nodes()
    yield cluster, workers
    cluster.shutdown()


def single(seconds: float) -> tuple[float, float, list[str]]:
    """When it ran and where."""
    began = time.time()
    time.sleep(seconds)
    return began, time.time(), placed_on()


def gang(seconds: float, selectors: list[dict[str, str]] | None = None) -> tuple[float, float, list[str]]:
    """What a gang does: places its own members where the pool put them, and gives the room back."""
    import ray
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

    selectors = selectors or member_selectors()
    group = placement_group([{"CPU": 1, "GPU": 1}] * len(selectors), bundle_label_selector=selectors)
    ray.get(group.ready())
    began = time.time()
    time.sleep(seconds)
    ended = time.time()
    stood = placement_group_table(group)["bundles_to_node_id"]
    remove_placement_group(group)
    return began, ended, [stood[index] for index in range(len(selectors))]


def search(seconds: float) -> tuple[float, float, list[str]]:
    """A gang whose members all ask alike, as the trials of a search do."""
    return gang(seconds, [any_member_selector()] * len(placed_on()))


def forever(started: Path) -> None:
    started.touch()
    time.sleep(3600)


def until(over: Path) -> tuple[float, float, list[str]]:
    """Runs until it is told that it is over."""
    began = time.time()
    while not over.exists():
        time.sleep(0.02)
    return began, time.time(), placed_on()


def test_a_gang_and_a_stream_of_small_entries(nodes: Any, tmp_path: Path):
    async def scenario() -> dict[str, tuple[float, float, list[str]]]:
        pool, results = Pool(), dict[str, tuple[float, float, list[str]]]()

        async def enter(name: str, shape: Shape, function: Any, argument: Any) -> None:
            async with pool.worker(shape) as worker:
                results[name] = await worker.call(function, argument)
                if function is gang:
                    assert results[name][2] == worker.nodes

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
            # Three of four GPUs for a search, and one beside it: both run.
            beside = enter_all(["beside"], ONE, until, tmp_path / "searched")
            await asyncio.gather(*enter_all(["search"], GANG_OF_THREE, search, 0.1))
            (tmp_path / "searched").touch()
            await asyncio.gather(*beside)
        finally:
            pool.close()
        return results

    cluster, _ = nodes
    with connected(cluster.address):
        results = asyncio.run(asyncio.wait_for(scenario(), 120))
        with pytest.raises(
            ClusterTrouble,
            match=r"it asks for 5 workers of 1 CPU, 1 GPU each, which this cluster can never hold: "
            r"it has 2 nodes of 2 CPU, 2 GPU; 1 node of 0 CPU, 0 GPU$",
        ):
            Pool().refuse_impossible(Shape("trainer", 1, 1, workers=5, gang=True), "it")
    began, ended, stood = results.pop("gang")
    assert [stood.count(node) for node in set(stood)] == [2, 2]
    for name, (low, high, _) in results.items():  # the gang had the four GPUs to itself
        assert high <= began if name.startswith(("before", "overtaking")) else low >= ended


def test_a_lost_node(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_module, "NODE_POLL_SECONDS", 0.5)
    monkeypatch.setattr(pool_module, "LOST_ROOM_SECONDS", 1.0)

    cluster, workers = nodes

    async def scenario() -> None:
        pool = Pool()

        async def nodes_of_one(seconds: float) -> list[str]:
            async with pool.worker(ONE) as worker:
                return (await worker.call(single, seconds))[2]

        async def run_until_lost(shape: Shape, name: str) -> None:
            """Take a node away under a call, and forget it."""
            async with pool.worker(shape) as worker:
                call = asyncio.create_task(worker.call(forever, tmp_path / name))
                while not (tmp_path / name).exists():
                    await asyncio.sleep(0.05)
                lost = next(node for node in workers if node.node_id in worker.nodes)
                workers.remove(lost)
                cluster.remove_node(lost, allow_graceful=False)
                with pytest.raises(WorkerDied) as died:
                    await call
                assert died.value.node_lost

        try:
            await asyncio.gather(*(nodes_of_one(0.5) for _ in range(4)))  # four warm workers, two on each node
            await run_until_lost(GANG_OF_TWO, "gang")
            places = await asyncio.gather(*(nodes_of_one(0.1) for _ in range(3)))
            assert places == [[workers[0].node_id]] * 3
            with pytest.raises(ClusterTrouble, match="trainer asks for 4 workers of 1 CPU, 1 GPU each, which"):
                async with pool.worker(GANG_OF_FOUR):
                    pass
            await run_until_lost(ONE, "one")
        finally:
            pool.close()

    with connected(cluster.address):
        asyncio.run(asyncio.wait_for(scenario(), 120))
