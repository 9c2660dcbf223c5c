"""Workers on Ray: each call gets a process of the shape it asks for, kept for the next of that shape.

A fresh process pays the import of torch and transformers again (seconds), so finished actors wait for more
work and are ended only when something else needs their place. Who is served next, and where, is decided in
`cluster.placement`; here is what Ray does for it.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import ray

from cluster import placement
from cluster.errors import ClusterTrouble
from cluster.fitness import unfit_nodes
from cluster.placement import Nodes, Ticket
from cluster.ray_private import available_by_node, remove_orphans
from cluster.ray_process import DEAD, Worker
from cluster.resources import Shape, Size
from cluster.text import plain
from cluster.workers import KEEPS_ITS_PROCESS, TRAINER, lateness, nothing

T = TypeVar("T")

POLL_SECONDS = 0.5
"""How often those who wait look again without being told: nodes come, and other people's work ends."""
START_ATTEMPTS = 3
"""How often a process is started before it is the cluster's trouble: its node may die just then."""
LOST_ROOM_SECONDS = 600.0
"""So long a lost node may take to come back before whoever needs it is told that the cluster cannot hold it."""
ORPHANING_SECONDS = 60.0
"""So long after a coordinator's end its own actors may take to end too."""


class RayWorkers:
    """`cluster.workers.Workers` on the Ray cluster that this program is connected to.

    Starts and ends processes within the cluster's resources. `environment` is set in each. The nodes that live now are
    known to be fit; those that join later are asked when they are first used, with `proof` as `cluster.fitness` has it.
    """

    def __init__(self, environment: dict[str, str] | None = None, proof: Path | None = None) -> None:
        self._environment = environment or {}
        self._fit, self._proof = set(living_nodes()), proof
        self._idle: list[Worker] = []
        self._busy: list[Worker] = []
        self._waiting: dict[Ticket, asyncio.Future[Worker]] = {}
        self._numbers = itertools.count()
        self._coordinator_died: float | None = None

    @cached_property
    def has_gpus(self) -> bool:
        """Whether a node had any when this was first asked: one that is lost changes nobody's resources."""
        return any(node.get("GPU") for node in living_nodes().values())

    def refuse_impossible(self, shape: Shape, what: str) -> None:
        """As the protocol says: ClusterTrouble when the cluster, empty, could not hold `shape`."""
        refusal = placement.refusal(shape, living_nodes())
        if refusal is not None:
            raise ClusterTrouble(f"{what} {refusal}")

    def room(self, shape: Shape) -> int:
        """As the protocol says, of the nodes that live."""
        return placement.cluster_room(shape.size, living_nodes())

    async def call(
        self,
        shape: Shape,
        function: Callable[..., T],
        *args: Any,
        priority: int = TRAINER,
        deadline_seconds: float | None = None,
        placed: Callable[[], None] = nothing,
    ) -> T:
        """As the protocol says."""
        worker = await self._take(Ticket(priority, next(self._numbers), shape))
        try:
            placed()
            return await self._run(worker, deadline_seconds, function, *args)
        finally:
            self._give_back(worker)

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

    async def _take(self, ticket: Ticket) -> Worker:
        """A worker that answers. One whose process or node died meanwhile is forgotten, and another asked for."""
        failed = 0
        while True:
            worker = await self._wait_for(ticket)
            is_new = not worker.node_id
            try:
                await self._require_fit(worker.nodes)
                await worker.answer()
            except DEAD as error:
                worker.kill()
                self._give_back(worker)
                failed += is_new
                if failed == START_ATTEMPTS:
                    why = plain(error) or type(error).__name__
                    raise ClusterTrouble(f"a {ticket.shape.role} process did not start: {why}") from error
            except BaseException:
                worker.kill()
                self._give_back(worker)
                raise
            else:
                return worker

    async def _require_fit(self, nodes: Iterable[str]) -> None:
        """ClusterTrouble where one of the nodes has joined since and cannot do our work."""
        if newcomers := {*nodes} - self._fit:
            unfit = await asyncio.to_thread(unfit_nodes, self._proof, newcomers)
            if unfit:
                raise ClusterTrouble("; ".join(unfit))
            self._fit |= newcomers

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
        totals = living_nodes()
        self._idle = [worker for worker in self._idle if {worker.node_id, *worker.nodes} <= {*totals}]
        others = placement.in_others_use(totals, _available(), [*self._busy, *self._idle])
        while found := placement.next_served(self._waiting, totals, [*self._busy, *others], self._idle):
            ticket, nodes = found
            worker = self._warm(ticket.shape, nodes)
            for ended in placement.to_end(ticket.shape, nodes, totals, [*self._busy, *others], self._idle):
                assert isinstance(ended, Worker)
                self._idle.remove(ended)
                ended.kill()
            worker = worker or Worker.start(ticket.shape, nodes, self._environment)
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
                return Worker(shape, nodes, worker.handle, worker.node_id, worker.vitals)
        return None

    def close(self) -> None:
        """End every process, and every call that runs in one."""
        for served in self._waiting.values():
            served.set_exception(ClusterTrouble("was not begun: the workers were closed"))
        self._waiting.clear()
        for worker in self._idle + self._busy:
            worker.kill()
        self._idle.clear()


def living_nodes() -> Nodes:
    """What the living nodes have."""
    return {node["NodeID"]: _counted(node["Resources"]) for node in ray.nodes() if node["Alive"]}


def _available() -> Nodes:
    return {node: _counted(amounts) for node, amounts in available_by_node().items()}


def _counted(amounts: dict[str, float]) -> Size:
    return {name: amounts[name] for name in ("CPU", "GPU", "memory") if name in amounts}
