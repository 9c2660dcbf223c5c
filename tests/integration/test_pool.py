"""The pool of warm actors: processes are kept, ended when another shape needs their place, and errors come back."""

import asyncio
import os
import signal
import time

import pytest

from cluster.connect import connected
from cluster.errors import ClusterTrouble, Forfeit, UserError
from cluster.ray_workers import Pool, WorkerDied
from cluster.resources import Shape

SMALL, WHOLE = Shape("trainer", 1, 0), Shape("whole", 2, 0)


def pid() -> int:
    return os.getpid()


def nap() -> tuple[float, float]:
    began = time.time()
    time.sleep(0.5)
    return began, time.time()


def fail(kind: str) -> None:
    if kind == "forfeit":
        raise Forfeit("in words")
    if kind == "bug":
        raise RuntimeError("a bug\nover two lines")
    os.kill(os.getpid(), signal.SIGKILL)


async def one(pool: Pool, shape: Shape, function, *args, priority: int = 1):  # type: ignore[no-untyped-def]
    async with pool.worker(shape, priority) as worker:
        return await worker.call(function, *args)


def test_the_pool(ray_address: str):
    async def scenario() -> None:
        pool = Pool({"POOL_TEST": "1"})
        try:
            first = await one(pool, SMALL, pid)
            assert await one(pool, SMALL, pid) == first  # warm

            spans = await asyncio.gather(*(one(pool, SMALL, nap) for _ in range(4)))
            for moment in (span[0] + 0.01 for span in spans):
                assert sum(low <= moment < high for low, high in spans) <= 2  # two CPUs

            # A shape that needs both CPUs ends the idle small ones, and is not starved by small ones behind it.
            order: list[str] = []

            async def noted(name: str, shape: Shape) -> None:
                await one(pool, shape, nap)
                order.append(name)

            await asyncio.gather(noted("whole", WHOLE), noted("small", SMALL))
            assert order == ["whole", "small"]

            with pytest.raises(Forfeit, match="in words"):
                await one(pool, SMALL, fail, "forfeit")
            with pytest.raises(ClusterTrouble, match=r"fail failed in its worker: RuntimeError: a bug$"):
                await one(pool, SMALL, fail, "bug")
            before = await one(pool, SMALL, pid)
            with pytest.raises(WorkerDied) as died:
                await one(pool, SMALL, fail, "kill")
            assert not died.value.node_lost
            assert await one(pool, SMALL, pid) != before  # a dead process is not lent again
            with pytest.raises(
                ClusterTrouble, match="asks for 3 CPU, which this cluster can never hold: it has 1 node of 2 CPU"
            ):
                pool.refuse_impossible(Shape("trainer", 3, 0), "it")
        finally:
            pool.close()

    with connected(ray_address):
        asyncio.run(scenario())


def test_what_is_more_urgent_goes_first(ray_address: str):
    async def scenario() -> list[str]:
        pool, order = Pool(), list[str]()

        async def noted(name: str, priority: int) -> None:
            await one(pool, WHOLE, nap, priority=priority)
            order.append(name)

        try:
            await asyncio.gather(noted("running", 1), noted("training", 1), noted("scoring", 0))
        finally:
            pool.close()
        return order

    with connected(ray_address):
        order = asyncio.run(scenario())
    assert order.index("scoring") < order.index("training")


def test_who_is_connected_stays_so_and_joins_nothing_else(ray_address: str):
    import ray

    with connected(ray_address):
        with connected(ray_address) as resources, connected(None):
            assert resources["CPU"] == 2
        assert ray.is_initialized()
        with pytest.raises(UserError, match=rf"connected to {ray_address} already"), connected("127.0.0.1:1"):
            pass
    assert not ray.is_initialized()
