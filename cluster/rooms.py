"""Rooms: what Ray holds for one call at a time, and whoever works there.

A room is a placement group of ours, asked of Ray and held until somebody else needs its place. Whoever waits for one is
demand that Ray's autoscaler sees.
"""

import time
from dataclasses import dataclass, field

from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from cluster.ray_process import Worker
from cluster.resources import Shape


@dataclass(eq=False)
class Room:
    """Asked for, idle or lent. Its process stays for the next call of its shape."""

    shape: Shape
    """Of its process, or of whoever it was asked for."""
    group: PlacementGroup | None
    """None of what asks for nothing."""
    nodes: list[str] = field(default_factory=list)
    """Where each of its bundles is, once it is placed."""
    worker: Worker | None = None
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

    def fits(self, shape: Shape) -> bool:
        """Whether a call of `shape` may use it."""
        return self.shape.need == shape.need

    def is_warm_for(self, shape: Shape) -> bool:
        """Whether its process may run a call of `shape`."""
        return self.worker is not None and self.shape == shape

    def enter(self, shape: Shape, environment: dict[str, str]) -> Worker:
        """Its process, warm or started now; one that is of no use to `shape` is ended."""
        if self.worker is None or not self.is_warm_for(shape):
            if self.worker is not None:
                self.worker.kill()
            self.shape = shape
            self.worker = Worker.start(shape, self.group, self.nodes, environment)
        return self.worker

    def give_up(self) -> None:
        """End its process, give its place back to Ray, and end with it whatever else runs there."""
        if self.worker is not None and not self.worker.dead:
            self.worker.kill()
        if self.group is not None:
            remove_placement_group(self.group)


def placed(rooms: list[Room]) -> list[tuple[Room, list[str]]]:
    """Those of `rooms`, which were asked for, that Ray has placed, and the node of each bundle."""
    found = []
    for room in rooms:
        table = placement_group_table(room.group) if room.group is not None else {}
        if table.get("state") == "CREATED":
            nodes = table["bundles_to_node_id"]
            found.append((room, [nodes[index] for index in sorted(nodes)]))
    return found
