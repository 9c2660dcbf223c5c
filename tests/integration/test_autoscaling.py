"""A cluster that grows from zero for a round of gangs and shrinks after it, with Ray's own autoscaler.

Its nodes are raylets on this machine: Ray's fake provider, by way of `external`, since the wheel lacks its defaults.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ray.util import get_node_ip_address

from cluster.errors import ClusterTrouble
from cluster.on_ray import nodes, pool
from cluster.on_ray.connect import connected
from cluster.on_ray.lent_group import placed_on
from cluster.on_ray.nodes import living_nodes
from cluster.on_ray.ray_workers import RayWorkers
from cluster.resources import Shape
from tests.ray_nodes import free_ports
from tests.ray_start import in_time

pytestmark = pytest.mark.slow

GANG, TOO_LARGE = (Shape("trainer", 1, gpus, workers=2, gang=True) for gpus in (1, 9))
HEAD, MACHINES, GANGS = "f" * 51 + "00000", 4, 16
PROVIDER = {
    "type": "external",
    "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
    "head_node_id": HEAD,
    "launch_multiple": True,
}
LISTS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
CONFIG = {f"{name}_commands": [] for name in LISTS} | {
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    "cluster_synced_files": [],
    "rsync_exclude": [],
    "rsync_filter": [],
    "cluster_name": "fake",
    "max_workers": MACHINES,
    "upscaling_speed": 100.0,
    "idle_timeout_minutes": 0.1,
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpus": {"resources": {"CPU": 8, "GPU": 8}, "node_config": {}, "min_workers": 0, "max_workers": MACHINES},
    },
    "head_node_type": "ray.head.default",
}


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a head that holds nothing, with an autoscaler that may add four machines of eight GPUs."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    config, gcs = tmp_path / "cluster.json", f"{get_node_ip_address()}:{free_ports(1)[0]}"
    config.write_text(json.dumps(CONFIG | {"provider": PROVIDER | {"gcs_address": gcs}}))
    fake = {"RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    fake |= {
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
        "RAY_NODE_TYPE_NAME": CONFIG["head_node_type"],
    }
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", "--head", "--block", f"--port={gcs.rpartition(':')[2]}", "--num-cpus=0", "--num-gpus=0"]
    command += ["--disable-usage-stats", "--include-dashboard=false", f"--autoscaling-config={config}"]
    said = tmp_path / "head.log"

    def start() -> subprocess.Popen[bytes]:
        with said.open("w") as log:
            head = subprocess.Popen(command, env=os.environ | fake, stdout=log, stderr=log, start_new_session=True)
        while f"--address='{gcs}'" not in (text := said.read_text()):
            if head.poll() is not None:
                with suppress(ProcessLookupError):
                    os.killpg(head.pid, signal.SIGKILL)
                raise RuntimeError(text)
            time.sleep(0.2)
        return head

    head = in_time(start)
    try:
        yield gcs
    finally:
        head.terminate()
        head.wait(60)
        with suppress(ProcessLookupError):  # Ray's provider leaves its nodes' helpers behind
            os.killpg(head.pid, signal.SIGKILL)


def meet(folder: Path, name: int) -> list[str]:
    """Where it stood when all had met."""
    (folder / f"{name}.here").touch()
    while len(list(folder.glob("*.here"))) < GANGS:
        time.sleep(0.1)
    return placed_on()


def test_a_round_of_gangs_has_the_cluster_grow_from_nothing_and_shrink_after_it(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async def scenario() -> None:
        workers = RayWorkers()
        workers.refuse_impossible(TOO_LARGE, "it")  # for all we know the autoscaler has such a machine
        try:
            stood = await asyncio.gather(*(workers.call(GANG, meet, tmp_path, n) for n in range(GANGS)))
            assert len(living_nodes()) == 1 + MACHINES
            assert {node for nodes_of_one in stood for node in nodes_of_one} == living_nodes().keys() - {HEAD}
            while len(living_nodes()) > 1:  # processes that are idle hold no machine for long
                await asyncio.sleep(0.5)
            monkeypatch.setattr(pool, "LOST_ROOM_SECONDS", 3.0)
            with pytest.raises(ClusterTrouble, match="trainer waits for 2 workers of 1 CPU, 9 GPU each, for which the"):
                await workers.call(TOO_LARGE, meet, tmp_path, 0)
            # On a head that `ray up` started its node types are known.
            (tmp_path / "bootstrap.yaml").write_text(json.dumps(CONFIG))
            monkeypatch.setattr(nodes, "BOOTSTRAP_FILE", tmp_path / "bootstrap.yaml")
            with pytest.raises(ClusterTrouble, match=r"it asks for 2 workers of 1 CPU, 9 GPU each, which .* can never"):
                workers.refuse_impossible(TOO_LARGE, "it")
        finally:
            workers.close()

    monkeypatch.setattr(pool, "IDLE_SECONDS", 3.0)
    with connected(address):
        assert not RayWorkers().has_gpus
        asyncio.run(asyncio.wait_for(scenario(), 240))
