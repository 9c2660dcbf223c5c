"""Workers whose calls are counted: how many seconds of which devices each account has held, lost and ended calls too.

Counted is what calls hold from when they are placed until they have ended. What waits, is idle or starts is not: nobody
but whoever runs the cluster knows whom that is for.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from cluster.resources import Held, Shape
from cluster.workers import TRAINER, OverWorkers, Workers, nothing

T = TypeVar("T")

ACCOUNT: ContextVar[str] = ContextVar("account", default="")
"""What the calls of this task, and of those that it starts, are counted for."""

Accounts = dict[str, Held]
"""Seconds of devices, by account and kind."""


class Metered(OverWorkers):
    """The workers it is made of, for one tournament."""

    def __init__(self, workers: Workers) -> None:
        super().__init__(workers)
        self._ended: Accounts = {}
        self._running: dict[object, tuple[str, float, Held]] = {}

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
        call = object()

        def began(held: Held) -> None:
            self._running[call] = (ACCOUNT.get(), time.monotonic(), held)
            placed(held)

        try:
            return await self._workers.call(
                shape, function, *args, priority=priority, deadline_seconds=deadline_seconds, placed=began
            )
        finally:
            if (running := self._running.pop(call, None)) is not None:
                self._ended = added(self._ended, _used(*running, until=time.monotonic()))

    def seconds(self, ahead: float = 0.0) -> Accounts:
        """What was held until now, or will have been so many seconds from now if what runs goes on."""
        until = time.monotonic() + ahead
        return added(self._ended, *(_used(*running, until=until) for running in self._running.values()))


def added(*accounts: Accounts) -> Accounts:
    """All of them together."""
    found: dict[str, Counter[str]] = {}
    for one in accounts:
        for account, held in one.items():
            found.setdefault(account, Counter()).update(held)
    return {account: dict(held) for account, held in found.items()}


def _used(account: str, since: float, held: Held, until: float) -> Accounts:
    return {account: {kind: amount * (until - since) for kind, amount in held.items()}}
