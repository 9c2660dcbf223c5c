"""What a round of very many entries costs where they do nothing: the driver by itself, and on Ray against raw tasks.

SCALE_ENTRIES and SCALE_GPUS set the size; 1,000 over 128 needs some 12 GB, since each pretended GPU has a process.
"""

import asyncio
import os
import resource
import time
from operator import index
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from cluster.connect import connected
from cluster.ray_workers import RayWorkers
from cluster.resources import Shape
from orchestrator.record.run_directory import RunDirectory
from orchestrator.views.pages import Pages
from tests.faked import faked_config, play

ENTRIES, GPUS = int(os.environ.get("SCALE_ENTRIES", "200")), int(os.environ.get("SCALE_GPUS", "8"))
GPUS_PER_NODE = 8
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
    """Twice each, the first time with processes that have to start."""

    async def entries() -> None:
        calls = [workers.call(ONE, index, n) for n in range(ENTRIES)]
        assert sorted(await asyncio.gather(*calls)) == list(range(ENTRIES))

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(GPUS // GPUS_PER_NODE):
        cluster.add_node(num_cpus=GPUS_PER_NODE, num_gpus=GPUS_PER_NODE)
    cluster.wait_for_nodes()
    walls: dict[str, list[float]] = {"tasks": [], "entries": []}
    try:
        with connected(cluster.address):
            task = ray.remote(num_cpus=0, num_gpus=1)(
                lambda number: number
            )  # by value: importing this file loads torch
            for _ in range(2):
                begun = time.monotonic()
                ray.get([task.remote(n) for n in range(ENTRIES)])
                walls["tasks"].append(time.monotonic() - begun)
            workers = RayWorkers()
            before = time.process_time()
            for _ in range(2):
                begun = time.monotonic()
                asyncio.run(entries())
                walls["entries"].append(time.monotonic() - begun)
            cpu = (time.process_time() - before) / 2 / ENTRIES
            workers.close()
    finally:
        cluster.shutdown()
    print()
    for number, when in enumerate(("first", "again")):
        tasks, ours = walls["tasks"][number], walls["entries"][number]
        print(
            f"{ENTRIES} over {GPUS} GPUs, {when}: tasks {tasks:.1f} s, entries {ours:.1f} s, {ours / tasks:.2f} times"
        )
    print(f"the driver: {1000 * cpu:.1f} ms of CPU an entry")
