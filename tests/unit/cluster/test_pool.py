"""Who gets which room: the pool's own doing, with rooms that only pretend to be Ray's."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cluster import placement
from cluster import pool as pools
from cluster.errors import ClusterTrouble
from cluster.placement import Ticket
from cluster.pool import Pool
from cluster.resources import Shape
from cluster.rooms import Room

SMALL, LARGE, SCORING = Shape("trainer", 1, 0), Shape("trainer", 4, 0), Shape("evaluator", 1, 0)
NOTHING = Shape("trainer", 0, 0)


@dataclass(eq=False)
class FakedWorker:
    """A process that never is."""

    shape: Shape
    dead: bool = False

    def kill(self) -> None:
        self.dead = True


@dataclass
class FakedRay:
    """What Ray would hold: so many CPUs, placed in the order in which they were asked for."""

    cpus: float
    asked: list[Room] = field(default_factory=list)
    held: list[Room] = field(default_factory=list)

    def ask(self, shape: Shape) -> Room:
        room = Room(shape, None)
        self.asked.append(room)
        return room

    def placed(self, rooms: list[Room]) -> list[tuple[Room, list[str]]]:
        found = []
        for room in [room for room in self.asked if room in rooms]:
            if sum(held.shape.cpus for held in self.held) + room.shape.cpus <= self.cpus:
                self.asked.remove(room)
                self.held.append(room)
                found.append((room, ["a"]))
        return found

    def give_up(self, room: Room) -> None:
        if room.worker is not None:
            room.worker.kill()
        for rooms in (self.asked, self.held):
            if room in rooms:
                rooms.remove(room)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakedRay]:
    faked = FakedRay(4)
    monkeypatch.setattr(Room, "ask", faked.ask)
    monkeypatch.setattr(Room, "give_up", lambda room: faked.give_up(room))
    monkeypatch.setattr(pools, "placed", faked.placed)
    monkeypatch.setattr(pools, "living_nodes", lambda: {"a": None})
    monkeypatch.setattr(pools, "refusals", lambda shapes: {})
    monkeypatch.setattr(pools, "not_placeable", lambda: None)
    for name in ("LOOK_SECONDS", "PATIENCE_SECONDS", "NEWS_SECONDS"):
        monkeypatch.setattr(pools, name, 0.01)
    return faked


class Played:
    """A pool and who was served, in order."""

    def __init__(self) -> None:
        self.pool, self.served, self.numbers = Pool({}), list[tuple[str, Room]](), iter(range(1000))

    def wait(self, name: str, shape: Shape, priority: int = 1) -> asyncio.Task[Room]:
        async def waits() -> Room:
            room = await self.pool.room_for(Ticket(priority, next(self.numbers), shape))
            self.served.append((name, room))
            if room.worker is None or room.shape != shape:
                if room.worker is not None:
                    room.worker.kill()
                room.shape, room.worker = shape, FakedWorker(shape)  # type: ignore[assignment]
            return room

        return asyncio.create_task(waits())

    def names(self) -> list[str]:
        return [name for name, _ in self.served]


def test_a_warm_room_comes_first_then_that_of_another_of_its_size(ray: FakedRay):
    async def scenario() -> None:
        played = Played()
        one, other = [await played.wait(name, SMALL) for name in ("one", "other")]
        played.pool.leave(one, lost=False)
        assert await played.wait("warm", SMALL) is one
        played.pool.leave(one, lost=False)
        before: Any = one.worker
        assert await played.wait("scoring", SCORING) is one  # the place of a trainer, at once
        assert before.dead
        assert len(ray.held) == 2
        played.pool.leave(other, lost=True)
        assert len(ray.held) == 1

    asyncio.run(scenario())


def test_who_comes_together_is_looked_at_once_and_the_most_urgent_goes_first(
    ray: FakedRay, monkeypatch: pytest.MonkeyPatch
):
    looks, may_start = [], placement.may_start

    def counted(waiting: Any) -> Any:
        looks.append(len(waiting))
        return may_start(waiting)

    async def scenario() -> None:
        played = Played()
        rooms = [await played.wait(f"first {n}", SMALL) for n in range(4)]
        monkeypatch.setattr(placement, "may_start", counted)
        waiting = [played.wait(f"later {n}", SMALL, priority=2 if n < 199 else 1) for n in range(200)]
        while len(played.pool._waiting) < 200:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert 0 < len(looks) < 10
        played.pool.leave(rooms[0], lost=False)
        await waiting[-1]
        assert played.names()[4:] == ["later 199"]
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

    asyncio.run(scenario())


def test_what_asks_for_nothing_never_waits_and_ends_nobody(ray: FakedRay):
    async def scenario() -> None:
        played = Played()
        first = await played.wait("first", NOTHING)
        played.pool.leave(first, lost=False)
        worker: Any = first.worker
        assert await played.wait("other role", Shape("evaluator", 0, 0)) is not first
        assert not worker.dead
        assert await played.wait("again", NOTHING) is first

    asyncio.run(scenario())


def test_as_many_idle_ones_end_as_hold_what_the_first_who_waits_asks_for(ray: FakedRay):
    async def scenario() -> None:
        played = Played()
        rooms = [await played.wait(str(n), SMALL) for n in range(4)]
        for room in rooms:
            played.pool.leave(room, lost=False)
        await played.wait("two", Shape("trainer", 2, 0))
        ended: list[Any] = [room.worker for room in rooms]
        assert [worker.dead for worker in ended] == [True, True, False, False]  # the longest idle
        assert ray.asked == []

    asyncio.run(scenario())


def test_the_less_urgent_do_not_even_ask(ray: FakedRay):
    async def scenario() -> None:
        played = Played()
        busy = await played.wait("busy", LARGE)
        waiting = [played.wait("training", SMALL), played.wait("scoring", LARGE, priority=0)]
        await asyncio.sleep(0.05)
        assert [room.shape for room in ray.asked] == [LARGE]
        played.pool.leave(busy, lost=True)
        played.pool.leave(await waiting[1], lost=True)
        await waiting[0]
        assert played.names() == ["busy", "scoring", "training"]

    asyncio.run(scenario())


def test_one_that_is_called_off_just_when_it_could_be_served_loses_no_room(ray: FakedRay):
    async def scenario() -> None:
        played = Played()
        busy = await played.wait("busy", LARGE)
        waiting, other = played.wait("called off", LARGE), played.wait("other", LARGE)
        await asyncio.sleep(0)
        waiting.cancel()
        played.pool.leave(busy, lost=False)  # before the one that was called off could take its ticket back
        assert await other is busy
        with pytest.raises(asyncio.CancelledError):
            await waiting
        played.pool.leave(busy, lost=True)
        assert ray.held == ray.asked == []

    asyncio.run(scenario())


def test_an_error_of_ray_reaches_everybody_who_waits(ray: FakedRay, monkeypatch: pytest.MonkeyPatch):
    def gone(rooms: list[Room]) -> Any:
        raise OSError("GCS is gone")

    async def scenario() -> list[Any]:
        played = Played()
        monkeypatch.setattr(pools, "placed", gone)
        return await asyncio.gather(*(played.wait(name, SMALL) for name in "ab"), return_exceptions=True)

    errors = asyncio.run(scenario())
    assert [type(error) for error in errors] == [ClusterTrouble] * 2
    assert str(errors[0]) == "Ray does not answer: GCS is gone"


def test_where_an_autoscaler_is_idle_rooms_are_given_back(ray: FakedRay, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pools, "not_placeable", set)
    monkeypatch.setattr(pools, "IDLE_SECONDS", 0.05)

    async def scenario() -> None:
        played = Played()
        room = await played.wait("one", SMALL)
        played.pool.leave(room, lost=False)
        assert await played.wait("again", SMALL) is room
        await asyncio.sleep(0.1)
        assert ray.held == [room]  # it works
        played.pool.leave(room, lost=False)
        await asyncio.sleep(0.1)
        assert ray.held == []

    asyncio.run(scenario())
