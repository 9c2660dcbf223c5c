"""One Ray for all integration tests, and a small tournament to vary."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.on_ray.connect import connected
from cluster.on_ray.ray_workers import RayWorkers
from orchestrator.driver import WORKER_ENVIRONMENT
from tests.in_haste import libraries_stay
from tests.ray_start import in_time
from tests.tournaments import CREDENTIALS, PLANTED, make_inputs, write_tournament

__all__ = ["libraries_stay"]


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """A local Ray cluster with two CPUs, in processes of its own, which were started with credentials."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        for name in CREDENTIALS:
            patch.setenv(name, PLANTED)
        cluster = in_time(lambda: Cluster(initialize_head=True, head_node_args=head))
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def workers(ray_address: str) -> Iterator[RayWorkers]:
    """One set of workers for all tournaments of a file: most of what a tiny one takes is their start."""
    with connected(ray_address):
        workers = RayWorkers(WORKER_ENVIRONMENT)
        yield workers
        workers.close()


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny bases with different tokenizers, and rows."""
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def write_config(inputs: Path, tmp_path: Path, ray_address: str) -> Any:
    """A function that writes a config for that Ray: the keys it is given replace those of a two-round tournament."""

    def write(competitors: list[dict[str, Any]], **changes: Any) -> Path:
        return write_tournament(inputs, tmp_path, competitors, cluster={"address": ray_address}, **changes)

    return write
