"""One process on Ray that runs calls one at a time: what it answers, how it ends, and what is known of why."""

import asyncio
import os
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
)
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from cluster.environment import settle_in
from cluster.errors import TournamentError
from cluster.last_words import KILLED_FOR_MEMORY, Vitals, has_gone, how_it_ended, keep_note, note_exit, vitals
from cluster.on_ray import gpu_memory, lent_group
from cluster.on_ray.ray_private import logs_folder
from cluster.resources import Shape, Size
from cluster.workers import WorkerDied, failure

NODE_POLL_SECONDS = 5.0
NOTICED_SECONDS = 60.0
"""So long Ray may take to know whether a process died or its node: of a node it knows after some 15 s."""
ENDING_SECONDS = 10.0
"""So long a process that was killed may take to be gone, and its machine to say why one ended."""
_ENDED = (ActorDiedError, ActorUnschedulableError, OutOfMemoryError)
DEAD = (*_ENDED, ActorUnavailableError)
"""What Ray raises of a process that does not answer; the last also when only the connection was lost."""


@ray.remote(max_restarts=0, max_task_retries=0)
class _Actor:
    """One process that runs whatever function it is given, one at a time."""

    def __init__(self, environment: dict[str, str], gpus: float, coordinates: bool) -> None:
        settle_in(environment)
        if not (gpus or coordinates):
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # on a cluster that was joined Ray leaves it all of the machine's
        self.gpus = gpus
        self.note = logs_folder() / f"last-words-{os.getpid()}-{uuid.uuid4().hex[:8]}.txt"
        keep_note(self.note)

    def stand(self) -> tuple[str, Vitals]:
        return str(ray.get_runtime_context().get_node_id()), vitals(self.note)

    def rest(self) -> None:
        gpu_memory.rest()

    def call(
        self, group: PlacementGroup | None, nodes: list[str], function: Callable[..., Any], args: tuple[Any, ...]
    ) -> Any:
        lent_group.lend(group, nodes)
        gpu_memory.stay_within(self.gpus)
        try:
            return function(*args)
        except SystemExit as error:
            note_exit(self.note, error.code)
            raise


@dataclass(eq=False)
class Worker:
    """An actor, lent or idle, that stands in a bundle of `group` or, if it coordinates a gang, beside it."""

    shape: Shape
    group: PlacementGroup | None
    nodes: list[str]
    """Where the group's bundles are."""
    handle: Any
    node_id: str = ""
    vitals: Vitals | None = None
    dead: bool = False

    @classmethod
    def start(
        cls, shape: Shape, part: Size, group: PlacementGroup | None, nodes: list[str], environment: dict[str, str]
    ) -> "Worker":
        """Start an actor that takes `part` of the group. A coordinator stands beside the driver, whose node is not
        spot, or its first worker, where they share no disk."""
        held: dict[str, Any] = {"num_cpus": 0, "num_gpus": 0}
        if shape.gang:
            # Not soft: of 16 that started at once, Ray put 15 on other nodes, where a coordinator keeps a machine busy.
            where = _this_node() if shape.shares_disk else nodes[0]
            held["scheduling_strategy"] = NodeAffinitySchedulingStrategy(where, soft=False)
        elif group is not None:
            held = {"num_cpus": part.get("CPU", 0), "num_gpus": part.get("GPU", 0), "memory": part.get("memory")}
            held["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        name = (
            f"{shape.role}{'-gang' if shape.gang else ''}-{uuid.uuid4().hex[:8]}"  # for whoever reads Ray's dashboard
        )
        actor = _Actor.options(name=name, **held)  # type: ignore[attr-defined]
        return cls(shape, group, nodes, actor.remote(environment, 0.0 if shape.gang else shape.gpus, shape.gang))

    def may_coordinate(self, shape: Shape) -> bool:
        """Whether a gang's process that is free may be another gang's."""
        return (
            self.shape.gang
            and shape.gang
            and self.shape.role == shape.role
            and self.shape.shares_disk
            and shape.shares_disk
        )

    async def answer(self) -> None:
        """Wait until it has started, or find that a warm one is still there: raises one of DEAD if not."""
        self.node_id, self.vitals = await self.handle.stand.remote()

    async def rest(self) -> None:
        """Have an idle process give back what it keeps on its GPU."""
        await self.handle.rest.remote()

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)` in the process; errors as in `cluster.workers`. It goes on when this is cancelled."""
        lent = self.group if self.shape.gang else None
        named = self.handle.call.options(name=getattr(function, "__name__", "call"))
        call = asyncio.wrap_future(named.remote(lent, self.nodes, function, args).future())
        try:
            while not (await asyncio.wait({call}, timeout=NODE_POLL_SECONDS if self.shape.gang else None))[0]:
                if self._lost_nodes():
                    self.kill()
                    raise WorkerDied("a node under its gang died", node_lost=True)
            return call.result()
        except RayTaskError as error:
            if isinstance(error.cause, TournamentError):
                raise error.cause from error
            raise failure(function, error.cause or error) from error
        except DEAD as error:
            raise await self._death(error) from error
        finally:
            call.cancel()

    async def end(self) -> None:
        """End the process, and wait until it is gone."""
        if not self.dead:
            self.kill()
            if self.vitals is not None:
                await self._on_its_node(has_gone, self.vitals.pid, ENDING_SECONDS)

    def kill(self) -> None:
        """End the process now; it will not be lent again."""
        self.dead = True
        ray.kill(self.handle, no_restart=True)

    async def _death(self, error: RayError) -> WorkerDied:
        """What is known of how the process ended, where a call failed with one of DEAD."""
        if self.dead:
            return WorkerDied("its process was ended with all the others")
        ended: RayError | None = error if isinstance(error, _ENDED) else None
        answers = False
        with suppress(TimeoutError):
            async with asyncio.timeout(NOTICED_SECONDS):
                while not self._lost_nodes() and not answers:
                    try:
                        await self.handle.stand.remote()
                        answers = True
                    except _ENDED as later:
                        ended = later
                        break
                    except ActorUnavailableError:
                        await asyncio.sleep(1)
        self.kill()
        if lost := self._lost_nodes():
            return WorkerDied("its node died" if self.node_id in lost else "a node under its gang died", node_lost=True)
        if ended is None:
            return WorkerDied(f"the connection to its process was lost{'' if answers else ', and it does not answer'}")
        if (by_ray := _memory_monitor(ended)) is not None:
            return WorkerDied(by_ray, out_of_memory=True)
        words = await self._last_words()
        return WorkerDied(words, out_of_memory=words == KILLED_FOR_MEMORY)

    async def _last_words(self) -> str:
        words = await self._on_its_node(how_it_ended, self.vitals)
        return str(words) if words else "its process ended, and its node did not say why"

    async def _on_its_node(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of this machine's affairs on the process's machine; None where that does not answer."""
        if self.node_id == _this_node():
            return await asyncio.to_thread(function, *args)
        there = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(function)
        with suppress(RayError, TimeoutError):
            async with asyncio.timeout(2 * ENDING_SECONDS):
                return await task.remote(*args)
        return None

    def _lost_nodes(self) -> set[str]:
        """Those of its nodes that are gone."""
        return {self.node_id, *self.nodes} - {""} - {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _this_node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _memory_monitor(error: RayError) -> str | None:
    """In words, if it was Ray's memory monitor that ended the process.

    Ray's general text for a dead actor lists every possible cause, the kernel's OOM killer among them: only the
    monitor's own error means something.
    """
    if not isinstance(error, OutOfMemoryError):
        return None
    amounts = re.search(r"[\d.]+GB used / [\d.]+GB limit", str(error))
    return f"its process was killed by Ray's memory monitor: its node ran low on memory{_in_brackets(amounts)}"


def _in_brackets(found: re.Match[str] | None) -> str:
    return f" ({found[0]})" if found else ""
