"""Rooms: what Ray holds for one call at a time, and whoever works there.

A room is a placement group of ours, asked of Ray and held until somebody else needs its place. Whoever waits for one is
demand that Ray's autoscaler sees. On one GPU, or a part of one, a trainer and an evaluator share a room, and neither
ends the other's process: while one works, the other stays warm and has given back the GPU's memory.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from cluster.on_ray.ray_process import Worker
from cluster.resources import Shape, Size

ROLES_IN_A_ROOM = 2
"""Of those that share a GPU. To Ray each of their processes holds half of it: so both are shown the same one."""

REST_SECONDS = 30.0
"""So long an idle process may take to give back what it keeps; then it is ended."""


@dataclass(eq=False)
class Room:
    """Asked for, idle or lent. Its processes stay for the next call of their shape."""

    shape: Shape
    """Of whoever it was asked for."""
    group: PlacementGroup | None
    """None of what asks for nothing."""
    nodes: list[str] = field(default_factory=list)
    """Where each of its bundles is, once it is placed."""
    workers: list[Worker] = field(default_factory=list)
    """Its processes, each of another role; who works, or did last, comes last."""
    since: float = field(default_factory=time.monotonic)
    """When it was asked for, or last left (time.monotonic)."""

    @classmethod
    def ask(cls, shape: Shape) -> "Room":
        """Ask Ray for room for `shape`: all of a gang's or none, on few nodes."""
        if not shape.size:
            return cls(shape, None)
        labels = [dict(shape.labels)] * shape.workers if shape.labels else None
        strategy = "STRICT_PACK" if shape.one_node else "PACK"
        return cls(shape, placement_group([shape.size] * shape.workers, strategy, bundle_label_selector=labels))

    @property
    def id(self) -> str:
        """Ray's id of its group; empty without one."""
        return str(self.group.id.hex()) if self.group is not None else ""

    @property
    def worker(self) -> Worker | None:
        """Who works there, or did last."""
        return self.workers[-1] if self.workers else None

    @property
    def is_shared(self) -> bool:
        """Whether processes of several roles may stand in it: of more than one GPU Ray gives no halves."""
        return 0 < self.shape.gpus <= 1 and not self.shape.gang

    def fits(self, shape: Shape) -> bool:
        """Whether a call of `shape` may use it: it asks for just that, or for the same GPU and no more of the rest."""
        if self.shape.need == shape.need:
            return True
        ours, theirs = self.shape, shape
        return (
            self.is_shared
            and (ours.gpus, ours.workers, ours.gang) == (theirs.gpus, theirs.workers, theirs.gang)
            and theirs.cpus <= ours.cpus
            and (theirs.memory_gb or 0) <= (ours.memory_gb or 0)
            and {*theirs.labels} <= {*ours.labels}
        )

    def is_warm_for(self, shape: Shape) -> bool:
        """Whether one of its processes may run a call of `shape`."""
        return any(worker.shape == shape for worker in self.workers)

    def enter(self, shape: Shape, environment: dict[str, str]) -> Worker:
        """Its process for `shape`, warm or started now; those that cannot stay beside it are ended."""
        found = next((worker for worker in self.workers if worker.shape == shape), None)
        others = [worker for worker in self.workers if worker is not found]
        if found is None:
            stay = [worker for worker in others if self.is_shared and worker.shape.role != shape.role]
            stay = stay[-(ROLES_IN_A_ROOM - 1) :]
            _end([worker for worker in others if worker not in stay])
            others, found = stay, Worker.start(shape, self._part(shape, stay), self.group, self.nodes, environment)
        self.workers = [*others, found]
        return found

    def _part(self, shape: Shape, others: Sequence[Worker]) -> Size:
        """What of the room a process for `shape` takes in Ray's books, beside `others`."""
        if not self.is_shared:
            return shape.size
        cpus = min(shape.cpus, max(0.0, self.shape.cpus - sum(worker.shape.cpus for worker in others)))
        return {"CPU": cpus, "GPU": shape.gpus / ROLES_IN_A_ROOM}

    async def rest_others(self) -> None:
        """Have the processes beside the one that is to work give back what they keep."""
        for worker in self.workers[:-1]:
            try:
                async with asyncio.timeout(REST_SECONDS):
                    await worker.rest()
            except (RayError, TimeoutError):
                worker.kill()
                self.workers.remove(worker)

    def end_others(self) -> None:
        """End them: what they hold may be what the one that worked has lacked."""
        _end(self.workers[:-1])
        self.workers = self.workers[-1:]

    def give_up(self) -> None:
        """End its processes, give its place back to Ray, and end with it whatever else runs there."""
        _end(self.workers)
        if self.group is not None:
            remove_placement_group(self.group)


def _end(workers: Sequence[Worker]) -> None:
    for worker in workers:
        if not worker.dead:
            worker.kill()


def placed(rooms: list[Room]) -> list[tuple[Room, list[str]]]:
    """Those of `rooms`, which were asked for, that Ray has placed, and the node of each bundle."""
    found = []
    for room in rooms:
        table = placement_group_table(room.group) if room.group is not None else {}
        if table.get("state") == "CREATED":
            nodes = table["bundles_to_node_id"]
            found.append((room, [nodes[index] for index in sorted(nodes)]))
    return found
