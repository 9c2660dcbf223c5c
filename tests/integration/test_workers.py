"""Workers on Ray: the contract, warm processes, and what is known of a process that died."""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError

from cluster.errors import ClusterTrouble, Forfeit
from cluster.on_ray import ray_workers
from cluster.on_ray.ray_process import _memory_monitor
from cluster.on_ray.ray_workers import RayWorkers, living_nodes
from cluster.placement import MAX_OVERTAKEN
from cluster.resources import Shape
from cluster.workers import WorkerDied
from tests.worker_contract import (  # noqa: F401 - collected here
    SMALL,
    add,
    fail,
    log,
    note,
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

WHOLE = Shape("whole", 2, 0)


def pid() -> int:
    return os.getpid()


def environment(name: str) -> str | None:
    return os.environ.get(name)


def die(how: str) -> None:
    """End this process, in one way or another."""
    if how == "crash":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(3)
    if how == "exit of C":
        ctypes.CDLL(None)._exit(3)
    if how == "after a child":  # whose end is not this process's, nor is a signal that it gets
        crashed = multiprocessing.get_context("fork").Process(target=os.abort)
        crashed.start()
        crashed.join()
        how = "SIGKILL"
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(60)


def test_processes_stay_warm_and_are_ended_when_another_shape_needs_their_place(workers: RayWorkers, tmp_path: Path):
    async def scenario() -> None:
        first = await workers.call(WHOLE, pid)
        assert await workers.call(WHOLE, pid) == first
        assert await workers.call(WHOLE, environment, "HF_HUB_OFFLINE") == "1"  # what the fixture sets
        with pytest.raises(Forfeit):
            await workers.call(WHOLE, fail, "forfeit")
        assert await workers.call(WHOLE, pid) == first
        # Small ones whose process is warm go before one that needs both CPUs, but so many only.
        await workers.call(SMALL, add, 1, 1)
        (tmp_path / "all").touch()
        whole = asyncio.create_task(workers.call(WHOLE, work, tmp_path, "whole"))
        await asyncio.sleep(0)
        names = [f"small-{i}" for i in range(MAX_OVERTAKEN + 2)]
        await asyncio.gather(whole, *(workers.call(SMALL, work, tmp_path, name) for name in names))
        assert [line for line in log(tmp_path) if line[0] == "+"].index("+whole") <= MAX_OVERTAKEN
        assert log(tmp_path).index("-whole") == log(tmp_path).index("+whole") + 1
        assert await workers.call(WHOLE, pid) != first

    asyncio.run(scenario())


def test_without_a_gpu_a_process_sees_none_whatever_ray_leaves_it(workers: RayWorkers):
    """On a cluster that was joined Ray leaves a process without GPUs all of its machine's."""
    assert asyncio.run(workers.call(SMALL, environment, "CUDA_VISIBLE_DEVICES")) == ""


def test_ray_shows_what_a_process_is_for(workers: RayWorkers):
    import ray

    assert asyncio.run(workers.call(SMALL, add, 1, 1)) == 2
    assert any(name.startswith("trainer-") for name in ray.util.list_named_actors())


def test_after_a_cancelled_call_and_after_a_bug_the_process_is_another(workers: RayWorkers, tmp_path: Path):
    async def scenario() -> None:
        first = await workers.call(WHOLE, pid)
        call = asyncio.create_task(workers.call(WHOLE, work, tmp_path, "it"))
        await until(lambda: log(tmp_path))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        second = await workers.call(WHOLE, pid)
        await asyncio.gather(workers.call(WHOLE, fail, "bug"), return_exceptions=True)
        third = await workers.call(WHOLE, pid)
        assert len({first, second, third}) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("crash", r"its process died of SIGSEGV \(segmentation fault\)"),
        ("SIGABRT", r"its process died of SIGABRT \(aborted\)"),
        ("SIGTERM", r"its process was told to end \(SIGTERM\)"),
        ("exit", "its process ended itself with exit code 3"),
        ("SIGKILL", "its process ended without a word, as SIGKILL ends one; the kernel's counter does not say .*"),
        ("exit of C", "its process ended without a word, as SIGKILL ends one; the kernel's counter does not say .*"),
        ("after a child", "its process ended without a word, as SIGKILL ends one; .*"),
    ],
)
def test_how_a_process_died_is_said(workers: RayWorkers, how: str, words: str):
    async def scenario() -> None:
        with pytest.raises(WorkerDied, match=rf"^{words}$") as died:
            await workers.call(SMALL, die, how)
        assert not died.value.node_lost
        assert await workers.call(SMALL, add, 1, 1) == 2

    asyncio.run(scenario())


def test_only_the_error_of_the_memory_monitor_speaks_of_it():
    killed = OutOfMemoryError(
        "1 worker(s) were killed: Memory on the node (IP: 1, ID: 2) was 3.5GB used / 23.5GB limit"
    )
    assert _memory_monitor(killed) == (
        "its process was killed by Ray's memory monitor: its node ran low on memory (3.5GB used / 23.5GB limit)"
    )
    assert _memory_monitor(ActorDiedError()) is None


def test_close_ends_what_runs_and_what_waits(workers: RayWorkers, tmp_path: Path):
    others = RayWorkers()

    async def scenario() -> list[Any]:
        calls = [asyncio.create_task(others.call(WHOLE, work, tmp_path, name)) for name in ("one", "two")]
        await until(lambda: log(tmp_path))
        others.close()
        return await asyncio.gather(*calls, return_exceptions=True)

    workers.close()  # its warm ones leave room
    one, two = asyncio.run(scenario())
    assert (type(one), str(one)) == (WorkerDied, "its process was ended with all the others")
    assert str(two) == "was not begun: the workers were closed"


def test_a_node_that_has_joined_is_asked_when_it_is_first_used(workers: RayWorkers, monkeypatch: pytest.MonkeyPatch):
    asked = list[tuple[Path | None, set[str]]]()

    def unfit(proof: Path | None, nodes: set[str]) -> list[str]:
        asked.append((proof, nodes))
        return ["node 10.0.0.7 lacks trl 1.16.0"] if len(asked) == 1 else []

    workers.close()
    monkeypatch.setattr(ray_workers, "living_nodes", dict)  # none has been there when the workers were made
    later = RayWorkers(proof=Path("proof"))
    monkeypatch.undo()
    monkeypatch.setattr(ray_workers, "unfit_nodes", unfit)
    with pytest.raises(ClusterTrouble, match=r"node 10\.0\.0\.7 lacks trl 1\.16\.0"):
        asyncio.run(later.call(SMALL, add, 1, 2))
    assert asyncio.run(later.call(SMALL, add, 1, 2)) == 3
    assert asyncio.run(later.call(SMALL, add, 1, 2)) == 3
    assert asked == [(Path("proof"), set(living_nodes()))] * 2  # and then it is known to be fit
    later.close()
