"""Who starts next and on which nodes: decisions over plain numbers, made without Ray.

Books are kept of what is lent on each node, because Ray only knows of a gang once its processes run.
A gang is a coordinator that holds nothing and some members of one size, placed all or not at all. What a
gang then starts has to stand where the books say: `placed_on` and the selectors tell it, in its process.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cluster.resources import Shape, Size

Nodes = dict[str, Size]
"""What nodes have, or have left, by node id."""

MAX_OVERTAKEN = 4
"""So many later tickets of its priority may start before one that waits; then room is kept for it. A small
number costs idle GPUs (room for a gang drains while the longest entry on it runs), a large one makes gangs
wait; with 4 a gang of four or five ends up behind about its own size in small entries."""
ROUNDING = 1e-9  # tenths of a GPU do not add up exactly


@dataclass(eq=False)
class Holder:
    """A process, lent or idle, and the node of each worker that it holds room for.

    `nodes` is empty for an idle coordinator, and for what asks for nothing: Ray then chooses the node.
    """

    shape: Shape
    nodes: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Ticket:
    """Somebody who waits for a worker. Lower priority numbers go first, then lower numbers."""

    priority: int
    number: int
    shape: Shape
    overtaken: int = 0
    homeless_since: float | None = None
    """Since when (time.monotonic) the whole cluster is too small for it: a node was lost."""

    @property
    def turn(self) -> tuple[int, int]:
        """What the queue is sorted by."""
        return self.priority, self.number


def room(size: Size, free: Size) -> float:
    """How many processes of `size` fit into `free`; a fraction says how near it is."""
    return min((free.get(name, 0.0) / amount for name, amount in size.items()), default=float("inf"))


def whole_room(size: Size, free: Size) -> int:
    """How many whole processes of `size` fit into `free`."""
    return max(0, int(room(size, free) + ROUNDING))


def cluster_room(size: Size, totals: Nodes) -> int:
    """How many whole processes of `size` the empty cluster holds; of one that asks for nothing, 1."""
    return sum(whole_room(size, amounts) for amounts in totals.values()) if size else 1


def place(size: Size, workers: int, free: Nodes) -> list[str] | None:
    """A node for each of `workers` processes of one size, or None when they do not all fit.

    On as few nodes as possible; where one is enough for the rest, on the fullest such, without GPUs if none
    are asked for, so that the emptiest stay whole for gangs.
    """
    if not size:
        return []
    left = {node: whole_room(size, amounts) for node, amounts in free.items()}
    unasked = {node: 0.0 if "GPU" in size else amounts.get("GPU", 0.0) for node, amounts in free.items()}
    placed: list[str] = []
    while (missing := workers - len(placed)) > 0:
        enough = [node for node in left if left[node] >= missing]
        if enough:
            node = min(enough, key=lambda node: (unasked[node], left[node]))
        else:
            node = max(left, key=lambda node: left[node], default="")
        if not node or not left[node]:
            return None
        placed += [node] * min(missing, left.pop(node))
    return placed


def taken_from(nodes: Nodes, holders: Iterable[Holder]) -> Nodes:
    """What `nodes` have left beside `holders`; nodes that are gone are passed over."""
    left = {node: dict(amounts) for node, amounts in nodes.items()}
    for holder in holders:
        for node in holder.nodes:
            for name, amount in holder.shape.size.items():
                if node in left:
                    left[node][name] = left[node].get(name, 0.0) - amount
    return left


def in_others_use(totals: Nodes, available: Nodes, ours: Iterable[Holder]) -> list[Holder]:
    """What other people's work holds, by what Ray says is `available` now.

    Room of ours that Ray does not know of yet (a gang about to start) hides as much of theirs: what is placed
    there by mistake then waits in Ray's own queue.
    """
    holders = []
    for node, unheld in taken_from({node: totals[node] for node in totals if node in available}, ours).items():
        used = {name: max(0.0, amount - available[node].get(name, 0.0)) for name, amount in unheld.items()}
        if any(amount > ROUNDING for amount in used.values()):
            memory_gb = used.get("memory", 0.0) / 2**30
            holders.append(Holder(Shape("others", used.get("CPU", 0.0), used.get("GPU", 0.0), memory_gb), [node]))
    return holders


def next_served(
    waiting: Iterable[Ticket], totals: Nodes, busy: Sequence[Holder], idle: Sequence[Holder]
) -> tuple[Ticket, list[str]] | None:
    """The ticket to serve now and a node for each of its workers, or None when nobody can be served.

    Tickets are tried in turn, and later ones overtake one that does not fit. One that was overtaken
    MAX_OVERTAKEN times gets a promise: the nodes that are nearest to holding it. Nothing of its
    priority or a less urgent one starts there until it fits.
    """
    free = taken_from(totals, busy)
    tried: set[Shape] = set()
    for ticket in sorted(waiting, key=lambda ticket: ticket.turn):
        if ticket.shape not in tried:
            nodes = _seat(ticket.shape, free, idle)
            if nodes is not None:
                return ticket, nodes
            tried.add(ticket.shape)
        if ticket.overtaken >= MAX_OVERTAKEN:
            free = taken_from(free, [Holder(ticket.shape, _promised(ticket.shape, totals, free))])
    return None


def count_overtaking(served: Ticket, waiting: Iterable[Ticket]) -> None:
    """Note on every ticket of the same priority that came before `served` that it was overtaken."""
    for ticket in waiting:
        if ticket.priority == served.priority and ticket.number < served.number:
            ticket.overtaken += 1


def to_end(
    shape: Shape, nodes: list[str], totals: Nodes, busy: Iterable[Holder], idle: Iterable[Holder]
) -> list[Holder]:
    """The idle holders, longest idle (first) before others, that have to make room for `shape` on `nodes`."""
    idle = list(idle)
    left = taken_from(totals, [*busy, *idle])
    wanted = Counter(nodes)
    ended: list[Holder] = []
    for holder in idle:
        short = {node for node, count in wanted.items() if whole_room(shape.size, left.get(node, {})) < count}
        if short.intersection(holder.nodes):
            ended.append(holder)
            left = taken_from(totals, [*busy, *(other for other in idle if other not in ended)])
    return ended


def refusal(shape: Shape, totals: Nodes) -> str | None:
    """What `shape` asks for and what there is, in words, when it could not be placed on the empty cluster."""
    size = shape.size
    if place(size, shape.workers, totals) is not None:
        return None
    asked = _words(size, size)
    if shape.workers > 1:
        asked = f"{shape.workers} workers of {asked} each"
    kinds = Counter(_words(size, amounts) for amounts in totals.values())
    there = "; ".join(
        f"{count} node{'s' * (count > 1)} of {words}"
        for words, count in sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    )
    return f"asks for {asked}, which this cluster can never hold: it has {there or 'no node'}"


def _seat(shape: Shape, free: Nodes, idle: Sequence[Holder]) -> list[str] | None:
    """Where `shape` may start: on the fewest nodes, and there rather in a warm process, or without ending any."""
    warm = {node for holder in idle if holder.shape == shape and not shape.gang for node in holder.nodes}
    places = ({node: free[node] for node in warm if node in free}, taken_from(free, idle), free)
    found = [place(shape.size, shape.workers, nodes) for nodes in places]
    return min((nodes for nodes in found if nodes is not None), key=lambda nodes: len(set(nodes)), default=None)


def _promised(shape: Shape, totals: Nodes, free: Nodes) -> list[str]:
    """Nodes to keep for a shape that does not fit now: those that are nearest to holding it.

    A promised node only gets nearer, since nothing of the same priority starts there, and another takes its
    place only by being nearer still; so the promise is kept within a few times the longest entry. What would
    not fit into the whole cluster, because a node was lost, is promised nothing: it would stop all others.
    """
    size = shape.size
    nodes: list[str] = []
    if place(size, shape.workers, totals) is None:
        return nodes
    for node in sorted(totals, key=lambda node: -room(size, free[node])):
        nodes += [node] * min(whole_room(size, totals[node]), shape.workers - len(nodes))
    return nodes


def _words(names: Iterable[str], amounts: Size) -> str:
    return ", ".join(
        f"{amounts.get(name, 0) / 2**30:.3g} GB memory" if name == "memory" else f"{amounts.get(name, 0):g} {name}"
        for name in names
    )


_here: list[str] = []


def stand_on(nodes: list[str]) -> None:
    """Say in a worker's process where its call stands; `cluster.ray_process` does."""
    _here[:] = nodes


def placed_on() -> list[str]:
    """In a worker's process: the node id of each of its workers; empty where nobody said so."""
    return list(_here)


def member_selectors() -> list[dict[str, str]]:
    """One Ray label selector for each worker of the gang that this process coordinates.

    For `ray.train.ScalingConfig(label_selector=…)` or `placement_group(bundle_label_selector=…)`.
    """
    return [{"ray.io/node-id": node} for node in _here]


def any_member_selector() -> dict[str, str]:
    """The Ray label selector of any of the gang's nodes; empty where nobody said so, which selects all.

    For `tune.PlacementGroupFactory([…], bundle_label_selector=[…])`: every trial of a search asks alike.
    """
    # No spaces: Ray 2.60 accepts `in(a, b)`, but keeps the space as part of the name, so that b matches nothing.
    return {"ray.io/node-id": f"in({','.join(dict.fromkeys(_here))})"} if _here else {}
