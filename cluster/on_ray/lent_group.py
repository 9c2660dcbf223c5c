"""In a gang's process: the placement group that the pool holds for it, which its members stand in.

Ray Train and Tune reserve for themselves. A reservation of ours beside theirs would hold everything twice, and one that
is given up just before they make theirs may be taken by somebody else. So they are made to use ours.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from cluster.on_ray import ray_private

_lent: Any = None
_nodes: list[str] = []


def lend(group: Any, nodes: list[str]) -> None:
    """Say in a worker's process what is held for its call and where; `cluster.on_ray.ray_process` does."""
    global _lent
    _lent, _nodes[:] = group, nodes


def placed_on() -> list[str]:
    """In a worker's process: the node id of each of its workers; empty where nobody said so."""
    return list(_nodes)


def lent() -> Any:
    """In a gang's process: the Ray PlacementGroup that is held for it, a bundle for each worker."""
    return _lent


def train_callbacks() -> list[Any]:
    """For `ray.train.RunConfig(callbacks=…)`: its workers start in the group that is lent, if one is."""
    return [] if _lent is None else [ray_private.train_within(_lent)]


def tuning() -> AbstractContextManager[None]:
    """While the block lasts, each trial of Ray Tune takes a bundle of the group that is lent, if one is."""
    return nullcontext() if _lent is None else ray_private.tune_within(_lent)
