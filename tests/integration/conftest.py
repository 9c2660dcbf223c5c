"""One Ray for all integration tests, and a small tournament to vary."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.connect import connected
from cluster.ray_workers import RayWorkers
from orchestrator.driver import WORKER_ENVIRONMENT
from tests.tiny import tiny_model, tiny_rows, write_jsonl


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """A local Ray cluster with two CPUs, in processes of its own."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
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
    folder = tmp_path_factory.mktemp("inputs")
    tiny_model(folder / "one", seed=1)
    tiny_model(folder / "two", seed=2, bos=False, hidden=24)
    write_jsonl(folder / "rows.jsonl", tiny_rows(400))
    return folder


@pytest.fixture
def write_config(inputs: Path, tmp_path: Path, ray_address: str) -> Any:
    """A function that writes a config: the keys it is given replace those of a two-round tournament."""

    def write(competitors: list[dict[str, Any]], **changes: Any) -> Path:
        config = {
            "name": "tiny",
            "seed": 3,
            "data": {
                "source": str(inputs / "rows.jsonl"),
                "prompt": "{instruction} \n",
                "completion": "{response}",
                "max_tokens": 32,
                "validation": 60,
                "test": 60,
            },
            "lineages": [{"name": "one", "base": str(inputs / "one")}],
            "rounds": 2,
            "budget": {"steps": 12},
            "competitors": competitors,
            "selection": {"resamples": 300},
            "evaluation": {"samples": 1, "sample_tokens": 4},
            "cluster": {"address": ray_address},
        }
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(config | changes, sort_keys=False))
        return path

    return write


def sft(name: str, **settings: Any) -> dict[str, Any]:
    """An sft competitor's section."""
    return {"name": name, "kind": "sft", "learning_rate": 0.02, "batch_size": 8, **settings}


def python(function: str, name: str | None = None) -> dict[str, Any]:
    """A competitor from recipes.py."""
    entrypoint = f"tests.integration.recipes:{function}"
    return {"name": name or function.replace("_", "-"), "kind": "python", "entrypoint": entrypoint}
