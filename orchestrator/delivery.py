"""Delivers what happens to observers: each in its own time, in a thread of its own, and none able to stop a run.

Who the observers are is in observers.py.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from orchestrator.record.events import EntryChanged, Noted, Observer, State, TournamentEnded, TournamentEvent

T = TypeVar("T")
log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
PATIENCE_SECONDS = 120.0
"""How long the end of a tournament waits for observers to take it in."""
LAST_TRIES = 2
"""How often an observer that fails is told of the end."""


class Delivery:
    """Passes events on while it is `serving`. `tell` and `end` are called from the event loop's thread."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._listeners = [_Listener(observer) for observer in observers]
        self._state: State = "stopped"

    def tell(self, event: TournamentEvent) -> None:
        """Tell everybody, without waiting for anybody."""
        for listener in self._listeners:
            listener.tell(event)

    def end(self, state: State) -> None:
        """Say how the tournament ended; until then it counts as stopped."""
        self._state = state

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Have observers told while the block lasts, and then that the tournament has ended.

        Of the end they are told one after the other, in their order: what one draws, the next can send.
        """
        tasks = [asyncio.create_task(listener.serve()) for listener in self._listeners]
        try:
            yield
        finally:
            for listener, task in zip(self._listeners, tasks, strict=True):
                listener.tell(TournamentEnded(self._state))
                _, late = await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
                if late:
                    log.warning("%s did not take in the end of the tournament in time", listener.observer.name)
                    task.cancel()


class _Listener:
    """One observer, and what it has not been told yet."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self._inbox: list[TournamentEvent] = []
        self._news, self._end = asyncio.Event(), asyncio.Event()
        self._complained = False

    def tell(self, event: TournamentEvent) -> None:
        """Keep an event for it; of an entry that stays in its state only the newest."""
        last = self._inbox[-1] if self._inbox else None
        if isinstance(event, EntryChanged):
            for index in range(len(self._inbox) - 1, -1, -1):
                other = self._inbox[index]
                if isinstance(other, EntryChanged) and other.key == event.key:
                    if other.state == event.state and other.detail == event.detail:
                        self._inbox[index] = event
                        self._news.set()
                        return
                    break
        elif isinstance(event, Noted) and event == last:
            return
        self._inbox.append(event)
        self._news.set()
        if isinstance(event, TournamentEnded):
            self._end.set()

    async def serve(self) -> None:
        """Tell it what happened until it has taken in the end."""
        tries = 0
        while True:
            await self._news.wait()
            self._news.clear()
            batch, self._inbox = self._inbox, []
            ended = any(isinstance(event, TournamentEnded) for event in batch)
            took_in = await self._told(batch)
            tries += ended
            if ended and (took_in or tries == LAST_TRIES):
                return
            if not took_in:
                self._inbox = batch + self._inbox
                self._news.set()
            await self._pause(self.observer.pause_seconds if took_in else RETRY_SECONDS)

    async def _told(self, batch: list[TournamentEvent]) -> bool:
        """Whether it took the events in. The one place where an observer's failure ends: it is logged once."""
        try:
            await _in_a_thread(self.observer.hear, batch)
        except Exception as error:  # noqa: BLE001 - whoever looks on may raise anything, and must not end a run
            if not self._complained:
                log.warning("%s failed, and is tried again: %s: %s", self.observer.name, type(error).__name__, error)
            self._complained = True
            return False
        self._complained = False
        return True

    async def _pause(self, seconds: float) -> None:
        """Leave it alone for a while, but not past the end."""
        if seconds and not self._end.is_set():
            try:
                await asyncio.wait_for(self._end.wait(), seconds)
            except TimeoutError:
                return


async def _in_a_thread(function: Callable[[T], None], argument: T) -> None:
    """As `asyncio.to_thread`, but the end of the loop does not wait for the thread: one that hangs holds up no run."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if not done.done():
            done.set_exception(error) if error else done.set_result(None)

    def run() -> None:
        raised: Exception | None = None
        try:
            function(argument)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            raised = error
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(settle, raised)

    threading.Thread(target=run, name="observer", daemon=True).start()
    await done
