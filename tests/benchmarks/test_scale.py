"""What a round of very many entries costs where they do nothing: the driver by itself, and on Ray against raw tasks.

SCALE_ENTRIES and SCALE_GPUS set the size; 1,000 over 128 needs some 12 GB, and a second of CPU for each of 2 x 128
processes. docs/scale.md has what came of it.
"""

import asyncio
import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import ray
from ray.cluster_utils import Cluster

from cluster.on_ray.connect import connected
from cluster.on_ray.ray_workers import RayWorkers
from cluster.resources import Shape
from orchestrator.record.run_directory import RunDirectory
from orchestrator.views.pages import Pages
from tests.faked import faked_config, play

ENTRIES, GPUS = int(os.environ.get("SCALE_ENTRIES", "200")), int(os.environ.get("SCALE_GPUS", "8"))
SECONDS = float(os.environ.get("SCALE_SECONDS", "1"))
"""So long each does nothing: of tasks that end at once Ray runs hundreds in three processes, whatever the GPUs."""
GPUS_PER_NODE = min(GPUS, 64)
"""Few nodes: each has two agents of 200 MB."""
ONE = Shape("trainer", 0, 1)


def test_what_the_driver_pays_for_an_entry(tmp_path: Path):
    """The real loop and the real record; training and scoring are pretended in threads of this process."""
    print()
    for count in (ENTRIES // 4, ENTRIES):
        field = [{"name": f"c{n:05d}", "kind": "sft", "learning_rate": 1e-3} for n in range(count)]
        config = faked_config(tmp_path, competitors=field, rounds=1)
        before, begun = time.process_time(), time.monotonic()
        play(config, tmp_path / f"run-{count}")
        cpu, wall = time.process_time() - before, time.monotonic() - begun
        before = time.process_time()
        Pages(RunDirectory(tmp_path / f"run-{count}")).hear([])
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{count} entries: {1000 * cpu / count:.0f} ms of CPU and {1000 * wall / count:.0f} ms each,"
            f" at most {memory:.0f} MB; leaderboard and report {time.process_time() - before:.1f} s"
        )


def test_a_round_of_entries_that_do_nothing_against_raw_tasks():
    """Twice each, the first time with processes that have to start; each side on a cluster of its own."""
    walls = {"tasks": _on_a_cluster(_tasks), "entries": _on_a_cluster(_entries)}
    print()
    for number, when in enumerate(("first", "again")):
        tasks, ours = walls["tasks"][number], walls["entries"][number]
        print(
            f"{ENTRIES} over {GPUS} GPUs, {when}: tasks {tasks:.1f} s, entries {ours:.1f} s, {ours / tasks:.2f} times"
        )


def _on_a_cluster(side: Callable[[], list[float]]) -> list[float]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(GPUS // GPUS_PER_NODE):
            cluster.add_node(num_cpus=4, num_gpus=GPUS_PER_NODE)  # so many processes start at once
        cluster.wait_for_nodes()
        with connected(cluster.address):
            return side()
    finally:
        cluster.shutdown()


def _tasks() -> list[float]:
    # By value: importing this file loads torch. And kept warm, as ours are: Ray ends a process after each task with a
    # GPU unless it is told not to.
    seconds = SECONDS
    task = ray.remote(num_cpus=0, num_gpus=1, max_calls=0)(lambda number: time.sleep(seconds))
    return [_timed(lambda: ray.get([task.remote(n) for n in range(ENTRIES)]), "tasks") for _ in range(2)]


def _entries() -> list[float]:
    async def entries() -> None:
        await asyncio.gather(*(workers.call(ONE, time.sleep, SECONDS) for _ in range(ENTRIES)))

    workers = RayWorkers()
    try:
        return [_timed(lambda: asyncio.run(entries()), "entries") for _ in range(2)]
    finally:
        workers.close()


def _timed(work: Callable[[], object], what: str) -> float:
    """Seconds of the wall; says what it took of the driver's CPU, and of memory in each process on Ray."""
    cpu, begun = time.process_time(), time.monotonic()
    work()
    wall = time.monotonic() - begun
    cpu = time.process_time() - cpu
    held = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # Ray ends some that are idle
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::"):
                held.append(process.memory_full_info().uss / 2**20)
    print(
        f"\n{what}: {wall:.1f} s, {1000 * cpu / ENTRIES:.1f} ms of the driver's CPU each; {len(held)} processes and"
        f" agents of {sum(held) / len(held):.0f} MB",
        end="",
    )
    return wall
