"""Workers on Ray: each call gets a process of the shape it asks for, kept for the next of that shape.

Ray places: what each call needs is a placement group, so that whoever waits is demand that an autoscaler sees. Ours is
the order (`cluster.on_ray.pool`) and the processes: a fresh one pays the import of torch and
transformers again (seconds), so finished ones wait for more work, and end when somebody else gets no place.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from cluster import placement
from cluster.errors import ClusterTrouble
from cluster.on_ray.fitness import unfit_nodes
from cluster.on_ray.nodes import living_nodes, possible_nodes, refusals
from cluster.on_ray.pool import Pool
from cluster.on_ray.ray_process import DEAD, Worker
from cluster.on_ray.rooms import Room
from cluster.placement import Ticket
from cluster.resources import ACCELERATOR_LABEL, Held, Shape
from cluster.text import plain
from cluster.workers import KEEPS_ITS_PROCESS, TRAINER, WorkerDied, lateness, nothing

T = TypeVar("T")

START_ATTEMPTS = 3
"""How often a process is started before it is the cluster's trouble: its node may die just then."""


class RayWorkers:
    """`cluster.workers.Workers` on the Ray cluster that this program is connected to.

    Starts and ends processes within the cluster's resources. `environment` is set in each. The nodes that live now are
    known to be fit; those that join later are asked when they are first used, with `proof` as `fitness.py` has it.
    """

    def __init__(self, environment: dict[str, str] | None = None, proof: Path | str | None = None) -> None:
        self._pool = Pool(environment or {})
        self._nodes = living_nodes()
        self._fit, self._proof = {*self._nodes}, proof
        self._numbers = itertools.count()

    @cached_property
    def has_gpus(self) -> bool:
        """Whether a node had any when this was first asked: one that is lost changes nobody's resources."""
        return any(node.size.get("GPU") for node in possible_nodes().values())

    def refuse_impossible(self, shape: Shape, what: str) -> None:
        """As the protocol says: ClusterTrouble when the cluster, empty, could not hold `shape`."""
        if (words := refusals([shape]).get(shape)) is not None:
            raise ClusterTrouble(f"{what} {words}")

    def room(self, shape: Shape) -> int:
        """As the protocol says, of the nodes that live and those that may come."""
        return placement.cluster_room(shape, possible_nodes())

    async def call(
        self,
        shape: Shape,
        function: Callable[..., T],
        *args: Any,
        priority: int = TRAINER,
        deadline_seconds: float | None = None,
        placed: Callable[[Held], None] = nothing,
    ) -> T:
        """As the protocol says."""
        room = await self._take(Ticket(priority, next(self._numbers), shape))
        assert room.worker is not None
        lost = False
        try:
            placed(shape.held(self._kinds(room.nodes)))
            return await self._run(room.worker, deadline_seconds, function, *args)
        except ClusterTrouble as trouble:
            lost = isinstance(trouble, WorkerDied) and trouble.node_lost
            room.end_others()
            raise
        finally:
            self._pool.leave(room, lost)

    async def _run(self, worker: Worker, deadline_seconds: float | None, function: Callable[..., T], *args: Any) -> T:
        """The call itself. Its process is ended unless what it was left in is known."""
        try:
            async with asyncio.timeout(deadline_seconds) as deadline:
                result: T = await worker.call(function, *args)
            return result
        except KEEPS_ITS_PROCESS:
            raise
        except BaseException as error:
            await worker.end()
            if isinstance(error, TimeoutError) and deadline.expired() and deadline_seconds is not None:
                raise lateness(function, deadline_seconds) from error
            raise

    async def _take(self, ticket: Ticket) -> Room:
        """A room whose process answers. One whose process or node died meanwhile is given up, and another asked for."""
        failed = 0
        while True:
            room = await self._pool.room_for(ticket)
            was_warm = room.is_warm_for(ticket.shape)
            try:
                await self._require_fit(room.nodes)
                await self._pool.enter(room, ticket.shape).answer()
                await room.rest_others()
            except DEAD as error:
                if room.worker is not None:  # or it would be lent again, as a coordinator
                    room.worker.kill()
                self._pool.leave(room, lost=True)
                failed += not was_warm
                if failed == START_ATTEMPTS:
                    why = plain(error) or type(error).__name__
                    raise ClusterTrouble(f"a {ticket.shape.role} process did not start: {why}") from error
            except BaseException:
                self._pool.leave(room, lost=True)
                raise
            else:
                return room

    async def _require_fit(self, nodes: Iterable[str]) -> None:
        """ClusterTrouble where one of the nodes has joined since and cannot do our work."""
        if newcomers := {*nodes} - self._fit:
            if unfit := await asyncio.to_thread(unfit_nodes, self._proof, newcomers):
                raise ClusterTrouble("; ".join(unfit))
            self._fit |= newcomers

    def _kinds(self, nodes: Iterable[str]) -> list[str]:
        """Of the GPUs of each of these nodes; empty where it does not say."""
        if {*nodes} - self._nodes.keys():
            self._nodes |= living_nodes()
        return [self._nodes[node].labels.get(ACCELERATOR_LABEL, "") if node in self._nodes else "" for node in nodes]

    def close(self) -> None:
        """End every process, and every call that runs in one."""
        self._pool.close()
