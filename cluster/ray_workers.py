"""A pool of warm actors: each call gets a process of the shape it asks for, kept for the next of that shape.

A fresh process pays the import of torch and transformers again (seconds), so finished actors wait for more
work and are ended only when something else needs their place. Who is served next, and where, is decided in
`cluster.placement`; here is what Ray does for it.
"""

import asyncio
import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, ActorUnschedulableError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster import placement
from cluster.errors import ClusterTrouble, TournamentError
from cluster.machine import collect_garbage_rarely
from cluster.placement import Holder, Nodes, Ticket
from cluster.ray_private import remove_orphans
from cluster.resources import Shape, Size

__all__ = ["Pool", "Shape", "Worker", "WorkerDied"]

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""How often those who wait look again without being told: nodes come, and other people's work ends."""
NODE_POLL_SECONDS = 5.0
NOTICED_SECONDS = 60.0
START_ATTEMPTS = 3
"""How often a process is started before it is the cluster's trouble: its node may die just then."""
LOST_ROOM_SECONDS = 600.0
"""So long a lost node may take to come back before whoever needs it is told that the cluster cannot hold it."""
ORPHANING_SECONDS = 60.0
"""So long after a coordinator's end its own actors may take to end too."""
_DEAD = (ActorDiedError, ActorUnavailableError, ActorUnschedulableError)


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
        collect_garbage_rarely()

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def call(self, nodes: list[str], function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        placement.stand_on(nodes)
        return function(*args)


@dataclass(eq=False)
class Worker(Holder):
    """An actor on loan from the pool. `nodes` says where it stands, or each member of its gang."""

    handle: Any = None
    node_id: str = ""
    dead: bool = False

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)` in the actor's process. Our own errors come back as they were raised there.

        Raises WorkerDied when the process or its node ends under the call, or a node of its gang, and
        ClusterTrouble for any other error.
        """
        nodes = self.nodes if self.shape.gang else [self.node_id]
        call = asyncio.wrap_future(self.handle.call.remote(nodes, function, args).future())
        try:
            while not (await asyncio.wait({call}, timeout=NODE_POLL_SECONDS if self.shape.gang else None))[0]:
                if self._lost_nodes():
                    self.kill()
                    raise WorkerDied("a node under its gang died", node_lost=True)
            return call.result()
        except RayTaskError as error:
            if isinstance(error.cause, TournamentError):
                raise error.cause from error
            what = f"{type(error.cause).__name__}: {error.cause}".strip().splitlines()[0]
            raise ClusterTrouble(f"{function.__name__} failed in its worker: {what}") from error
        except _DEAD as error:
            await self._end_is_known()
            raise WorkerDied(_why(error), node_lost=bool(self._lost_nodes())) from error
        finally:
            call.cancel()

    async def _end_is_known(self) -> None:
        """Wait until Ray knows whether the process died or its node: of a node it knows after some 15 s."""
        with suppress(TimeoutError, ActorDiedError):
            async with asyncio.timeout(NOTICED_SECONDS):
                while not self._lost_nodes():
                    with suppress(ActorUnavailableError):
                        await self.handle.node.remote()
                        break  # only the connection was lost, and the call with it
                    await asyncio.sleep(1)
        self.kill()

    def _lost_nodes(self) -> set[str]:
        """Those of its nodes that are gone."""
        return {self.node_id, *self.nodes} - {""} - {node["NodeID"] for node in ray.nodes() if node["Alive"]}

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
        self._waiting: dict[Ticket, asyncio.Future[Worker]] = {}
        self._numbers = itertools.count()
        self._coordinator_died: float | None = None

    def refuse_impossible(self, shape: Shape, what: str) -> None:
        """ClusterTrouble when the cluster, empty, could not hold `shape`, saying what it asks and what there is."""
        refusal = placement.refusal(shape, _totals())
        if refusal is not None:
            raise ClusterTrouble(f"{what} {refusal}")

    @asynccontextmanager
    async def worker(self, shape: Shape, priority: int = 1) -> AsyncIterator[Worker]:
        """A worker of that shape, alone with it while the block lasts. Waits until there is place for one.

        Raises ClusterTrouble when its process does not start, or when a lost node leaves no place for it.
        """
        worker = await self._take(Ticket(priority, next(self._numbers), shape))
        try:
            yield worker
        finally:
            self._give_back(worker)

    async def _take(self, ticket: Ticket) -> Worker:
        """A worker that answers. One whose process or node died meanwhile is forgotten, and another asked for."""
        failed = 0
        while True:
            worker = await self._wait_for(ticket)
            is_new = not worker.node_id
            try:
                worker.node_id = await worker.handle.node.remote()
            except _DEAD as error:
                worker.kill()
                self._give_back(worker)
                failed += is_new
                if failed == START_ATTEMPTS:
                    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
                    raise ClusterTrouble(f"a {ticket.shape.role} process did not start: {first}") from error
            except BaseException:
                worker.kill()
                self._give_back(worker)
                raise
            else:
                return worker

    async def _wait_for(self, ticket: Ticket) -> Worker:
        """The worker that the ticket is served with, in its turn."""
        served = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = served
        try:
            self._serve()
            while not served.done():
                await asyncio.wait({served}, timeout=POLL_SECONDS)
                if ticket is next(iter(self._waiting), None):  # one of them looks, for all
                    self._serve()
            worker: Worker = served.result()
            return worker
        except BaseException:
            if served.done() and served.exception() is None:  # called off in the moment of being served
                served.result().kill()
                self._give_back(served.result())
            raise
        finally:
            self._waiting.pop(ticket, None)

    def _give_back(self, worker: Worker) -> None:
        self._busy.remove(worker)
        if not worker.dead:
            if worker.shape.gang:
                worker.nodes = []
            self._idle.append(worker)
        elif worker.shape.gang:
            self._coordinator_died = time.monotonic()
        self._serve()

    def _serve(self) -> None:
        """Serve everybody who can be, in turn."""
        if not self._waiting:
            return
        self._free_what_the_dead_hold()
        totals = _totals()
        self._idle = [worker for worker in self._idle if {worker.node_id, *worker.nodes} <= {*totals}]
        others = placement.in_others_use(totals, _available(), [*self._busy, *self._idle])
        while found := placement.next_served(self._waiting, totals, [*self._busy, *others], self._idle):
            ticket, nodes = found
            worker = self._warm(ticket.shape, nodes)
            for ended in placement.to_end(ticket.shape, nodes, totals, [*self._busy, *others], self._idle):
                assert isinstance(ended, Worker)
                self._idle.remove(ended)
                ended.kill()
            worker = worker or self._start(ticket.shape, nodes)
            self._busy.append(worker)
            self._waiting.pop(ticket).set_result(worker)
            placement.count_overtaking(ticket, self._waiting)
        self._refuse_homeless(totals)

    def _free_what_the_dead_hold(self) -> None:
        """A coordinator that was ended leaves reservations behind, its last ones when its own actors have ended."""
        if self._coordinator_died is not None:
            remove_orphans()
            if time.monotonic() - self._coordinator_died > ORPHANING_SECONDS:
                self._coordinator_died = None

    def _refuse_homeless(self, totals: Nodes) -> None:
        """Tell those for whom the cluster has become too small, when it stays so."""
        for ticket, served in list(self._waiting.items()):
            refusal = placement.refusal(ticket.shape, totals)
            if refusal is None:
                ticket.homeless_since = None
            elif ticket.homeless_since is None:
                ticket.homeless_since = time.monotonic()
            elif time.monotonic() - ticket.homeless_since > LOST_ROOM_SECONDS:
                del self._waiting[ticket]
                served.set_exception(ClusterTrouble(f"a {ticket.shape.role} {refusal}"))

    def _warm(self, shape: Shape, nodes: list[str]) -> Worker | None:
        """An idle worker for the shape on those nodes. Any coordinator will do: it holds nothing itself."""
        for worker in self._idle:
            same = worker.shape.gang and worker.shape.role == shape.role if shape.gang else worker.shape == shape
            if same and (shape.gang or worker.nodes == nodes):
                self._idle.remove(worker)
                return Worker(shape, nodes, worker.handle, worker.node_id)
        return None

    def _start(self, shape: Shape, nodes: list[str]) -> Worker:
        """Start an actor where it was placed. A coordinator stands beside the driver, whose node is not spot."""
        held: dict[str, Any] = {"num_cpus": 0, "num_gpus": 0}
        if shape.gang:
            here = ray.get_runtime_context().get_node_id()
            held["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=True)
        elif nodes:
            memory = None if shape.memory_gb is None else int(shape.memory_gb * 2**30)
            held = {"num_cpus": shape.cpus, "num_gpus": shape.gpus, "memory": memory}
            # Not soft: elsewhere it would take room that the books give to others. If the node dies before it
            # starts, it fails and is placed again.
            held["scheduling_strategy"] = NodeAffinitySchedulingStrategy(nodes[0], soft=False)
        actor = _Actor.options(**held)  # type: ignore[attr-defined]
        return Worker(shape, nodes, actor.remote(self._environment))

    def close(self) -> None:
        """End every process of the pool."""
        for worker in self._idle + self._busy:
            ray.kill(worker.handle)
        self._idle.clear()


def _totals() -> Nodes:
    """What the living nodes have."""
    return {node["NodeID"]: _counted(node["Resources"]) for node in ray.nodes() if node["Alive"]}


def _available() -> Nodes:
    """What Ray has to give on each node now, a moment old."""
    # Private, but there is no public call: ray.available_resources() adds all nodes up.
    from ray._private.state import available_resources_per_node

    return {node: _counted(amounts) for node, amounts in available_resources_per_node().items()}


def _counted(amounts: dict[str, float]) -> Size:
    return {name: amounts[name] for name in ("CPU", "GPU", "memory") if name in amounts}
