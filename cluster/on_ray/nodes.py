"""What the cluster's nodes have: those that live, and those that an autoscaler may add."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ray

from cluster import placement
from cluster.cluster_file import MANY, NodeType, node_of, read_cluster
from cluster.machine import Machine, largest_of
from cluster.on_ray.ray_private import not_placeable, reported_node_types
from cluster.placement import Nodes
from cluster.resources import Shape

BOOTSTRAP_FILE = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster's config on its head, for the autoscaler."""
NODE_TYPE_LABEL = "ray.io/node-group"
"""The label by which a node says which of the autoscaler's types it is."""


def living_nodes() -> Nodes:
    """What the living nodes have."""
    return {node["NodeID"]: node_of(node["Resources"], node["Labels"]) for node in ray.nodes() if node["Alive"]}


def largest_machine() -> Machine:
    """What the largest of the possible nodes have."""
    return largest_of(possible_nodes())


def possible_nodes() -> Nodes:
    """What the living nodes have, and those that an autoscaler may add to them, as far as its node types are known."""
    return _with_those_to_come(living_nodes(), _node_types())


def refusals(shapes: Iterable[Shape]) -> dict[Shape, str]:
    """What each of those shapes that the cluster could never hold asks for and what there is, in words.

    Where an autoscaler's node types are not known it may have a node for any.
    """
    types = _node_types()
    found = _too_large(shapes, _with_those_to_come(living_nodes(), types))
    return found if not found or types or not_placeable() is None else {}


@dataclass(frozen=True)
class Outlook:
    """What those who wait may hope for."""

    living: Nodes
    refused: dict[Shape, str]
    """As `refusals` has it."""
    unplaced: set[str]
    """Ids of the placement groups that an autoscaler has no node for now."""
    is_autoscaled: bool
    """Whether machines come and go: an autoscaler says so, or has left the types of nodes that it may start."""


def outlook(shapes: Iterable[Shape]) -> Outlook:
    """Of those shapes, all asked of Ray once."""
    living, types, unplaced = living_nodes(), _node_types(), not_placeable()
    refused = {} if unplaced is not None and not types else _too_large(shapes, _with_those_to_come(living, types))
    return Outlook(living, refused, unplaced or set(), bool(types) or unplaced is not None)


def _with_those_to_come(living: Nodes, types: Sequence[NodeType]) -> Nodes:
    there = Counter(node.labels.get(NODE_TYPE_LABEL) for node in living.values())
    # One that lives says more of its type than the type does: its memory, the kind of its GPUs.
    alike = {node.labels.get(NODE_TYPE_LABEL): node for node in living.values()}
    to_come = {
        f"{kind.name} {number}": alike.get(kind.name, kind.node)
        for kind in types
        for number in range(there[kind.name], kind.most)
    }
    return living | to_come


def _too_large(shapes: Iterable[Shape], nodes: Nodes) -> dict[Shape, str]:
    return {shape: words for shape in set(shapes) if (words := placement.refusal(shape, nodes)) is not None}


@cache
def _types_in(file: Path) -> tuple[NodeType, ...]:
    """A cluster's config does not change while its head lives, and this is asked every second."""
    return tuple(kind for kind in read_cluster(file) if not kind.is_head)


def _node_types() -> Sequence[NodeType]:
    """As they were reported to Ray, or from the file on a head that `ray up` started, without the head's own."""
    if reported := reported_node_types():
        return [NodeType(name, node_of(amounts, {}), MANY if most < 0 else most) for name, amounts, most in reported]
    file = BOOTSTRAP_FILE.expanduser()
    return _types_in(file) if file.exists() else ()
