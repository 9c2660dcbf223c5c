"""A pool of warm actors: each call gets a process of the shape it asks for, kept for the next of that shape.

A fresh process pays the import of torch and transformers again (seconds), so finished actors wait for more
work and are ended only when something else needs their place. Those who wait are served in order, lower
`priority` numbers first.
"""

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from cluster.errors import ClusterTrouble, TournamentError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shape:
    """What an entry holds. `role` keeps trainers and evaluators in processes of their own.

    With `gang`, the actor itself holds nothing: it coordinates `workers` processes of these resources each,
    which it starts itself on what is reserved for them.
    """

    role: str
    cpus: float
    gpus: float
    memory_gb: float | None = None
    workers: int = 1
    gang: bool = False

    @property
    def resources(self) -> dict[str, float]:
        """Of one worker, by Ray's names."""
        memory = {} if self.memory_gb is None else {"memory": self.memory_gb * 2**30}
        return {"CPU": self.cpus, "GPU": self.gpus, **memory}


class WorkerDied(Exception):
    """The process that ran a call ended under it. `node_lost` says that its whole machine did."""

    def __init__(self, message: str, node_lost: bool) -> None:
        super().__init__(message)
        self.node_lost = node_lost


@ray.remote(max_restarts=0, max_task_retries=0)
class _Actor:
    """One process that runs whatever function it is given, one at a time."""

    def __init__(self, environment: dict[str, str]) -> None:
        os.environ.update(environment)

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return function(*args)


@dataclass(eq=False)
class Worker:
    """An actor on loan from the pool."""

    shape: Shape
    handle: Any
    node_id: str = ""
    dead: bool = field(default=False)

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)` in the actor's process. Our own errors come back as they were raised there.

        Raises WorkerDied when the process or its node ends under the call, ClusterTrouble for any other error.
        """
        try:
            return await self.handle.call.remote(function, args)
        except RayTaskError as error:
            if isinstance(error.cause, TournamentError):
                raise error.cause from error
            what = f"{type(error.cause).__name__}: {error.cause}".strip().splitlines()[0]
            raise ClusterTrouble(f"{function.__name__} failed in its worker: {what}") from error
        except (ActorDiedError, ActorUnavailableError) as error:
            self.dead = True
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            raise WorkerDied(_why(error), node_lost=bool(self.node_id) and self.node_id not in alive) from error

    def kill(self) -> None:
        """End the process now; the pool will not lend it again."""
        self.dead = True
        ray.kill(self.handle, no_restart=True)


def _why(error: Exception) -> str:
    # Ray's general text for a dead actor lists every possible cause, the kernel's OOM killer among them: only
    # the words of its own memory monitor mean something.
    if "running low on memory" in str(error):
        return "was killed for running out of memory"
    return "its process died (often that is the kernel ending it for want of memory)"


class Pool:
    """Lends workers, and starts and ends them within the cluster's resources."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self._environment = environment or {}
        self._idle: list[Worker] = []
        self._busy: list[Worker] = []
        self._waiting: list[tuple[int, int, Shape]] = []
        self._tickets = itertools.count()
        self._changed = asyncio.Condition()

    def refuse_impossible(self, shape: Shape, what: str) -> None:
        """ClusterTrouble when no node of the cluster could ever hold `shape`, saying what there is."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needed = {name: amount for name, amount in shape.resources.items() if amount}
        if not any(all(node.get(name, 0) >= amount for name, amount in needed.items()) for node in nodes):
            asked = ", ".join(f"{amount:g} {name}" for name, amount in needed.items())
            there = "; ".join(", ".join(f"{node.get(name, 0):g} {name}" for name in needed) for node in nodes)
            raise ClusterTrouble(f"{what} asks for {asked}, which no node can ever hold: there is {there}")

    @asynccontextmanager
    async def worker(self, shape: Shape, priority: int = 1) -> AsyncIterator[Worker]:
        """A worker of that shape, alone with it while the block lasts. Waits until there is place for one."""
        worker = await self._take(shape, priority)
        try:
            yield worker
        finally:
            async with self._changed:
                self._busy.remove(worker)
                if not worker.dead:
                    self._idle.append(worker)
                self._changed.notify_all()

    async def _take(self, shape: Shape, priority: int) -> Worker:
        ticket = (priority, next(self._tickets), shape)
        self._waiting.append(ticket)
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._is_next(ticket))
                worker = self._warm(shape) or self._start(shape)
                self._waiting.remove(ticket)
                self._busy.append(worker)
                self._changed.notify_all()
        except BaseException:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            raise
        if not worker.node_id:
            try:
                worker.node_id = await worker.handle.node.remote()
            except (ActorDiedError, ActorUnavailableError) as error:
                async with self._changed:
                    self._busy.remove(worker)
                    self._changed.notify_all()
                first = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise ClusterTrouble(f"a {shape.role} process did not start: {first}") from error
        return worker

    def _is_next(self, ticket: tuple[int, int, Shape]) -> bool:
        """Whether `ticket` can be served now and nobody before it could be."""
        for other in sorted(self._waiting, key=lambda t: t[:2]):
            if self._can_serve(other[2]):
                return other == ticket
        return False

    def _can_serve(self, shape: Shape) -> bool:
        return any(worker.shape == shape for worker in self._idle) or self._fits(shape, self._busy)

    @staticmethod
    def _fits(shape: Shape, holders: list[Worker]) -> bool:
        total = ray.cluster_resources()
        for name, amount in shape.resources.items():
            held = sum(worker.shape.workers * worker.shape.resources.get(name, 0.0) for worker in holders)
            if amount and held + shape.workers * amount > total.get(name, 0.0) + 1e-9:
                return False
        return True

    def _warm(self, shape: Shape) -> Worker | None:
        for worker in self._idle:
            if worker.shape == shape:
                self._idle.remove(worker)
                return worker
        return None

    def _start(self, shape: Shape) -> Worker:
        """Start an actor, ending idle ones of other shapes, longest idle first, while it does not fit."""
        while self._idle and not self._fits(shape, self._busy + self._idle):
            ray.kill(self._idle.pop(0).handle)
        memory = None if shape.memory_gb is None else int(shape.memory_gb * 2**30)
        held = (0, 0, None) if shape.gang else (shape.cpus, shape.gpus, memory)
        actor = _Actor.options(num_cpus=held[0], num_gpus=held[1], memory=held[2])  # type: ignore[attr-defined]
        return Worker(shape, actor.remote(self._environment))

    def close(self) -> None:
        """End every process of the pool."""
        for worker in self._idle + self._busy:
            ray.kill(worker.handle)
        self._idle.clear()
