"""All of it together, as docs/cluster.md describes it, on this machine: `make test-cluster`.

Three Ray nodes that ask for a token and share no folder, the run in an S3 server, MLflow with passwords on PostgreSQL.
From outside, with nothing but Ray, the heterogeneous config is submitted; one node is lost; it ends as on one machine.
"""

import json
import os
import re
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from tests.mlflow_server import Tracking, mlflow_server
from tests.object_servers import seaweed
from tests.ray_nodes import REPOSITORY, Nodes, call, cluster, python_of

pytestmark = pytest.mark.cluster
CONFIG = "configs/heterogeneous.yaml"
PATIENCE_SECONDS = 3600.0
LIBRARIES = sysconfig.get_path("purelib")
"""Of the nodes' Python, which has them from elsewhere: its sandbox is told so."""
SMALLER = (
    "budget.tokens=16000",
    "evaluation.samples=1",
    "competitors.search.trials=2",
    f"competitors.own-loop.read=[{LIBRARIES}]",
)
"""Than the config: on two cores this machine is a cluster, two servers, and the same tournament alone."""


@dataclass(frozen=True)
class Services:
    nodes: Nodes
    storage: str
    tracking: Tracking


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    s3 = tmp_path_factory.mktemp("s3")
    with TemporaryDirectory(dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch, seaweed(s3) as store:
        os.chmod(folder, 0o711)  # PostgreSQL has a user of its own
        with mlflow_server(Path(folder), store, patch) as tracking:
            with cluster((2, 2), store.variables(store.address) | tracking.variables) as nodes:
                yield Services(nodes, store.url, tracking)


def champions(board: dict[str, Any]) -> list[tuple[Any, ...]]:
    (lineage,) = board["lineages"]
    return [(row["round"], row["champion"], row["winner"]) for row in lineage["rounds"]]


def overrides(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def trains(node: subprocess.Popen[bytes]) -> bool:
    """Whether an entry is being trained on that node: by itself, as a worker of a gang, or as a trial of a search."""
    for process in psutil.Process(node.pid).children(recursive=True):
        with suppress(psutil.Error):  # one that has just ended
            if any(re.match(r"ray::(compete|RayTrainWorker|ImplicitFunc)", title) for title in process.cmdline()[:1]):
                return True
    return False


def until(is_so: Callable[[], Any], job: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert job.poll() is None, "the job has ended"
        assert time.monotonic() < deadline
        time.sleep(2)


def test_a_heterogeneous_tournament_survives_the_loss_of_a_node(services: Services, tmp_path: Path):
    nodes, url = services.nodes, f"{services.storage}/heterogeneous"
    outside = python_of(tmp_path / "outside", REPOSITORY)
    environment = nodes.environment | services.tracking.variables

    def tournament(*arguments: str, seconds: float = 300.0) -> str:
        done = call(outside, "-m", "orchestrator", *arguments, environment=environment, seconds=seconds)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    storage, uri = services.storage, services.tracking.uri
    there = [f"cluster.storage={storage}", f"tracking.uri={uri}", "tracking.experiment=all"]
    run = ["python", "-m", "orchestrator", "run", CONFIG, *overrides(*SMALLER, *there)]
    submit = ["job", "submit", "--address", nodes.dashboard, "--working-dir", ".", "--", *run]
    log = tmp_path / "said.txt"
    with log.open("w") as said:
        told_at_once = nodes.environment | {"PYTHONUNBUFFERED": "1"}
        job = subprocess.Popen(
            [str(nodes.python), "-m", "ray.scripts.scripts", *submit],
            cwd=REPOSITORY, env=told_at_once, stdout=said, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        lost = nodes.processes.pop()
        until(lambda: trains(lost), job)
        os.killpg(lost.pid, signal.SIGKILL)
        lost.wait()
        assert job.wait(PATIENCE_SECONDS) == 0, log.read_text()
    assert "trying again" in log.read_text(), "somebody was on the node that was lost"
    board = json.loads(tournament("leaderboard", url, "--json"))
    assert board["state"] == "finished"
    assert {e["status"] for row in board["lineages"][0]["rounds"] for e in row["entries"]} <= {"scored", "rejected"}
    tournament("export", url, str(tmp_path / "champion"))
    assert (tmp_path / "champion" / "model.safetensors").is_file()
    tournament("fetch", url, str(tmp_path / "fetched"))
    again = call(outside, "-m", "evaluation.recompute", str(tmp_path / "fetched"), environment=environment)
    assert again.returncode == 0, again.stdout[-3000:]
    assert services.tracking.variables["MLFLOW_TRACKING_PASSWORD"] not in log.read_text()
    _look_at_mlflow(services, environment, outside)

    alone = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_"))}
    here = tmp_path / "alone"
    arguments = ["run", str(REPOSITORY / CONFIG), "--run-dir", str(here), *overrides(*SMALLER)]
    done = call(outside, "-m", "orchestrator", *arguments, environment=alone, seconds=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert champions(board) == champions(json.loads((here / "leaderboard.json").read_text()))


def _look_at_mlflow(services: Services, environment: dict[str, str], python: Path) -> None:
    code = (
        "import mlflow; runs = mlflow.search_runs(experiment_names=['all'], output_format='list');"
        "print(len(runs), sum(bool(mlflow.MlflowClient().list_artifacts(run.info.run_id)) for run in runs))"
    )
    asked = call(python, "-c", code, environment=environment | {"MLFLOW_TRACKING_URI": services.tracking.uri})
    runs, with_artifacts = map(int, asked.stdout.split())
    assert runs > 10
    assert with_artifacts > 0
    refused = call(python, "-c", code, environment=services.nodes.environment | {
        "MLFLOW_TRACKING_URI": services.tracking.uri, "MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_PASSWORD": "",
    })  # fmt: skip
    assert refused.returncode != 0
