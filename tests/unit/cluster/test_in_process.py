"""Workers in this process: the contract, and what is theirs alone."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterTrouble
from cluster.in_process import InProcessWorkers
from cluster.resources import Shape
from cluster.workers import EVALUATOR, WorkerDied
from tests.worker_contract import (  # noqa: F401 - collected here
    SMALL,
    log,
    test_a_call_that_is_cancelled_is_ended_and_its_place_is_free,
    test_a_call_that_is_late_is_ended_and_its_place_is_free,
    test_a_result_comes_back_and_who_waits_is_told_of_the_start,
    test_an_error_of_who_waits_leaves_the_place_free,
    test_no_more_at_once_than_there_is_room_for,
    test_our_errors_come_through_and_others_are_said_in_a_line,
    test_the_deadline_does_not_count_the_wait_for_a_place,
    test_the_room_of_a_cluster_does_not_depend_on_what_runs,
    test_what_can_never_be_had_is_refused,
    test_what_is_more_urgent_goes_first_and_then_what_came_first,
    until,
    work,
)

SCORING = Shape("evaluator", 1, 0)


@pytest.fixture
def workers() -> InProcessWorkers:
    return InProcessWorkers(trainers=2, cpus=2, room=2)


def test_a_scoring_does_not_wait_for_trainers_that_wait_for_it(workers: InProcessWorkers, tmp_path: Path):
    async def scenario() -> None:
        trainers = [asyncio.create_task(workers.call(SMALL, work, tmp_path, name)) for name in ("one", "two")]
        await until(lambda: len(log(tmp_path)) == 2)
        (tmp_path / "score").touch()
        assert await workers.call(SCORING, work, tmp_path, "score", priority=EVALUATOR) == "score"
        (tmp_path / "all").touch()
        await asyncio.gather(*trainers)

    asyncio.run(scenario())


def test_close_ends_what_runs_and_what_waits(workers: InProcessWorkers, tmp_path: Path):
    async def scenario() -> list[Any]:
        calls = [asyncio.create_task(workers.call(SMALL, work, tmp_path, name)) for name in ("one", "two", "three")]
        await until(lambda: len(log(tmp_path)) == 2)
        workers.close()
        return await asyncio.gather(*calls, return_exceptions=True)

    ended = asyncio.run(scenario())
    assert [type(error) for error in ended] == [WorkerDied, WorkerDied, ClusterTrouble]
    assert sorted(log(tmp_path)) == ["+one", "+two"]


def test_who_sleeps_in_native_code_is_left_behind(workers: InProcessWorkers):
    over, slept = threading.Event(), threading.Event()

    def sleep() -> None:
        slept.set()
        over.wait()

    async def scenario() -> None:
        for _ in range(3):
            call = asyncio.create_task(workers.call(SMALL, sleep))
            await until(slept.is_set)
            slept.clear()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            assert call.cancelled()

    asyncio.run(scenario())
    over.set()


def test_gpus_can_be_pretended():
    with_gpus = InProcessWorkers(has_gpus=True, gpus=2)
    assert with_gpus.has_gpus
    with_gpus.refuse_impossible(Shape("trainer", 1, 1, workers=2, gang=True), "it")
    with pytest.raises(ClusterTrouble, match="asks for 3 workers of 1 CPU, 1 GPU each"):
        with_gpus.refuse_impossible(Shape("trainer", 1, 1, workers=3, gang=True), "it")


def test_a_subclass_says_how_calls_fare():
    class Failing(InProcessWorkers):
        def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
            if args == ("lost",):
                raise WorkerDied("its node died", node_lost=True)
            return super()._run(function, args)

    async def scenario() -> None:
        workers = Failing()
        with pytest.raises(WorkerDied, match="its node died") as died:
            await workers.call(SMALL, str, "lost")
        assert died.value.node_lost
        assert await workers.call(SMALL, str, "found") == "found"

    asyncio.run(scenario())


def test_a_cause_of_our_own_error_is_kept(workers: InProcessWorkers):
    def full() -> None:
        raise ClusterTrouble("cannot write") from OSError(28, "No space left on device")

    with pytest.raises(ClusterTrouble) as trouble:
        asyncio.run(workers.call(SMALL, full))
    assert isinstance(trouble.value.__cause__, OSError)
