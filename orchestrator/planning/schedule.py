"""How a tournament fills a cluster: what runs at once, how long it all takes and what it costs. Pure functions.

It is played through: lineages side by side, the rounds of one after another, and of a round as many entries at once as
the nodes hold, in turn. Ray packs the same work a little otherwise.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.placement import Node, Nodes
from cluster.prices import Prices, cost
from cluster.records import Record
from cluster.resources import ACCELERATOR_LABEL, Held, Shape
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.next_round import first_roster, with_budget, with_equal_shares
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.planning.model_shape import BaseShape
from orchestrator.planning.usage import Cluster, hours_on_one, operations


@dataclass(frozen=True)
class Work:
    """An entry's training: what it holds, and how long."""

    shape: Shape
    hours: float


Rounds = Sequence[Sequence[Work]]


class Schedule(Record):
    """Of the whole tournament, training alone, with budgets used up."""

    entries_at_once: int
    """At most."""
    devices_at_once: float
    """GPUs, or CPUs where the cluster has none."""
    devices: float
    """Of the cluster at its largest."""
    on_gpus: bool
    hours: float | None = None
    """From beginning to end: the critical path on this cluster. None where it is not known how long entries take."""
    hours_unlimited: float | None = None
    """The same on a cluster that holds all of a round at once: no larger one is faster."""
    device_hours: Held = {}
    """By kind."""
    cost: float | None = None
    """None without prices, too."""


def equal_rounds(config: TournamentConfig, lineage: str, has_gpus: bool) -> list[Roster]:
    """The rounds of a lineage that are all the same, if nothing changes the field."""
    roster, whole = first_roster(lineage, config.competitors, []), config.budget.whole
    if whole is None:
        return [with_budget(roster, config.budget.allowance)] * config.all_rounds
    return [with_equal_shares(whole, 0.0, roster, config.all_rounds, has_gpus)] * config.all_rounds


def schedule(
    lineages: Sequence[tuple[Sequence[Roster], BaseShape | None]], cluster: Cluster, prices: Prices
) -> Schedule | None:
    """Of these rounds of each lineage, with its base's shape; None where the cluster cannot hold an entry."""
    known, rounds = True, list[Rounds]()
    for rosters, base in lineages:
        hours = [[(one, hours_of(one, cluster, base)) for one in r.entries if one.recipe.trains] for r in rosters]
        known &= all(one is not None for entries in hours for _, one in entries)
        rounds.append([[Work(cluster.shape(one.recipe), h or 1.0) for one, h in entries] for entries in hours])
    played = _Play(cluster)
    if not played.run(rounds):
        return None
    longest = [sum(max((work.hours for work in entries), default=0.0) for entries in lineage) for lineage in rounds]
    lasting = {"hours": played.hours, "hours_unlimited": max(longest, default=0.0), "device_hours": played.device_hours}
    if prices:
        lasting["cost"] = cost({kind: 3600 * hours for kind, hours in played.device_hours.items()}, prices)
    return Schedule(
        entries_at_once=played.entries_at_once,
        devices_at_once=played.devices_at_once,
        devices=cluster.devices,
        on_gpus=cluster.has_gpus,
        **(lasting if known else {}),
    )


def races_in_vain(config: TournamentConfig, cluster: Cluster) -> list[str]:
    """Whom racing cannot stop, in words: beside whom no evaluator finds room, so that it comes only at the end."""
    scoring = Shape.of("evaluator", config.evaluation.resources, cluster.has_gpus)
    if config.racing is None:
        return []
    names = []
    for recipe in config.competitors:
        shape, free = cluster.shape(recipe), dict(cluster.nodes)
        if recipe.trains and (places := _places(shape, free)) is not None:
            _take(shape, places, free, 1)
            names += [] if _places(scoring, free) is not None else [recipe.name]
    if not names:
        return []
    return [
        f"racing: cannot stop {', '.join(names)}: no evaluator has room beside it; give both a part of a GPU, such as"
        " resources.gpus: 0.7 and evaluation.resources.gpus: 0.25"
    ]


def hours_of(entry: RosterEntry, cluster: Cluster, base: BaseShape | None) -> float | None:
    """How long an entry may train: of its limits the first that ends it; None where none of them says."""
    budget, devices, ends = entry.budget, entry.recipe.resources.resolved(cluster.has_gpus).devices, list[float]()
    if budget is not None and budget.seconds is not None:
        ends.append(budget.seconds / 3600)
    if budget is not None and budget.tokens is not None:
        alone = hours_on_one(budget.tokens * operations(entry.recipe), cluster, base)
        ends += [] if alone is None else [alone / (devices or 1.0)]
    return min(ends, default=None)


def in_words(one: Schedule) -> str:
    """The schedule, in a line."""
    kind = "GPU" if one.on_gpus else "CPU"
    entries = "entry" if one.entries_at_once == 1 else "entries"
    used = f"at once at most {one.entries_at_once} {entries}, on {one.devices_at_once:g} of {one.devices:g} {kind}s"
    if one.hours is None or one.hours_unlimited is None:
        return f"{used}; how many hours is not known"
    faster = f" ({one.hours_unlimited:,.2f} h if all of a round ran at once)" if one.hours_unlimited < one.hours else ""
    held = ", ".join(f"{hours:,.2f} hours of {kind}" for kind, hours in sorted(one.device_hours.items()))
    priced = "" if one.cost is None else f", cost {one.cost:,.2f}"
    return f"{used}; {one.hours:,.2f} h from beginning to end{faster}, {held or 'no device'}{priced}"


class _Play:
    """The cluster while the tournament is played through, and what was seen so far."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._free = cluster, dict(cluster.nodes)
        self._running: list[tuple[float, int, int, Work, dict[str, int]]] = []
        """When it ends, in which order it began, of which lineage, what and where."""
        self._began = 0
        self.hours, self.entries_at_once, self.devices_at_once = 0.0, 0, 0.0
        self.device_hours: Held = {}

    def run(self, lineages: Sequence[Rounds]) -> bool:
        """Play them to their end. False where something never fits."""
        to_come = [iter([entries for entries in rounds if entries]) for rounds in lineages]
        waiting = [(lineage, work) for lineage, rounds in enumerate(to_come) for work in next(rounds, ())]
        while waiting or self._running:
            waiting = self._begun(waiting)
            if not self._running:
                return False
            ended = self._end()
            if ended not in {lineage for _, _, lineage, _, _ in self._running} | {lineage for lineage, _ in waiting}:
                waiting += [(ended, work) for work in next(to_come[ended], ())]
        return True

    def _begun(self, waiting: Sequence[tuple[int, Work]]) -> list[tuple[int, Work]]:
        """Begin whatever there is room for, in turn; those that wait on."""
        left, full = list[tuple[int, Work]](), set[Shape]()
        for lineage, work in waiting:
            places = None if work.shape in full else _places(work.shape, self._free)
            if places is None:
                full.add(work.shape)
                left.append((lineage, work))
            else:
                self._begin(lineage, work, places)
        self.entries_at_once = max(self.entries_at_once, len(self._running))
        devices = sum(self._devices(work.shape) for _, _, _, work, _ in self._running)
        self.devices_at_once = max(self.devices_at_once, devices)
        return left

    def _begin(self, lineage: int, work: Work, places: dict[str, int]) -> None:
        self._began += 1
        heapq.heappush(self._running, (self.hours + work.hours, self._began, lineage, work, places))
        _take(work.shape, places, self._free, 1)
        nodes = [self._free[name] for name, workers in places.items() for _ in range(workers)]
        kinds = [node.labels.get(ACCELERATOR_LABEL, self._cluster.gpu_kind or "") for node in nodes]
        for kind, amount in work.shape.held(kinds).items():
            self.device_hours[kind] = self.device_hours.get(kind, 0.0) + amount * work.hours

    def _end(self) -> int:
        """The next of those that run ends: of which lineage."""
        self.hours, _, lineage, work, places = heapq.heappop(self._running)
        _take(work.shape, places, self._free, -1)
        return lineage

    def _devices(self, shape: Shape) -> float:
        return (shape.gpus if self._cluster.has_gpus else shape.cpus) * shape.workers


def _places(shape: Shape, free: Nodes) -> dict[str, int] | None:
    """How many of its workers go to which node; None where there is no room for all of them now."""
    found, left = dict[str, int](), shape.workers if shape.size else 0
    if shape.one_node:
        name = next((name for name, node in free.items() if node.room(shape) >= left), None)
        return None if name is None else {name: left}
    for name, node in free.items():
        if left and (here := min(left, node.room(shape))):
            found[name] = here
            left -= here
    return None if left else found


def _take(shape: Shape, places: dict[str, int], free: Nodes, sign: int) -> None:
    for name, workers in places.items():
        size = {what: free[name].size[what] - sign * workers * amount for what, amount in shape.size.items()}
        free[name] = Node({**free[name].size, **size}, free[name].labels)
