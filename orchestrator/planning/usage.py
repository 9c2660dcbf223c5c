"""What of a cluster a whole budget uses, and how long that takes there against one recipe alone. Pure functions.

Hours follow from a budget of time, or from the floating-point operations of tokens and a GPU's speed: 6 a parameter and
token where all is trained, forward and backward (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", 2.1),
and 4 under an adapter, whose base needs no gradients of its own. A gang is taken to be as fast as its workers together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cluster.machine import GPU_TFLOPS
from cluster.placement import Nodes, cluster_room
from cluster.records import Record
from cluster.resources import Resources, Shape
from competitors.kinds import Recipe
from competitors.sft.recipe import SftRecipe
from orchestrator.field.allocation import Plan
from orchestrator.field.forecast import amount
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.planning.model_shape import BaseShape

UTILISATION = 0.4
"""Of a GPU's dense 16-bit speed, what training reaches."""
OPERATIONS, OPERATIONS_OF_ADAPTERS = 6.0, 4.0
COMMITTED = ("line", "lines", "soup")


@dataclass(frozen=True)
class Cluster:
    """Where it would run."""

    nodes: Nodes
    gpu_kind: str | None = None
    """By Ray's name; None where it is not known, or they differ."""
    shares_disk: bool = True
    """Whether all nodes see one disk."""

    @property
    def has_gpus(self) -> bool:
        """Whether a node has any."""
        return any(node.size.get("GPU") for node in self.nodes.values())

    @property
    def devices(self) -> float:
        """GPUs of all nodes, or CPUs where there is none."""
        return sum(node.size.get("GPU" if self.has_gpus else "CPU", 0.0) for node in self.nodes.values())

    def room(self, worker: Resources) -> int:
        """How many such workers it holds when it is empty."""
        return cluster_room(Shape.of("trainer", worker, self.has_gpus), self.nodes)

    def shape(self, recipe: Recipe) -> Shape:
        """What an entry of `recipe` asks of it."""
        return replace(recipe.shape(self.has_gpus), shares_disk=self.shares_disk)


class Usage(Record):
    """Of one lineage, if nothing surprises."""

    devices: float
    """GPUs, or CPUs where there are none, that are its share of the cluster."""
    on_gpus: bool
    used_before: float
    """At most at once, before the line."""
    share_before: float
    """Of the budget."""
    used_by_line: float
    used_alone: float
    """By one recipe alone, on as many of them as a line of it may have."""
    times_alone: float
    """How long the tournament takes, training alone, in multiples of that recipe with the same budget."""
    hours: float | None
    """None where it is not known how fast a device is."""


def usage(plan: Plan, rosters: Sequence[Roster], cluster: Cluster, base: BaseShape | None) -> Usage:
    """What the rounds `rosters` of `plan` use of the cluster."""
    devices = cluster.devices / plan.lineages
    before = [roster for roster in rosters if roster.phase not in COMMITTED]
    after = [roster for roster in rosters if roster.phase in COMMITTED]
    first = next(entry.recipe for entry in rosters[0].entries if entry.recipe.trains)
    wanted = plan.on_the_cluster(first) if isinstance(first, SftRecipe) else first.resources
    held_alone = _devices(plan, wanted)
    by_time = plan.whole.unit != "tokens"
    alone = plan.whole.total * (1.0 if by_time else operations(first)) / held_alone
    took = sum(_duration(plan, roster, devices) for roster in rosters)
    spent = [sum(amount(plan, entry) for roster in part for entry in roster.entries) for part in (before, after)]
    return Usage(
        devices=devices,
        on_gpus=cluster.has_gpus,
        used_before=max((_held_at_once(plan, roster, devices) for roster in before), default=0.0),
        share_before=spent[0] / sum(spent),
        used_by_line=max((_held_at_once(plan, roster, devices) for roster in after), default=0.0),
        used_alone=held_alone,
        times_alone=took / alone,
        hours=took / 3600 if by_time else hours_on_one(took, cluster, base),
    )


def operations(recipe: Recipe) -> float:
    """Floating-point operations of a training token and a parameter."""
    return OPERATIONS_OF_ADAPTERS if isinstance(recipe, SftRecipe) and recipe.adapter else OPERATIONS


def hours_on_one(cost: float, cluster: Cluster, base: BaseShape | None) -> float | None:
    """Of `cost` operations for each parameter, one after another on one GPU."""
    speed = GPU_TFLOPS.get(cluster.gpu_kind or "")
    if base is None or speed is None or not cluster.has_gpus:
        return None
    return cost * base.parameters / (speed * 1e12 * UTILISATION) / 3600


def in_words(one: Usage, lineage: str) -> str:
    """What stands idle, and what that makes of the hours, in a line."""
    kind = "GPU" if one.on_gpus else "CPU"
    used = (
        f"{lineage}: of {one.devices:g} {kind}s the race uses {one.used_before:g}, for {one.share_before:.1%} of the"
        f" budget, and the line {one.used_by_line:g}"
    )
    alone = f"one recipe alone with the same budget on {one.used_alone:g}"
    if one.hours is None:
        return f"{used}; it takes {one.times_alone:.2f} times as long as {alone}; how many hours is not known"
    hours_alone = one.hours / one.times_alone
    return f"{used}; it takes {one.hours:.2f} h on this cluster, and {alone} takes {hours_alone:.2f} h"


def assumption(gpu_kind: str) -> str:
    """What hours that follow from tokens rest on, or why none do."""
    if gpu_kind not in GPU_TFLOPS:
        return f"hours on this cluster: those of the minutes alone: how fast a {gpu_kind} is is not known"
    return (
        f"hours on this cluster: {OPERATIONS:g} operations a parameter and token, {OPERATIONS_OF_ADAPTERS:g} under an"
        f" adapter, at {UTILISATION:.0%} of the {GPU_TFLOPS[gpu_kind]:g} TFLOPS of a {gpu_kind}; gangs are as fast as"
        " their workers together"
    )


def _duration(plan: Plan, roster: Roster, devices: float) -> float:
    """How long a round takes where so many fit side by side as hold no more than `devices`, longest first."""
    times = sorted((_cost(plan, entry) / _held(plan, entry) for entry in roster.entries), reverse=True)
    largest = max(_held(plan, entry) for entry in roster.entries)
    return sum(times[:: max(1, int(devices / largest))])


def _cost(plan: Plan, entry: RosterEntry) -> float:
    """Seconds of a device, or operations for each parameter."""
    return amount(plan, entry) * (1.0 if plan.whole.unit != "tokens" else operations(entry.recipe))


def _held(plan: Plan, entry: RosterEntry) -> float:
    return _devices(plan, entry.recipe.resources)


def _devices(plan: Plan, resources: Resources) -> float:
    return resources.resolved(plan.has_gpus).devices or 1.0


def _held_at_once(plan: Plan, roster: Roster, devices: float) -> float:
    return min(devices, sum(_held(plan, entry) for entry in roster.entries if entry.recipe.trains))
