"""How far a line grows over the cluster: a gang that trains as one worker does, only sooner. Pure functions.

A line is one entry, and while it runs nobody else of its lineage does, or other lines that it shares the cluster
with. So it takes as many workers as there is room for, data-parallel, at the global batch that it has: see
scaling.spread. By itself only over GPUs: two processes on the CPUs of one machine gain nothing, and starting them
takes half a minute.
"""

from collections.abc import Callable

from cluster.resources import Resources
from competitors.sft.passes import UPDATING_IN_BACKWARD
from competitors.sft.recipe import SftRecipe
from orchestrator.field.whole_budget import Allocation

ROUNDING = 1e-9
Room = Callable[[Resources], int]
"""How many workers of some resources, which are resolved, the empty cluster holds."""


def one_worker(worker: Resources) -> int:
    """That of a cluster on which nothing grows."""
    return 1


def resources_of_a_line(recipe: SftRecipe, rules: Allocation, room: Room, part: float, has_gpus: bool) -> Resources:
    """What `recipe` runs on as a line that has this part of the cluster: others run beside it.

    On its own workers at least, which it may need for its memory, and at most on what the cluster holds: a line that
    grew on a larger one goes on with fewer. What shares a GPU takes whole ones.
    """
    own, gpus = recipe.resources, recipe.resources.gpus_where(has_gpus)
    steps_alone = recipe.optimizer in UPDATING_IN_BACKWARD  # before a gang has exchanged its gradients
    if steps_alone or gpus > 1 or (rules.workers == "auto" and not gpus):
        return own
    worker = own.model_copy(update={"workers": 1, "gpus": 1.0 if gpus else 0.0})
    there = room(worker)
    share = int(there * part + ROUNDING)
    share = share if rules.workers == "auto" else min(share, rules.workers)
    workers = max(1, min(there, max(own.workers, share)))
    return own if workers == own.workers else worker.model_copy(update={"workers": workers})
