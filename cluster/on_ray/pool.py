"""The pool: who waits for a room, which are asked for, idle and lent, and which end for whom.

Ray places; the order is ours: only who may start next (`cluster.placement.may_start`) asks for room. Nothing here keeps
books of what is free on which node.
"""

import asyncio
import time
from collections import Counter
from dataclasses import replace
from typing import Any

from cluster import placement
from cluster.errors import ClusterTrouble
from cluster.on_ray.metrics import show
from cluster.on_ray.nodes import outlook
from cluster.on_ray.ray_process import Worker
from cluster.on_ray.rooms import Room, placed
from cluster.placement import Ticket
from cluster.resources import Shape
from cluster.text import said_by

LOOK_SECONDS = 0.1
"""How often Ray is asked what it has placed; what fits is placed within a few hundredths of a second."""
PATIENCE_SECONDS = 0.5
"""So long room is waited for before idle processes end for it."""
CHECK_SECONDS = 1.0
"""How often it is asked whether nodes were lost, and whether the cluster can hold what is waited for."""
NEWS_SECONDS = 2.0
"""So long Ray may take to know and to use what was given back."""
IDLE_SECONDS = 60.0
"""So long an idle process holds its place where an autoscaler could give the machine back."""
FIXED_IDLE_SECONDS = 600.0
"""And elsewhere, where other jobs of the cluster may wait for it."""
MAX_ASKED = 32
"""So many rooms are asked for at once: enough for an autoscaler to start many nodes together."""
LOST_ROOM_SECONDS = 600.0
"""So long a lost node may take to come back before whoever needs it is told that the cluster cannot hold it."""


class Pool:
    """Rooms on the Ray cluster that this program is connected to. `environment` is set in each process."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._waiting: dict[Ticket, asyncio.Future[Room]] = {}
        self._asked: list[Room] = []
        self._idle: list[Room] = []  # the longest idle first
        self._busy: list[Room] = []
        self._coordinators: list[Worker] = []  # without a room
        self._looking: asyncio.Task[None] | None = None
        self._room_was_made = self._checked = 0.0
        self._is_autoscaled = False
        self._has_news = False
        """Whether somebody has come since it was last seen who is served."""

    async def room_for(self, ticket: Ticket) -> Room:
        """The room that the ticket is served with, in its turn, lent until it is left."""
        served = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = served
        self._has_news = True
        try:
            await asyncio.sleep(0)  # for all who come together it is seen once who goes first
            if self._has_news:
                self._serve()
            if not served.done() and (self._looking is None or self._looking.done()):
                self._looking = asyncio.create_task(self._look())
            await asyncio.wait({served})  # which leaves it as it is for whoever serves, when this is called off
            room: Room = served.result()
            return room
        except BaseException:
            if served.done() and served.exception() is None:  # called off when just served
                self.leave(served.result(), lost=False)
            raise
        finally:
            self._waiting.pop(ticket, None)

    def enter(self, room: Room, shape: Shape) -> Worker:
        """The process of `room` for `shape`. Any coordinator will do for a gang: it holds nothing itself."""
        spare = next((worker for worker in self._coordinators if worker.may_coordinate(shape)), None)
        if spare is not None and not room.workers:
            self._coordinators.remove(spare)
            room.workers = [replace(spare, shape=shape, group=room.group, nodes=room.nodes)]
        return room.enter(shape, self._environment)

    def leave(self, room: Room, lost: bool) -> None:
        """What was done in `room` is over. `lost`: nobody can go on there, nor in a gang's whose coordinator ended."""
        self._busy.remove(room)
        has_ended = room.worker is not None and room.worker.dead
        if lost or (has_ended and room.shape.gang):
            self._give_up(room)
        else:
            room.workers = [worker for worker in room.workers if not worker.dead]
            room.since = time.monotonic()
            self._idle.append(room)
            patience = IDLE_SECONDS if self._is_autoscaled else FIXED_IDLE_SECONDS
            asyncio.get_running_loop().call_later(patience, self._expire, room, room.since)
        self._serve()

    def _expire(self, room: Room, since: float) -> None:
        """Give up a room that has been idle since then."""
        if room in self._idle and room.since == since:
            self._idle.remove(room)
            self._give_up(room)

    def close(self) -> None:
        """End every process, and tell everybody who waits."""
        self._tell_all(ClusterTrouble("was not begun: the workers were closed"))
        for room in self._asked + self._idle + self._busy:
            room.give_up()
        for worker in self._coordinators:
            worker.kill()
        for rooms in (self._asked, self._idle, self._coordinators):
            rooms.clear()

    def _serve(self) -> None:
        """Serve everybody who may start and for whom there is a room; have asked for what the others need, no more."""
        while found := self._next_served():
            ticket, room = found
            self._busy.append(room)
            self._waiting.pop(ticket).set_result(room)
            placement.count_overtaking(ticket, self._waiting)
        for room in [room for room in self._idle if not room.workers]:  # nobody is left who wants it
            self._idle.remove(room)
            self._give_up(room)
        wanted = placement.may_start(self._waiting)[:MAX_ASKED]
        missing = Counter(ticket.shape.need for ticket in wanted)
        for room in list(self._asked):
            if missing[room.shape.need]:
                missing[room.shape.need] -= 1
            else:
                self._asked.remove(room)
                room.give_up()
        for ticket in wanted:
            if missing[ticket.shape.need]:
                missing[ticket.shape.need] -= 1
                self._asked.append(Room.ask(ticket.shape))
        self._has_news = False
        for use, rooms in (("busy", self._busy), ("idle", self._idle), ("asked", self._asked)):
            show("tournament_gpus", sum(room.shape.gpus * room.shape.workers for room in rooms), use=use)

    def _next_served(self) -> tuple[Ticket, Room] | None:
        """Who starts now and where: in a warm process, else where nobody works, else in the place of another's."""
        in_vain = set[tuple[Any, ...]]()
        for ticket in placement.may_start(self._waiting):
            shape = ticket.shape
            if shape.need in in_vain:
                continue
            fitting = [room for room in self._idle if room.fits(shape)]
            if not shape.size:  # there is always room for it, so nobody ends for it
                fitting = [room for room in fitting if room.is_warm_for(shape)] or [Room.ask(shape)]
            if fitting:
                room = min(fitting, key=lambda room: (not room.is_warm_for(shape), len(room.workers)))
                if room in self._idle:
                    self._idle.remove(room)
                return ticket, room
            in_vain.add(shape.need)
        return None

    async def _look(self) -> None:
        """See what Ray has placed, for as long as anybody waits."""
        try:
            while self._waiting:
                if time.monotonic() > self._checked + CHECK_SECONDS:
                    await self._check_homes()
                for room, nodes in await asyncio.to_thread(placed, list(self._asked)):
                    if room in self._asked:  # it may have been given up meanwhile
                        self._asked.remove(room)
                        room.nodes = nodes
                        self._idle.append(room)
                self._serve()
                self._make_room()
                await asyncio.sleep(LOOK_SECONDS)
        except Exception as error:  # noqa: BLE001 - raised where each of them waits
            trouble = ClusterTrouble(f"Ray does not answer: {said_by(error)}")
            trouble.__cause__ = error
            self._tell_all(trouble)

    def _make_room(self) -> None:
        """End as many idle processes, the longest idle first, as hold what the first who waits does not get."""
        first = next(iter(placement.may_start(self._waiting)), None)
        since = [room.since for room in self._asked if first is not None and room.fits(first.shape)]
        earliest = max(min(since, default=0.0) + PATIENCE_SECONDS, self._room_was_made + NEWS_SECONDS)
        if first is None or first.homeless_since is not None or not since or time.monotonic() < earliest:
            return
        missing = {name: amount * first.shape.workers for name, amount in first.shape.size.items()}
        for room in sorted(self._idle, key=lambda room: first.shape.gpus > 0 and not room.shape.gpus):
            if any(missing.get(name, 0.0) > 0 for name in room.shape.size):
                for name, amount in room.shape.size.items():
                    missing[name] = missing.get(name, 0.0) - amount * room.shape.workers
                self._idle.remove(room)
                self._give_up(room)
                self._room_was_made = time.monotonic()

    def _give_up(self, room: Room) -> None:
        """Give its place back to Ray; a gang's coordinator stays for the next, where that may be anywhere."""
        if room.worker is not None and not room.worker.dead and room.worker.may_coordinate(room.shape):
            self._coordinators.append(room.worker)
            room.workers = []
        room.give_up()

    async def _check_homes(self) -> None:
        """Forget rooms on lost nodes; tell those whom the cluster, or its autoscaler, cannot hold, when it stays so."""
        shapes = {ticket.shape for ticket in self._waiting}
        seen = await asyncio.to_thread(outlook, shapes)
        self._checked, self._is_autoscaled = time.monotonic(), seen.is_autoscaled
        for room in [room for room in self._idle if not seen.living.keys() >= {*room.nodes}]:
            self._idle.remove(room)
            self._give_up(room)
        # What an autoscaler has no node for may only wait for our own work to end.
        stuck = set[str]() if self._busy or self._idle else seen.unplaced
        needs = {room.shape.need for room in self._asked if room.id in stuck}
        for ticket, served in list(self._waiting.items()):
            words = seen.refused.get(ticket.shape)
            if words is None and ticket.shape.need in needs:
                words = f"waits for {ticket.shape.words}, for which the cluster's autoscaler has no node"
            if words is None:
                ticket.homeless_since = None
            elif ticket.homeless_since is None:
                ticket.homeless_since = time.monotonic()
            elif time.monotonic() - ticket.homeless_since > LOST_ROOM_SECONDS:
                del self._waiting[ticket]
                served.set_exception(ClusterTrouble(f"a {ticket.shape.role} {words}"))

    def _tell_all(self, error: Exception) -> None:
        for served in self._waiting.values():
            served.set_exception(error)
        self._waiting.clear()
