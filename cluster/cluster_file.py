"""A cluster's config as `ray up` takes it: which nodes it may have. Read without Ray."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import UserError
from cluster.placement import Node, Nodes
from cluster.resources import ACCELERATOR_LABEL

ONE_NODE = re.compile(r"(\d+)x([A-Z][A-Za-z0-9-]*)")
CPUS_OF_A_GPU = 16
"""Of a node that is described in a word."""
MANY = 1000
"""So many nodes of a type at most, where nothing sets a limit."""


@dataclass(frozen=True)
class NodeType:
    """A kind of node that an autoscaler may start, and how many of them at most."""

    name: str
    node: Node
    most: int
    is_head: bool = False


def node_of(resources: Mapping[str, float], labels: dict[str, str]) -> Node:
    """A node of those resources, by Ray's names."""
    return Node({name: float(resources[name]) for name in ("CPU", "GPU", "memory") if name in resources}, labels)


def read_cluster(path: Path) -> list[NodeType]:
    """The types of nodes, the head's among them, of a config for `ray up`; or one node in a word, as `8xH100`.

    UserError where it is neither.
    """
    if (word := ONE_NODE.fullmatch(str(path))) and not path.exists():
        gpus = int(word[1])
        size = {"CPU": CPUS_OF_A_GPU * gpus, "GPU": gpus}
        return [NodeType(str(path), node_of(size, {ACCELERATOR_LABEL: word[2]}), 1)]
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
