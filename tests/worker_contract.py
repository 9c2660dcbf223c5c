"""What holds for whatever runs calls: the tests that `cluster.workers.Workers` passes on Ray and in this process.

Test files import them and bring a fixture `workers` that has room for two shapes `SMALL` side by side. What the
functions do is seen in files, since they may run in other processes; each waits to be let go.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.errors import ClusterTrouble, Forfeit, UserError
from cluster.resources import Held, Shape
from cluster.workers import EVALUATOR, TRAINER, DeadlinePassed, WorkerDied, Workers

SMALL = Shape("trainer", 1, 0)
PATIENCE_SECONDS = 60


def add(left: int, right: int) -> int:
    return left + right


def fail(kind: str) -> None:
    if kind == "forfeit":
        raise Forfeit("in words")
    if kind == "user":
        raise UserError("file: key: wrong")
    if kind == "exit":
        sys.exit(3)
    raise RuntimeError("a bug\nover \x1b[1mtwo lines")


def work(folder: Path, name: str) -> str:
    """Note that it began, and by which thread; wait to be let go; note that it ended."""
    (folder / f"{name}.thread").write_text(f"{os.getpid()} {threading.get_native_id()}")
    note(folder, f"+{name}")
    while not ((folder / name).exists() or (folder / "all").exists()):
        time.sleep(0.01)
    note(folder, f"-{name}")
    return name


def note(folder: Path, line: str) -> None:
    with (folder / "log").open("a") as stream:
        stream.write(line + "\n")


def log(folder: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return (folder / "log").read_text().split()
    return []


def is_working(folder: Path, name: str) -> bool:
    """Whether the thread that began this work is still there."""
    process, thread = map(int, (folder / f"{name}.thread").read_text().split())
    with suppress(psutil.NoSuchProcess):
        return thread in [one.id for one in psutil.Process(process).threads()]
    return False


async def until(what: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not what():
            await asyncio.sleep(0.01)


def test_a_result_comes_back_and_who_waits_is_told_of_the_start(workers: Workers, tmp_path: Path):
    async def scenario() -> None:
        assert await workers.call(SMALL, add, 2, 3) == 5
        call = workers.call(SMALL, work, tmp_path, "it", placed=lambda held: note(tmp_path, f"placed:{held}"))
        (tmp_path / "it").touch()
        assert await call == "it"
        assert log(tmp_path) == ["placed:{'CPU':", "1}", "+it", "-it"]

    asyncio.run(scenario())


def test_our_errors_come_through_and_others_are_said_in_a_line(workers: Workers):
    async def scenario() -> None:
        with pytest.raises(Forfeit, match=r"^in words$"):
            await workers.call(SMALL, fail, "forfeit")
        with pytest.raises(UserError, match=r"^file: key: wrong$"):
            await workers.call(SMALL, fail, "user")
        with pytest.raises(ClusterTrouble) as bug:
            await workers.call(SMALL, fail, "bug")
        assert str(bug.value) == "fail failed in its worker: RuntimeError: a bug over [1mtwo lines"
        assert not isinstance(bug.value, WorkerDied)
        with pytest.raises(WorkerDied, match=r"ended itself with exit code 3$") as died:
            await workers.call(SMALL, fail, "exit")
        assert not died.value.node_lost
        assert await workers.call(SMALL, add, 1, 1) == 2

    asyncio.run(scenario())


def test_an_error_of_who_waits_leaves_the_place_free(workers: Workers, tmp_path: Path):
    def no(held: Held) -> None:
        raise UserError("not now")

    async def scenario() -> None:
        for _ in range(3):
            with pytest.raises(UserError, match="not now"):
                await workers.call(SMALL, work, tmp_path, "never", placed=no)
        assert await workers.call(SMALL, add, 1, 1) == 2
        assert log(tmp_path) == []

    asyncio.run(scenario())


def test_no_more_at_once_than_there_is_room_for(workers: Workers, tmp_path: Path):
    async def scenario() -> None:
        calls = [asyncio.create_task(workers.call(SMALL, work, tmp_path, str(i))) for i in range(5)]
        await until(lambda: len(log(tmp_path)) == 2)
        (tmp_path / "all").touch()
        assert await asyncio.gather(*calls) == list("01234")
        running = 0
        for line in log(tmp_path):
            running += 1 if line[0] == "+" else -1
            assert running <= 2

    asyncio.run(scenario())


async def all_have_asked(workers: Workers) -> None:
    """Until every call that has begun waits for its place, which it asks for when its files are on their way."""
    await asyncio.sleep(0)
    if (in_turn := getattr(workers, "_in_turn", None)) is not None:
        async with in_turn:  # of all who wait for it the last
            pass
        await asyncio.sleep(0)


def test_what_is_more_urgent_goes_first_and_then_what_came_first(workers: Workers, tmp_path: Path):
    async def scenario() -> None:
        def begin(name: str, priority: int) -> asyncio.Task[str]:
            return asyncio.create_task(workers.call(SMALL, work, tmp_path, name, priority=priority))

        calls = [begin("one", TRAINER), begin("two", TRAINER)]
        await until(lambda: len(log(tmp_path)) == 2)
        calls += [begin("late", TRAINER), begin("later", TRAINER), begin("urgent", EVALUATOR)]
        await all_have_asked(workers)
        for name in ("urgent", "late", "later"):
            (tmp_path / name).touch()
        (tmp_path / "one").touch()
        await asyncio.gather(*calls[2:])
        assert [line for line in log(tmp_path) if line[0] == "+"][2:] == ["+urgent", "+late", "+later"]
        (tmp_path / "two").touch()
        await asyncio.gather(*calls)

    asyncio.run(scenario())


def test_a_call_that_is_late_is_ended_and_its_place_is_free(workers: Workers, tmp_path: Path):
    async def scenario() -> None:
        calls = [workers.call(SMALL, work, tmp_path, name, deadline_seconds=0.3) for name in ("one", "two")]
        for late in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(late, DeadlinePassed)
            assert str(late) == "work had not ended after 0.3 s, and was ended"
        begun = [line[1:] for line in log(tmp_path)]
        await until(lambda: not any(is_working(tmp_path, name) for name in begun))
        assert await asyncio.gather(*(workers.call(SMALL, add, 1, i) for i in (1, 2))) == [2, 3]
        assert not any(line[0] == "-" for line in log(tmp_path))

    asyncio.run(scenario())


def test_the_deadline_does_not_count_the_wait_for_a_place(workers: Workers, tmp_path: Path):
    async def scenario() -> None:
        busy = [asyncio.create_task(workers.call(SMALL, work, tmp_path, name)) for name in ("one", "two")]
        await until(lambda: len(log(tmp_path)) == 2)
        waiting = asyncio.create_task(workers.call(SMALL, add, 1, 1, deadline_seconds=1))
        await asyncio.wait({waiting}, timeout=1.1)
        assert not waiting.done()
        (tmp_path / "all").touch()
        assert await waiting == 2
        await asyncio.gather(*busy)

    asyncio.run(scenario())


def test_a_call_that_is_cancelled_is_ended_and_its_place_is_free(workers: Workers, tmp_path: Path):
    async def scenario() -> None:
        calls = [asyncio.create_task(workers.call(SMALL, work, tmp_path, name)) for name in ("one", "two", "waiting")]
        await until(lambda: len(log(tmp_path)) == 2)
        for call in reversed(calls):
            call.cancel()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in ended] == [asyncio.CancelledError] * 3
        assert sorted(log(tmp_path)) == ["+one", "+two"]
        await until(lambda: not is_working(tmp_path, "one") and not is_working(tmp_path, "two"))
        assert await asyncio.gather(*(workers.call(SMALL, add, 1, i) for i in (1, 2))) == [2, 3]

    asyncio.run(scenario())


def test_what_can_never_be_had_is_refused(workers: Workers):
    workers.refuse_impossible(SMALL, "it")
    with pytest.raises(
        ClusterTrouble, match=r"^it asks for 3 CPU, which this cluster can never hold: it has 1 node of 2"
    ):
        workers.refuse_impossible(Shape("trainer", 3, 0), "it")
    with pytest.raises(ClusterTrouble, match=r"^it asks for 1 CPU, 1 GPU, which"):
        workers.refuse_impossible(Shape("trainer", 1, 1), "it")
    assert not workers.has_gpus


def test_the_room_of_a_cluster_does_not_depend_on_what_runs(workers: Workers, tmp_path: Path):
    async def scenario() -> None:
        busy = asyncio.create_task(workers.call(SMALL, work, tmp_path, "it"))
        await until(lambda: log(tmp_path))
        assert workers.room(SMALL) == 2
        (tmp_path / "it").touch()
        await busy

    asyncio.run(scenario())
