"""`tournament submit` and `ray job submit`, from outside, on a cluster of two nodes that asks for a token.

Neither the nodes nor whoever has only Ray can import a package of ours; `tournament` is installed where it is called.
"""

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from tests.empty_store import give_store
from tests.ray_nodes import REPOSITORY, WAIT_SECONDS, Nodes, call, cluster, end, python_of
from tests.tournaments import sft

RECIPE = """
import os, shutil
from safetensors.torch import load_file, save_file

def moved(brief, report):
    assert "RAY_AUTH_TOKEN" not in os.environ
    shutil.copytree(brief.seed_model, brief.output_dir, dirs_exist_ok=True)
    place = brief.output_dir / "model.safetensors"
    weights = load_file(place)
    weights["model.norm.weight"][0] += 0.01
    place.unlink()  # which may be a link to the seed's own
    save_file(weights, place, metadata={"format": "pt"})
"""
"""Code that lies beside the config."""
MOVED = {"name": "moved", "kind": "python", "entrypoint": "recipe:moved"}


@dataclass(frozen=True)
class Laptop:
    """Somebody with a config in a folder, `tournament` installed elsewhere, and the run directory that nodes share."""

    python: Path
    nodes: Nodes
    config: Path
    run_dir: Path

    def tournament(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = self.nodes.environment | {"HF_TOKEN": "hf_never_sent"} | variables
        return call(self.python, "-m", "orchestrator", *arguments, environment=environment)

    def submit(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Submit the tournament, and follow it unless `--no-follow` is among the arguments."""
        there = ["--address", self.nodes.dashboard, "--run-dir", str(self.run_dir)]
        return self.tournament("submit", str(self.config), *there, *arguments, **variables)

    def follow(self, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        """Submit again what runs already: whoever follows it now, and the job."""
        there = ["--address", self.nodes.dashboard, "--run-dir", str(self.run_dir)]
        following = subprocess.Popen(
            [str(self.python), "-m", "orchestrator", "submit", str(self.config), *there, *arguments],
            env=self.nodes.environment, cwd=self.python.parent, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert following.stdout is not None
        first = following.stdout.readline()
        job = re.fullmatch(r"(tiny-\w{6}-1) runs already on http://\S+: nothing was submitted\n", first)
        assert job, first
        while "full: training" not in (line := following.stdout.readline()):
            assert line
        return following, job[1]

    @property
    def state(self) -> str:
        return str(json.loads((self.run_dir / "leaderboard.json").read_text())["state"])


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster((2,)) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return python_of(tmp_path_factory.mktemp("laptop") / "python", REPOSITORY)


@pytest.fixture
def laptop(nodes: Nodes, installed: Path, inputs: Path, tmp_path: Path) -> Laptop:
    """One lineage, one round; rows in a folder that is left out else, code beside the config, and a secret."""
    folder = tmp_path / "mine"
    (folder / "data").mkdir(parents=True)
    shutil.copy(inputs / "rows.jsonl", folder / "data")
    (folder / "recipe.py").write_text(RECIPE)
    (folder / ".env").write_text("PASSWORD=never-sent")
    config = {
        "name": "tiny",
        "data": {
            "source": "data/rows.jsonl", "prompt": "{instruction} \n", "completion": "{response}",
            "max_tokens": 32, "validation": 100, "test": 40,
        },
        "lineages": [{"name": "one", "base": str(inputs / "one")}],
        "rounds": 1,
        "budget": {"steps": 12},
        "competitors": [sft("full"), MOVED],
        "evaluation": {"samples": 0},
    }  # fmt: skip
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return Laptop(installed, nodes, folder / "tiny.yaml", tmp_path / "run")


def test_a_job_is_followed_to_its_end(laptop: Laptop, tmp_path: Path):
    give_store(tmp_path)
    followed = laptop.submit("--set", f"competitors={json.dumps([MOVED])}")
    said = followed.stdout
    assert followed.returncode == 0, said + followed.stderr
    assert laptop.state == "finished"
    board = json.loads((laptop.run_dir / "leaderboard.json").read_text())
    entries = {entry["competitor"]: entry["status"] for entry in board["lineages"][0]["rounds"][1]["entries"]}
    assert entries == {"moved": "scored"}
    for line in ("one base: validation loss", "one round 1 moved: training", "one round 1 moved: scored: validation"):
        assert re.search(rf"^\d\d:\d\d:\d\d {line}", said, re.MULTILINE), said
    job = re.search(r"^submitted (tiny-\w{6}-1) to ", said, re.MULTILINE)
    assert job, said
    assert f"stop it in order: ray job stop --address {laptop.nodes.dashboard} {job[1]}" in said
    assert "Traceback" not in said + followed.stderr
    assert "\x1b[" not in said.partition("Running entrypoint")[2]
    listed = laptop.nodes.job("list")
    assert job[1] in listed.stdout + listed.stderr
    assert not [secret for secret in ("never_sent", "never-sent") if secret in listed.stdout + listed.stderr]
    log = laptop.nodes.job("logs", job[1]).stdout
    assert said.partition("Running entrypoint")[2].strip() in log  # all of it, and once


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 64}, "Authentication failed"),
        ({"RAY_AUTH_MODE": "disabled"}, "Authentication required"),
    ],
    ids=["wrong", "none"],
)
def test_without_the_right_token_nothing_is_submitted(laptop: Laptop, variables: dict[str, str], reason: str):
    refused = laptop.submit(**variables)
    assert refused.returncode == 1, refused.stdout
    assert refused.stderr.startswith(f"error: the Ray cluster at {laptop.nodes.dashboard} does not let us in: {reason}")
    assert refused.stderr.count("\n") == 1
    assert not laptop.run_dir.exists()


@pytest.mark.slow
def test_a_stopped_job_goes_on_with_the_same_command(laptop: Laptop):
    long = ("--set", "budget.steps=6000")
    assert laptop.submit("--no-follow", *long).returncode == 0
    progress = laptop.run_dir / "lineages/one/round-001/full/progress.jsonl"
    deadline = time.monotonic() + WAIT_SECONDS
    while not (progress.exists() and '"step"' in progress.read_text()):
        assert time.monotonic() < deadline, laptop.nodes.job("list").stdout
        time.sleep(0.3)
    given_up, job = laptop.follow(*long)
    given_up.send_signal(signal.SIGINT)
    _, errors = given_up.communicate(timeout=WAIT_SECONDS)
    assert given_up.returncode == 3
    assert errors.startswith(f"following ended; {job} goes on\nfollow it again: ")
    following, same = laptop.follow(*long)
    assert same == job
    stopped = laptop.nodes.job("stop", job)
    said, errors = following.communicate(timeout=WAIT_SECONDS)
    assert "was stopped" in stopped.stdout + stopped.stderr
    assert following.returncode == 3
    assert f"{job} was stopped" in errors
    assert "go on with the same command: " in errors
    assert "Traceback" not in said + errors
    assert laptop.state == "stopped"
    base = laptop.run_dir / "lineages/one/round-000/scorecard.json"
    scored_at = base.stat().st_mtime_ns
    again = laptop.submit(*long)
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(r"^submitted tiny-\w{6}-2 ", again.stdout, re.MULTILINE)
    assert f"{laptop.run_dir}: going on with what is there" in again.stdout
    assert base.stat().st_mtime_ns == scored_at
    assert laptop.state == "finished"


@pytest.mark.slow
def test_whoever_has_only_ray_submits_a_checkout(laptop: Laptop):
    """As the README has it."""
    environment = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"}}
    submitted = laptop.nodes.job(
        "submit", "--submission-id", "plain-1", "--working-dir", ".",
        "--runtime-env-json", json.dumps(environment), "--",
        "python", "-m", "orchestrator", "run", "configs/quickstart.yaml", "--run-dir", str(laptop.run_dir),
        "--set", "rounds=1", "--set", "competitors=[{name: same, kind: unchanged}]", cwd=REPOSITORY,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert laptop.state == "finished"


@pytest.mark.slow
def test_a_node_that_lacks_a_library_is_named_before_anything_starts(laptop: Laptop, tmp_path: Path):
    python = python_of(tmp_path / "python")
    old = next(python.parents[1].rglob("site-packages")) / "trl-0.0.1.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: trl\nVersion: 0.0.1\n")
    laptop.nodes.add(1, python)
    try:
        refused = laptop.submit()
    finally:
        end(laptop.nodes.processes.pop())
    assert refused.returncode == 1, refused.stdout + refused.stderr
    (reason,) = [line for line in refused.stdout.splitlines() if line.startswith("error: ")]
    assert re.fullmatch(rf"error: the Ray cluster at \S+: node \S+ lacks trl {version('trl')} \(it has 0.0.1\)", reason)
    assert [path.name for path in laptop.run_dir.iterdir()] == [".lock"]
