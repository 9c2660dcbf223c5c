"""Workers: whoever runs a function alone in a process of some shape. This is all that the rest knows of it.

On a cluster that is `cluster.on_ray.ray_workers`; in this process, without Ray, `cluster.in_process`.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from cluster.errors import ClusterTrouble, Forfeit, UserError
from cluster.resources import Held, Shape
from cluster.text import plain

T = TypeVar("T")

EVALUATOR, TRAINER = 0, 1
"""Priorities, lower first: what has landed is scored before more is started."""
KEEPS_ITS_PROCESS = (Forfeit, UserError)
"""After these a process is fit for the next call; what else may have gone wrong in it, nobody knows."""


class WorkerDied(ClusterTrouble):
    """The process that ran a call ended under it; the message says how, as far as that is known.

    `node_lost` says that its whole machine did, or one under its gang; `out_of_memory` that the kernel or Ray's memory
    monitor is known to have killed it because memory ran out.
    """

    def __init__(self, message: str, node_lost: bool = False, out_of_memory: bool = False) -> None:
        super().__init__(message)
        self.node_lost, self.out_of_memory = node_lost, out_of_memory


class DeadlinePassed(ClusterTrouble):
    """A call did not end in time and was ended, with its process."""


def nothing(held: Held) -> None:
    """What is done where nothing is to be done."""


class Workers(Protocol):
    """Runs functions in processes, each alone in one, as many side by side as there is room for."""

    @property
    def has_gpus(self) -> bool:
        """Whether there are any."""
        ...

    def refuse_impossible(self, shape: Shape, what: str) -> None:
        """ClusterTrouble when there could never be room for `shape`, saying what it asks and what there is."""
        ...

    def room(self, shape: Shape) -> int:
        """How many workers of `shape` all nodes together could hold. It follows from what they have, not from what is
        free, so that it does not depend on the moment."""
        ...

    async def call(
        self,
        shape: Shape,
        function: Callable[..., T],
        *args: Any,
        priority: int = TRAINER,
        deadline_seconds: float | None = None,
        placed: Callable[[Held], None] = nothing,
    ) -> T:
        """Run `function(*args)` in a process of that shape, in its turn, and return what it returns.

        `placed` is called when a process has been given, with the devices that it holds, before the function starts;
        the deadline counts from there. A call that is cancelled or late has its process killed, and it has ended when
        this returns. The function has to be one that can be imported by its name. A shape that asks for nothing and is
        no gang has room always: whoever makes such calls limits their number.

        A TournamentError of the function comes through as it was raised, any other error as ClusterTrouble.
        Raises WorkerDied when the process ends under the call, DeadlinePassed when the call is late, and
        ClusterTrouble when no process can be had.
        """
        ...

    def close(self) -> None:
        """End every process, and every call that runs in one."""
        ...


class OverWorkers:
    """`Workers` that do more than those that they are made of, and leave the rest to these; but for `call`."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    @property
    def has_gpus(self) -> bool:
        """As the protocol says."""
        return self._workers.has_gpus

    def refuse_impossible(self, shape: Shape, what: str) -> None:
        """As the protocol says."""
        self._workers.refuse_impossible(shape, what)

    def room(self, shape: Shape) -> int:
        """As the protocol says."""
        return self._workers.room(shape)

    def close(self) -> None:
        """As the protocol says."""
        self._workers.close()


def failure(function: Callable[..., Any], error: BaseException) -> ClusterTrouble:
    """What is raised for an error of the function that is none of ours."""
    said = plain(error)
    return ClusterTrouble(f"{_name(function)} failed in its worker: {type(error).__name__}{said and f': {said}'}")


def lateness(function: Callable[..., Any], deadline_seconds: float) -> DeadlinePassed:
    """What is raised for a call that is late."""
    return DeadlinePassed(f"{_name(function)} had not ended after {deadline_seconds:g} s, and was ended")


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))
