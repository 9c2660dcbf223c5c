"""Held-out rows are planted wherever an entry of kind `command` may look for them, and it looks."""

import json
import os
import shutil
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from competitors.contract import Brief, Submission
from competitors.entry import compete
from evaluation.data.splits import read_split
from orchestrator.config.tournament import TournamentConfig
from orchestrator.planning.preparation import make_data
from tests.faked import FakedWorkers, faked_config, play
from tests.unit.competitors.command.making import PROGRAMS, needs_sandbox

CONTROL = "what anybody may read"


class CommandWorkers(FakedWorkers):
    """Runs commands in earnest."""

    def _compete(self, brief: Brief, recipe: Any) -> Submission:
        return compete(brief, recipe) if recipe.kind == "command" else super()._compete(brief, recipe)


def hunter(marker: str, **settings: Any) -> dict[str, Any]:
    """A competitor that looks for the marker, and for what is no secret."""
    own = {"REVERSED": f"{marker[::-1]}|{CONTROL[::-1]}"} | settings.pop("environment", {})
    return {"name": "hunter", "kind": "command", "run": "python hunting.py", "environment": own} | settings


def found_by(run: Path) -> list[str]:
    """What the hunter has found, and where."""
    said = (run / "lineages/l/round-001/hunter/log.txt").read_text()
    (heard,) = (line for line in said.splitlines() if line.startswith("["))  # the last line says how it ended
    found: list[str] = json.loads(heard)
    return found


def a_held_out_row(config: TournamentConfig, folder: Path) -> str:
    """A prompt that no training row has."""
    make_data(config, folder / "here.yaml", folder / "first")
    held_out, train = (read_split(folder / "first" / name) for name in ("held_out/test.parquet", "train.parquet"))
    shutil.rmtree(folder / "first")
    return next(row.prompt for row in held_out if not any(row.prompt in other.prompt for other in train))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with everything in it: config, data, program, and the run directory beside them."""
    (tmp_path / "project").mkdir()
    shutil.copy(PROGRAMS / "hunting.py", tmp_path / "project")
    (tmp_path / "project" / "notes.txt").write_text(CONTROL)
    return tmp_path / "project"


@pytest.fixture
def plant(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that puts a row everywhere; it returns the port where it is to be had."""
    with ExitStack() as stack:

        def plant(row: str) -> int:
            for name in (
                *("runs/earlier/data/held_out/test.parquet", "runs/earlier/data/manifest.json"),
                *("runs/earlier/report.html", "mlflow-artifacts/1/report.html", "deep/down/data/held_out/test.parquet"),
                *("hf/datasets/o___n/x.arrow", "hf/hub/datasets--o--n/blobs/1", "hf/xet/chunk", "hf/token"),
                *("temporary/ray/session/logs/worker.log", "mine.jsonl"),
            ):
                (project / name).parent.mkdir(parents=True, exist_ok=True)
                (project / name).write_text(row)
            (project / ".git" / "objects").mkdir(parents=True)
            (project / ".git" / "objects" / "abc").write_bytes(zlib.compress(row.encode()))
            (project / "copies").mkdir()
            os.link(project / "rows.jsonl", project / "copies" / "again.jsonl")
            for name, place in {"HF_HOME": "hf", "HF_HUB_CACHE": "hf/hub", "HF_XET_CACHE": "hf/xet"}.items():
                monkeypatch.setattr(constants, name, str(project / place))
            monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(project / "hf/token"))
            monkeypatch.setenv("RAY_TMPDIR", str(project / "temporary"))
            monkeypatch.setenv("HF_TOKEN", row)
            monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
            shared = Path(f"/dev/shm/planted-{os.getpid()}")
            shared.write_text(row)
            stack.callback(shared.unlink)
            serve(stack, socket.AF_UNIX, f"\0planted-{os.getpid()}", row)
            (project / "temporary/ray/session/sockets").mkdir()
            folder = os.open(project / "temporary/ray/session/sockets", os.O_RDONLY)
            stack.callback(os.close, folder)
            serve(stack, socket.AF_UNIX, f"/proc/self/fd/{folder}/plasma_store", row)  # the whole path may be too long
            return int(serve(stack, socket.AF_INET, ("127.0.0.1", 0), row)[1])

        yield plant


def serve(stack: ExitStack, family: int, address: Any, row: str) -> Any:
    """Tell the row to whoever asks at that address."""
    server = stack.enter_context(socket.socket(family))
    server.bind(address)
    server.listen()

    def answer() -> None:
        while True:
            try:
                channel, _ = server.accept()
            except OSError:
                return
            with channel:
                channel.sendall(row.encode())
                channel.recv(2**16)

    threading.Thread(target=answer, daemon=True).start()
    stack.callback(server.shutdown, socket.SHUT_RDWR)
    return server.getsockname()


@needs_sandbox
def test_a_hunting_entry_finds_no_held_out_row(project: Path, plant: Any):
    """Nor what it would find them by, though its folder holds the data, the run directory and all else."""
    marker = a_held_out_row(faked_config(project), project)
    ports = {"PORTS": str(plant(marker)), "HELD_OUT": str(project / "run/data/held_out/test.parquet")}
    settings = {"environment": ports, "hide": ["mine.jsonl"]}
    play(faked_config(project, rounds=1, competitors=[hunter(marker, **settings)]), project / "run", CommandWorkers())
    assert found_by(project / "run") == [f"1: {project / 'notes.txt'}"]


def test_the_hunting_entry_would_find_them_without_a_sandbox(project: Path, plant: Any):
    """As the test of the test above."""
    marker = a_held_out_row(faked_config(project), project)
    environment = {"PORTS": str(plant(marker)), "ROOTS": f"{project}:/dev/shm"}
    entry = hunter(marker, environment=environment, sandbox="none")
    play(faked_config(project, rounds=1, competitors=[entry]), project / "run", CommandWorkers())
    found = " ".join(found_by(project / "run"))
    for place in (
        *("rows.jsonl", "again.jsonl", "abc", "x.arrow", "hf/token", "report.html", "/dev/shm/planted", "planted-"),
        *("127.0.0.1", "plasma_store", "worker.log", "deep/down"),
    ):
        assert place in found, place
