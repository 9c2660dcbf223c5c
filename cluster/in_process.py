"""Workers in this process, each call in a thread of its own: the whole loop without Ray, for tests and small machines.

A thread cannot be killed as a process can. A call that is cancelled or late has `Ended` raised in it, which it
meets at its next step of Python; one that sleeps in native code until then is left behind.
"""

import asyncio
import ctypes
import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from cluster import placement
from cluster.errors import ClusterTrouble, TournamentError
from cluster.last_words import ended_itself, exit_code
from cluster.resources import Held, Shape
from cluster.workers import TRAINER, WorkerDied, failure, lateness, nothing

T = TypeVar("T")

ENDING_SECONDS = 1.0
"""So long a call that was ended is waited for."""
PLENTY = 1e6


class Ended(BaseException):
    """Raised in the thread of a call that is to end. No Exception: what catches those does not catch this."""


class InProcessWorkers:
    """`cluster.workers.Workers` in this process: so many trainers side by side, and so many evaluators beside them.

    With 0 evaluators they take turns with the trainers. Of calls that load models none should run beside another, so
    that needs 1 and 0: while it loads one, transformers changes what all threads find in torch.

    What a call asks for is not held against the machine; only `refuse_impossible` looks at one, which has as many
    `cpus` and `gpus` as is said here; `room` is said too, and 1 because no gang runs here. Tests override `_run`.
    """

    def __init__(
        self,
        trainers: int = 2,
        evaluators: int = 1,
        has_gpus: bool = False,
        cpus: float = PLENTY,
        gpus: float | None = None,
        room: int = 1,
    ) -> None:
        if gpus is None:
            gpus = PLENTY if has_gpus else 0.0
        self._has_gpus = has_gpus
        self._room = room
        self._machine = {"CPU": cpus, "GPU": gpus, "memory": PLENTY * 2**30}
        # Evaluators have a turn of their own: a trainer may wait for a scoring, which must not wait for a trainer.
        self._trainers = _Turns(trainers)
        self._evaluators = _Turns(evaluators) if evaluators else self._trainers
        self._running: set[_Thread] = set()

    @property
    def has_gpus(self) -> bool:
        """As this was made."""
        return self._has_gpus

    def refuse_impossible(self, shape: Shape, what: str) -> None:
        """As the protocol says."""
        refusal = placement.refusal(shape, {"here": placement.Node(self._machine)})
        if refusal is not None:
            raise ClusterTrouble(f"{what} {refusal}")

    def room(self, shape: Shape) -> int:
        """As this was made, of any shape."""
        return self._room

    async def call(
        self,
        shape: Shape,
        function: Callable[..., T],
        *args: Any,
        priority: int = TRAINER,
        deadline_seconds: float | None = None,
        placed: Callable[[Held], None] = nothing,
    ) -> T:
        """As the protocol says."""
        turns = self._evaluators if shape.role == "evaluator" else self._trainers
        await turns.take(priority)
        try:
            placed(shape.held())
            return await self._in_thread(function, args, deadline_seconds)
        finally:
            turns.give_back()

    def close(self) -> None:
        """As the protocol says."""
        for turns in (self._trainers, self._evaluators):
            turns.close()
        for thread in self._running:
            thread.end()

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """What a call does in its thread."""
        return function(*args)

    async def _in_thread(self, function: Callable[..., T], args: tuple[Any, ...], deadline_seconds: float | None) -> T:
        thread = _Thread(lambda: self._run(function, args))
        ended = asyncio.wrap_future(thread.ended)
        self._running.add(thread)
        thread.start()
        try:
            if not (await asyncio.wait({ended}, timeout=deadline_seconds))[0]:
                assert deadline_seconds is not None
                raise lateness(function, deadline_seconds)
        finally:
            if not ended.done():
                thread.end()
                await asyncio.wait({ended}, timeout=ENDING_SECONDS)
            ended.cancel()
            self._running.discard(thread)
        if isinstance(thread.error, TournamentError):
            raise thread.error
        if thread.error is not None:
            raise _told(function, thread.error) from thread.error
        value: T = thread.value
        return value


def _told(function: Callable[..., Any], error: BaseException) -> ClusterTrouble:
    """What the caller is told of an error of the function that is none of ours."""
    if isinstance(error, SystemExit):
        return WorkerDied(ended_itself(exit_code(error.code)))
    if isinstance(error, Ended):
        return WorkerDied("its process was ended with all the others")
    return failure(function, error)


class _Thread(threading.Thread):
    """One call. A daemon: the program does not wait for one that was left behind."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(name="worker", daemon=True)
        self._work = work
        self.value: Any = None
        self.error: BaseException | None = None
        self.ended: Future[None] = Future()
        self.ended.set_running_or_notify_cancel()  # from here on nobody can cancel it
        self._lock, self._over = threading.Lock(), False

    def run(self) -> None:
        with suppress(Ended):  # it may be raised when the work has just been done
            try:
                self.value = self._work()
            except BaseException as error:  # noqa: BLE001 - raised where the call is awaited
                self.error = error
            with self._lock:
                self._over = True
        self.ended.set_result(None)

    def end(self) -> None:
        """Have `Ended` raised in it, once, if it still works."""
        with self._lock:
            if not self._over and self.ident is not None:
                self._over = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(Ended))


class _Turns:
    """So many at a time, lower priorities first and then who came first."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    async def take(self, priority: int) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # called off in the moment of being served
                self.give_back()
            raise

    def give_back(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def close(self) -> None:
        for _, _, turn in self._waiting:
            if not turn.done():
                turn.set_exception(ClusterTrouble("was not begun: the workers were closed"))
        self._waiting.clear()
