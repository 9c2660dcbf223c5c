"""Where a tournament would run: this machine, a cluster at an address, or one on paper."""

import os
from dataclasses import dataclass
from pathlib import Path

from cluster.cluster_file import nodes_of, read_cluster
from cluster.machine import Machine, largest_of, machine_here
from cluster.placement import Node, Nodes, refusal
from orchestrator.config.tournament import TournamentConfig
from orchestrator.planning.usage import Cluster


@dataclass(frozen=True)
class Place:
    """`machine` is the largest of the `cluster`; None, both, where a cluster is meant and none was named."""

    machine: Machine | None
    cluster: Cluster | None
    placement: list[str]
    """What the cluster or this machine cannot place, or that a cluster that was asked can place everything."""

    @property
    def is_one_machine(self) -> bool:
        """Whether there is no other."""
        return self.cluster is not None and len(self.cluster.nodes) == 1

    @property
    def has_gpus(self) -> bool:
        """Whether it has any, or nobody knows."""
        return self.machine is None or self.machine.gpus > 0


def place_of(config: TournamentConfig, address: str | None, cluster_file: Path | None) -> Place:
    """Where `config` would run. UserError where the address or the file is of no cluster."""
    if cluster_file is not None:
        return _on_paper(config, cluster_file)
    return _at(config, address) if address else _here(config)


def _here(config: TournamentConfig) -> Place:
    """This machine where the tournament would start a Ray of its own on it; nothing where a cluster is meant."""
    if config.cluster.address not in (None, "local") or "RAY_ADDRESS" in os.environ:
        return Place(None, None, [])
    here = machine_here()
    cluster = cluster_of(config, here)
    return Place(here, cluster, _refusals(config, cluster))


def cluster_of(config: TournamentConfig, machine: Machine) -> Cluster:
    """A Ray of our own on `machine`."""
    amounts = {"CPU": machine.cpus, "GPU": float(machine.gpus), "memory": machine.memory_gb * 2**30}
    return _cluster(config, {"here": Node(amounts)}, machine)


def _at(config: TournamentConfig, address: str) -> Place:
    """What the cluster at `address` cannot place, its largest machine, and all of it."""
    from cluster.errors import ClusterTrouble
    from cluster.on_ray.connect import connected
    from cluster.on_ray.nodes import largest_machine, possible_nodes
    from cluster.on_ray.ray_workers import RayWorkers

    problems = []
    with connected(address) as resources:
        workers = RayWorkers({})
        machine = largest_machine()
        cluster = _cluster(config, possible_nodes(), machine)
        for recipe in config.competitors:
            try:
                workers.refuse_impossible(cluster.shape(recipe), f"competitors[{recipe.name}]")
            except ClusterTrouble as trouble:
                problems.append(str(trouble))
    there = f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
    return Place(machine, cluster, problems or [f"every entry can be placed on the cluster at {address} ({there})"])


def _on_paper(config: TournamentConfig, file: Path) -> Place:
    """The same of a cluster that is not there, with all the nodes that the file allows."""
    types = read_cluster(file)
    nodes = nodes_of(types)
    machine = largest_of(nodes)
    cluster = _cluster(config, nodes, machine)
    problems = _refusals(config, cluster)
    said = ", ".join(f"{kind.most} {kind.name}" for kind in types if not kind.is_head)
    return Place(machine, cluster, problems or [f"every entry can be placed on what {file} allows ({said})"])


def _refusals(config: TournamentConfig, cluster: Cluster) -> list[str]:
    """What the empty cluster could not place."""
    shapes = {recipe.name: cluster.shape(recipe) for recipe in config.competitors}
    return [
        f"competitors[{name}] {words}" for name, shape in shapes.items() if (words := refusal(shape, cluster.nodes))
    ]


def _cluster(config: TournamentConfig, nodes: Nodes, machine: Machine) -> Cluster:
    return Cluster(nodes, machine.gpu_kind, shares_disk=config.cluster.bucket is None)
