"""Where everything of one tournament lies: the run directory is its state.

Each stage's result has a path that follows from lineage, round and competitor. What is there is done.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import UserError
from cluster.store import LOCAL
from orchestrator.config import Change, TournamentConfig, differences, folder_name

PREPARED = (".lock", "data", "models", "environment.json")
"""What lies in a run directory before its config does: a preparation that did not end well."""


class RunDirectory:
    """Paths of one run directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.config_file = self.root / "tournament.yaml"
        self.environment_file = self.root / "environment.json"
        self.data = self.root / "data"
        self.held_out = self.data / "held_out"
        self.manifest_file = self.data / "manifest.json"
        self.leaderboard_file = self.root / "leaderboard.json"
        self.report_file = self.root / "report.html"

    def reference(self, name: str) -> Path:
        """Folder of a reference."""
        return self.root / "references" / folder_name(name)

    def model(self, spec: str) -> Path:
        """Folder of a model that was built or downloaded for this run."""
        return self.root / "models" / folder_name(spec)

    def lineage(self, lineage: str) -> Path:
        """Folder of a lineage."""
        return self.root / "lineages" / lineage

    def round(self, lineage: str, number: int) -> Path:
        """Folder of a round; round 0 is the base model."""
        return self.lineage(lineage) / f"round-{number:03d}"

    def entry(self, lineage: str, number: int, competitor: str) -> Path:
        """Folder of one competitor's entry in a round."""
        return self.round(lineage, number) / competitor

    @property
    def config(self) -> TournamentConfig:
        """The config that this run was started with."""
        if not self.config_file.is_file():
            raise UserError(f"{self.root}: is no run directory (it has no tournament.yaml)")
        return TournamentConfig.model_validate(yaml.safe_load(self.config_file.read_text(encoding="utf-8")))

    def check(self, config: TournamentConfig) -> None:
        """UserError when this directory belongs to another config or holds something else."""
        if self.config_file.is_file():
            different = differences(config, self.config)
            if different:
                shown = "; ".join(different[:5]) + (f"; and {len(different) - 5} more" if len(different) > 5 else "")
                raise UserError(f"{self.root}: belongs to another config: {shown}. Give another --run-dir")
        elif self.root.is_dir() and any(p.name not in PREPARED for p in self.root.iterdir()):
            raise UserError(f"{self.root}: is not empty and no run directory. Give another --run-dir")

    def adopt(self, config: TournamentConfig) -> None:
        """Make this the run directory of `config`: the last step of its preparation, so that a config that
        turned out wrong can be mended and started again in the same place."""
        LOCAL.write_text(self.config_file, config.to_yaml())

    def with_changes(self, config: TournamentConfig) -> TournamentConfig:
        """`config` with what was entered, withdrawn and extended here so far."""
        return config.model_copy(update={"changes": self.config.changes}) if self.config_file.is_file() else config

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the list of changes still: a round begins, or a change is written, but not both at once."""
        if not self.config_file.is_file():
            raise UserError(f"{self.root}: is no run directory (it has no tournament.yaml)")
        descriptor = os.open(self.root / ".changes.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def record_change(self, config: TournamentConfig, change: Change) -> None:
        """Add a change to the record; call it while `changing`."""
        self.adopt(config.model_copy(update={"changes": [*config.changes, change]}))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run directory, so that two drivers never write it at once. UserError if another does."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"{self.root}: cannot be written: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{self.root}: another driver is running this tournament now") from error
            yield
        finally:
            os.close(descriptor)

    @property
    def is_running(self) -> bool:
        """Whether a driver holds this directory now."""
        lock = self.root / ".lock"
        if not lock.exists():
            return False
        descriptor = os.open(lock, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)


def read_json(path: Path) -> Any:
    """A JSON file's content, or None where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
