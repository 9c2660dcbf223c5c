"""A cluster's config as `ray up` takes it: which nodes it may have. Read without Ray."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import UserError
from cluster.placement import Node, Nodes

MANY = 1000
"""So many nodes of a type at most, where nothing sets a limit."""


@dataclass(frozen=True)
class NodeType:
    """A kind of node that an autoscaler may start, and how many of them at most."""

    name: str
    node: Node
    most: int
    is_head: bool = False


def node_of(resources: dict[str, float], labels: dict[str, str]) -> Node:
    """A node of those resources, by Ray's names."""
    return Node({name: float(resources[name]) for name in ("CPU", "GPU", "memory") if name in resources}, labels)


def read_cluster(path: Path) -> list[NodeType]:
    """The types of nodes, the head's among them, of a config for `ray up`. UserError where it is none."""
    try:
        config: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        most = config.get("max_workers", MANY)
        return [
            NodeType(
                name,
                node_of(kind.get("resources") or {}, kind.get("labels") or {}),
                1 if name == config["head_node_type"] else min(most, kind.get("max_workers", most)),
                name == config["head_node_type"],
            )
            for name, kind in config["available_node_types"].items()
        ]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no cluster config for `ray up`: available_node_types, head_node_type") from error


def nodes_of(types: list[NodeType]) -> Nodes:
    """All the nodes of these types together, by names of ours."""
    return {f"{kind.name} {number}": kind.node for kind in types for number in range(kind.most)}
