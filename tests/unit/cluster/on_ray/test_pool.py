"""Who gets which room: the pool's own doing, with rooms that only pretend to be Ray's."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from cluster import placement
from cluster.errors import ClusterTrouble
from cluster.on_ray import pool as pools
from cluster.on_ray.nodes import Outlook
from cluster.on_ray.pool import Pool
from cluster.on_ray.ray_process import Worker
from cluster.on_ray.ray_workers import RayWorkers
from cluster.on_ray.rooms import Room
from cluster.placement import Node, Ticket
from cluster.resources import Shape, Size

SMALL, LARGE, SCORING = Shape("trainer", 1, 0), Shape("trainer", 4, 0), Shape("evaluator", 1, 0)
NOTHING = Shape("trainer", 0, 0)
OUTLOOK = Outlook({"a": Node({})}, {}, set(), is_autoscaled=False)
GANG = Shape("trainer", 1, 0, workers=2, gang=True)
TRAINING, EVALUATION = Shape("trainer", 2, 1), Shape("evaluator", 0, 1)


@dataclass(eq=False)
class FakedWorker:
    """A process that never is, and takes `part` of its room."""

    shape: Shape
    part: Size
    dead: bool = False
    rested: int = 0
    fails: Exception | None = None
    group: Any = None
    nodes: Any = None
    lives: bool = True
    """Whether it would answer."""

    may_coordinate = Worker.may_coordinate

    async def answer(self) -> None:
        if not self.lives:
            raise ActorDiedError()

    def kill(self) -> None:
        self.dead = True

    async def rest(self) -> None:
        self.rested += 1
        if self.fails:
            raise self.fails


@dataclass
class FakedRay:
    """What Ray would hold: so many CPUs, placed in the order in which they were asked for."""

    cpus: float
    gpus: float = 1
    asked: list[Room] = field(default_factory=list)
    held: list[Room] = field(default_factory=list)

    def ask(self, shape: Shape) -> Room:
        room = Room(shape, None)
        self.asked.append(room)
        return room

    def placed(self, rooms: list[Room]) -> list[tuple[Room, list[str]]]:
        found = []
        for room in [room for room in self.asked if room in rooms]:
            holders = [*self.held, room]
            cpus, gpus = (sum(getattr(one.shape, what) for one in holders) for what in ("cpus", "gpus"))
            if cpus <= self.cpus and gpus <= self.gpus:
                self.asked.remove(room)
                self.held.append(room)
                found.append((room, ["a"]))
        return found

    def give_up(self, room: Room) -> None:
        for worker in room.workers:
            worker.kill()
        for rooms in (self.asked, self.held):
            if room in rooms:
                rooms.remove(room)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakedRay]:
    faked = FakedRay(4)
    monkeypatch.setattr(Room, "ask", faked.ask)
    monkeypatch.setattr(Room, "give_up", lambda room: faked.give_up(room))
    monkeypatch.setattr(Worker, "start", lambda shape, part, *_: FakedWorker(shape, part))
    monkeypatch.setattr(pools, "placed", faked.placed)
    monkeypatch.setattr(pools, "outlook", lambda shapes: OUTLOOK)
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
            self.pool.enter(room, shape)
            await room.rest_others()
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


def test_on_one_gpu_a_trainer_and_an_evaluator_keep_their_processes(ray: FakedRay):
    async def scenario() -> None:
        played = Played()
        room = await played.wait("train", TRAINING)
        trainer: Any = room.worker
        played.pool.leave(room, lost=False)
        for turn in range(1, 3):
            assert await played.wait("score", EVALUATION, priority=0) is room
            evaluator: Any = room.worker
            assert (evaluator.shape, trainer.rested, trainer.dead) == (EVALUATION, turn, False)
            played.pool.leave(room, lost=False)
            assert await played.wait("train", TRAINING) is room
            assert room.workers == [evaluator, trainer]
            assert evaluator.rested == turn
            played.pool.leave(room, lost=False)
        assert ray.held == [room]
        assert [trainer.part, evaluator.part] == [{"CPU": 2, "GPU": 0.5}, {"CPU": 0, "GPU": 0.5}]
        # Another trainer that fits takes the place of its like.
        other = Shape("trainer", 1, 1)
        assert await played.wait("other", other) is room
        assert (trainer.dead, evaluator.dead, room.worker and room.worker.shape) == (True, False, other)
        played.pool.leave(room, lost=False)
        # What asks for more than was held has to have a room of its own.
        assert await played.wait("large", Shape("trainer", 3, 1)) is not room
        assert evaluator.dead

    asyncio.run(scenario())


def test_a_process_that_does_not_give_back_what_it_keeps_is_ended(ray: FakedRay):
    async def scenario() -> None:
        played = Played()
        room = await played.wait("train", TRAINING)
        trainer: Any = room.worker
        trainer.fails = ActorDiedError()
        played.pool.leave(room, lost=False)
        await played.wait("score", EVALUATION)
        assert trainer.dead
        assert [worker.shape for worker in room.workers] == [EVALUATION]
        trainer, evaluator = await enter_beside(played, room)
        room.end_others()
        assert (evaluator.dead, trainer.dead, room.workers) == (True, False, [trainer])

    async def enter_beside(played: Played, room: Room) -> tuple[Any, Any]:
        evaluator = room.worker
        played.pool.leave(room, lost=False)
        assert await played.wait("train", TRAINING) is room
        return room.worker, evaluator

    asyncio.run(scenario())


def test_several_gpus_and_cpus_are_not_shared(ray: FakedRay):
    ray.gpus = 2
    assert not Room(Shape("trainer", 1, 2), None).fits(Shape("evaluator", 0, 2))
    assert not Room(Shape("trainer", 1, 0), None).fits(Shape("evaluator", 0.5, 0))
    assert not Room(TRAINING, None).fits(Shape("evaluator", 0, 0.5))
    assert not Room(TRAINING, None).fits(Shape("evaluator", 0, 1, labels=(("kind", "new"),)))
    assert not Room(TRAINING, None).fits(Shape("evaluator", 0, 1, memory_gb=1))

    async def scenario() -> None:
        played = Played()
        room = await played.wait("train", Shape("trainer", 1, 2))
        trainer: Any = room.worker
        assert trainer.part == {"CPU": 1, "GPU": 2}
        played.pool.leave(room, lost=False)
        assert await played.wait("score", Shape("evaluator", 1, 2)) is room
        assert trainer.dead

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


@pytest.mark.parametrize(("is_autoscaled", "patience"), [(True, "IDLE_SECONDS"), (False, "FIXED_IDLE_SECONDS")])
def test_idle_rooms_are_given_back_to_an_autoscaler_or_to_other_jobs(
    ray: FakedRay, monkeypatch: pytest.MonkeyPatch, is_autoscaled: bool, patience: str
):
    monkeypatch.setattr(pools, "outlook", lambda shapes: replace(OUTLOOK, is_autoscaled=is_autoscaled))
    monkeypatch.setattr(pools, patience, 0.05)

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


def started(monkeypatch: pytest.MonkeyPatch) -> list[FakedWorker]:
    """All that are started from now on."""
    found: list[FakedWorker] = []

    def start(shape: Shape, part: Size, *_: Any) -> FakedWorker:
        found.append(FakedWorker(shape, part))
        return found[-1]

    monkeypatch.setattr(Worker, "start", start)
    return found


def workers() -> RayWorkers:
    """With a pool of its own, on a cluster that is known to be fit."""
    made = object.__new__(RayWorkers)
    made._pool, made._fit = Pool({}), {"a"}
    return made


def test_a_coordinator_that_died_while_it_was_idle_fails_no_gang(ray: FakedRay, monkeypatch: pytest.MonkeyPatch):
    processes, several = started(monkeypatch), workers()

    async def scenario() -> None:
        room = await several._take(Ticket(1, 0, GANG))
        several._pool.leave(room, lost=False)
        processes[0].lives = False
        for number in (1, 2):
            room = await several._take(Ticket(1, number, GANG))
            several._pool.leave(room, lost=False)

    asyncio.run(scenario())
    assert len(processes) == 2


@pytest.mark.parametrize("shares_disk", [True, False])
def test_a_coordinator_stays_only_where_another_gang_can_use_it(
    ray: FakedRay, monkeypatch: pytest.MonkeyPatch, shares_disk: bool
):
    processes, several, shape = started(monkeypatch), workers(), replace(GANG, shares_disk=shares_disk)

    async def scenario() -> None:
        for number in range(3):
            room = await several._take(Ticket(1, number, shape))
            several._pool.leave(room, lost=False)
            several._pool._expire(room, room.since)

    asyncio.run(scenario())
    assert [process.dead for process in processes] == ([False] if shares_disk else [True] * 3)
