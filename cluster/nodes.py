"""What the cluster's nodes have: those that live, and those that an autoscaler may add."""

from collections import Counter

import ray

from cluster.placement import Nodes
from cluster.ray_private import node_types
from cluster.resources import Size

MANY = 1000
"""So many nodes of a type at most, where an autoscaler knows no limit."""
NODE_TYPE_LABEL = "ray.io/node-group"
"""The label by which a node says which of the autoscaler's types it is."""


def living_nodes() -> Nodes:
    """What the living nodes have."""
    return {node["NodeID"]: _counted(node["Resources"]) for node in ray.nodes() if node["Alive"]}


def possible_nodes() -> Nodes:
    """What the living nodes have, and those that an autoscaler may add to them."""
    living = [node for node in ray.nodes() if node["Alive"]]
    nodes = {node["NodeID"]: _counted(node["Resources"]) for node in living}
    there = Counter(node["Labels"].get(NODE_TYPE_LABEL) for node in living)
    for name, amounts, most in node_types():
        for number in range(there[name], MANY if most < 0 else most):
            nodes[f"{name} {number}"] = _counted(amounts)
    return nodes


def _counted(amounts: dict[str, float]) -> Size:
    return {name: amounts[name] for name in ("CPU", "GPU", "memory") if name in amounts}
