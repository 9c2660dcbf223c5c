"""Who may start next, and what the cluster could ever hold: decisions over plain numbers, made without Ray.

Where something starts is Ray's to decide: see `cluster.on_ray.ray_workers`. A gang is a coordinator that holds nothing
and some members of one size, placed all or not at all.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from cluster.resources import Shape, Size, amounts_in_words

MAX_OVERTAKEN = 4
"""So many later tickets of its priority may start before one that waits; then nobody after it asks for room. A small
number costs idle GPUs (room for a gang drains while the longest entry on it runs), a large one makes gangs wait; with 4
a gang of four or five ends up behind about its own size in small entries."""
UNSAID = "memory"
"""What a type of nodes in a cluster's config need not say: Ray finds it out as the node starts."""
ROUNDING = 1e-9  # tenths of a GPU do not add up exactly


@dataclass(frozen=True)
class Node:
    """What a node has, and its labels."""

    size: Size
    labels: Mapping[str, str] = field(default_factory=dict)

    def room(self, shape: Shape) -> int:
        """How many workers of `shape`, which asks for something, it holds when it is empty."""
        if not all(selects(selector, self.labels.get(name)) for name, selector in shape.labels):
            return 0
        asked = {name: amount for name, amount in shape.size.items() if name in self.size or name != UNSAID}
        most = min((self.size.get(name, 0.0) / amount for name, amount in asked.items()), default=1.0)
        return max(0, int(most + ROUNDING))


Nodes = dict[str, Node]
"""By node id; nodes that an autoscaler would add by a name of ours."""


@dataclass(eq=False)
class Ticket:
    """Somebody who waits for a worker. Lower priority numbers go first, then lower numbers."""

    priority: int
    number: int
    shape: Shape
    overtaken: int = 0
    homeless_since: float | None = None
    """Since when (time.monotonic) the whole cluster is too small for it: a node was lost."""


TURN = attrgetter("priority", "number")
"""What the queue is sorted by."""


def may_start(waiting: Iterable[Ticket]) -> list[Ticket]:
    """Those who may be given room now, in turn: the most urgent ones, up to the first that was overtaken too often.

    Ray gives room to whoever asked and fits, in no order. So whoever must not go first does not ask: nobody who is less
    urgent than one that waits, and nobody behind one that was overtaken MAX_OVERTAKEN times. For whom the cluster has
    become too small goes on asking, and holds nobody up.
    """
    queue = sorted(waiting, key=TURN)
    housed = [ticket for ticket in queue if ticket.homeless_since is None]
    allowed: list[Ticket] = []
    for ticket in housed:
        if ticket.priority != housed[0].priority:
            break
        allowed.append(ticket)
        if ticket.overtaken >= MAX_OVERTAKEN:
            break
    return allowed + [ticket for ticket in queue if ticket.homeless_since is not None]


def count_overtaking(served: Ticket, waiting: Iterable[Ticket]) -> None:
    """Note on every ticket of the same priority that came before `served` that it was overtaken."""
    for ticket in waiting:
        if ticket.priority == served.priority and ticket.number < served.number:
            ticket.overtaken += 1


def selects(selector: str, value: str | None) -> bool:
    """Whether Ray's label selector takes a node whose label is `value`: `a`, `!a`, `in(a,b)` or `!in(a,b)`."""
    wanted = selector.removeprefix("!")
    values = wanted[len("in(") : -1].split(",") if wanted.startswith("in(") else [wanted]
    return (value in values) != selector.startswith("!")


def cluster_room(shape: Shape, totals: Nodes) -> int:
    """How many workers of `shape` the empty cluster holds side by side; of one that asks for nothing, 1."""
    if not shape.size:
        return 1
    rooms = [node.room(shape) for node in totals.values()]
    return max(rooms, default=0) if shape.one_node else sum(rooms)


def refusal(shape: Shape, totals: Nodes) -> str | None:
    """What `shape` asks for and what there is, in words, when it could not be placed on the empty cluster."""
    size = shape.size
    if not size or cluster_room(shape, totals) >= shape.workers:
        return None
    kinds = Counter(amounts_in_words(size, node.size) + _labels(shape, node) for node in totals.values())
    there = "; ".join(
        f"{count} node{'s' * (count > 1)} of {words}"
        for words, count in sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    )
    return f"asks for {shape.words}, which this cluster can never hold: it has {there or 'no node'}"


def _labels(shape: Shape, node: Node) -> str:
    """Those of a node that the shape asks for."""
    said = [f"{name}={node.labels.get(name, 'none')}" for name, _ in shape.labels]
    return f" ({', '.join(said)})" if said else ""
