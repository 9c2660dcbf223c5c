"""Where everything of one tournament lies: the run directory is its state.

Each stage's result has a path that follows from lineage, round and competitor. What is there is done. Everything is
written through the store, and every path in a record is relative to the run directory, so that it may be moved.
"""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import ValidationError

from cluster.errors import BrokenRecord, UserError, storage_trouble
from cluster.records import Record
from cluster.store import LOCAL, STORAGE_MARK, TEMPORARY, Store
from evaluation.data.split import Split
from evaluation.data.splits import file_of
from orchestrator.config.comparison import differences
from orchestrator.config.loading import explain
from orchestrator.config.tournament import ON_RECORD, TournamentConfig, folder_name
from orchestrator.field.changes import Change
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import Roster

R = TypeVar("R", bound=Record)

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C, which takes an eighth of the time: a config is read again at every round's beginning."""
PREPARED = (".lock", ".changes.lock", STORAGE_MARK, "data", "models", "environment.json", "mlflow.json")
"""What lies in a run directory before its config does: a preparation that did not end well."""

HALF_WRITTEN = re.compile(rf"\..+\.[0-9a-f]{{8}}{re.escape(TEMPORARY)}")
"""How the store names what is not whole yet."""


class RunDirectory:
    """Paths of one run directory, and its records."""

    def __init__(self, root: Path, store: Store = LOCAL) -> None:
        self.root, self.store = root.absolute(), store
        self.config_file = self.root / "tournament.yaml"
        self.lock_file = self.root / ".lock"
        self.environment_file = self.root / "environment.json"
        self.data = self.root / "data"
        self.held_out = self.data / "held_out"
        self.manifest_file = self.data / "manifest.json"
        self.own_tasks = self.data / "harness_tasks"
        self.leaderboard_file = self.root / "leaderboard.json"
        self.report_file = self.root / "report.html"
        self.spent_file = self.root / "spent.json"

    @classmethod
    def at(cls, given: str) -> Self:
        """The run directory at a path, or a copy of the one at a URL of an object store, to look at."""
        if "://" not in given and not (Path(given) / STORAGE_MARK).is_file():
            return cls(Path(given))
        from cluster.bucket.working_copy import stored_folder

        folder = stored_folder(given)
        return cls(folder.root, folder)

    @classmethod
    def to_change(cls, given: str) -> Self:
        """The one at a path or a URL, as it is on record now: that of a working copy is in its store."""
        run = cls.at(given)
        return run if run.lies_at is None or "://" in given else cls.at(run.lies_at)

    @property
    def lies_at(self) -> str | None:
        """The URL where it lies in an object store, if this is a working copy."""
        mark = self.root / STORAGE_MARK
        return mark.read_text(encoding="utf-8").strip() if mark.is_file() else None

    @property
    def where(self) -> str:
        """Where its record lies, for people."""
        return self.lies_at or str(self.root)

    def split(self, split: Split) -> Path:
        """File of a split's rows."""
        return self.data / file_of(split)

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

    def scores(self, lineage: str, model: ModelRef) -> Path:
        """Folder with the scorecard of a model: its entry's, or round 0's."""
        return (
            self.round(lineage, 0) if model.competitor is None else self.entry(lineage, model.round, model.competitor)
        )

    def read(self, kind: type[R], path: Path) -> R | None:
        """The record at `path`, or None: how a stage finds out that it is done. BrokenRecord if it cannot be read."""
        return kind.read_if_there(path, self.root)

    def write(self, record: R, path: Path) -> R:
        """Put a record at `path`, and return it."""
        return record.write(path, self.root, self.store)

    def roster(self, lineage: str, number: int) -> Roster | None:
        """The roster of a round that has begun; None before."""
        return self.read(Roster, self.round(lineage, number) / "roster.json")

    @property
    def config(self) -> TournamentConfig:
        """The config that this run was started with, and what was changed since."""
        self._require_config()
        try:
            raw = yaml.load(self.config_file.read_text(encoding="utf-8"), LOADER)
            return TournamentConfig.model_validate(raw, context=ON_RECORD)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BrokenRecord(f"{self.config_file}: is damaged: {' '.join(str(error).split())}") from error
        except ValidationError as error:
            reason = explain(error, raw)
            raise BrokenRecord(f"{self.config_file}: {reason}: it is damaged, or another version wrote it") from error

    @property
    def identity(self) -> dict[str, str]:
        """Tags that tell this run from all others, those that lay at the same path before too; of one begun before
        runs had an id, its path. BrokenRecord if environment.json cannot be read."""
        made = read_json(self.environment_file)
        if isinstance(made, dict) and "run_id" in made:
            return {"tournament.run_id": str(made["run_id"])}
        return {"tournament.run_dir": str(self.root)}

    def _require_config(self) -> None:
        if not self.config_file.is_file():
            if not self.root.exists():
                raise UserError(f"{self.root}: there is no such folder")
            raise UserError(f"{self.root}: is no run directory (it has no tournament.yaml)")

    def check(self, config: TournamentConfig) -> None:
        """UserError when this directory belongs to another config or holds something else."""
        if self.config_file.is_file():
            different = differences(config, self.config)
            if different:
                shown = "; ".join(different[:5]) + (f"; and {len(different) - 5} more" if len(different) > 5 else "")
                raise UserError(f"{self.root}: belongs to another config: {shown}. Give another --run-dir")
        elif self.root.is_dir() and any(not _is_prepared(path) for path in self.root.iterdir()):
            raise UserError(f"{self.root}: is not empty and no run directory. Give another --run-dir")

    def clear(self) -> None:
        """Remove what a preparation that did not end well has left here."""
        self.sweep()
        self.store.remove(self.data)

    def sweep(self) -> None:
        """Remove what a killed program was writing just then: half a seed may be as large as a whole one."""
        for path in list(self.root.rglob(f".*{TEMPORARY}")):
            if HALF_WRITTEN.fullmatch(path.name):
                self.store.remove(path)

    def adopt(self, config: TournamentConfig) -> None:
        """Make this the run directory of `config`: the last step of its preparation, so that a config that
        turned out wrong can be mended and started again in the same place."""
        self.store.write_text(self.config_file, config.to_yaml())

    def with_changes(self, config: TournamentConfig) -> TournamentConfig:
        """`config` with what was entered, withdrawn and extended here so far."""
        return config.model_copy(update={"changes": self.config.changes}) if self.config_file.is_file() else config

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the list of changes still: a round begins, or a change is written, but not both at once."""
        self._require_config()
        with self.store.locked(self.root / ".changes.lock", wait=True):
            yield

    def record_change(self, config: TournamentConfig, change: Change) -> None:
        """Add a change to the record, or ask whoever writes it elsewhere to; call it while `changing`. UserError where
        the config does not allow it."""
        raw = config.model_copy(update={"changes": [*config.changes, change]}).model_dump(mode="json", by_alias=True)
        try:
            changed = TournamentConfig.model_validate(raw)
        except ValidationError as error:
            raise UserError(f"{self.where}: {explain(error, raw)}") from error
        if not self.store.ask(change.model_dump_json(by_alias=True).encode()):
            self.adopt(changed)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run directory, so that two drivers never write it at once. UserError if another does, or nobody can
        write there."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.store.locked(self.lock_file, wait=False))
            except BlockingIOError as error:
                raise UserError(f"{self.root}: another driver is running this tournament now") from error
            except OSError as error:
                if storage_trouble(error) is not None:
                    raise
                raise UserError(f"--run-dir {self.root}: cannot be written: {error.strerror}") from error
            yield

    def whole(self, path: Path) -> Path:
        """`path`, with all of its files here: of a run in an object store the large ones were not."""
        self.store.fetch(path)
        return path

    @property
    def is_running(self) -> bool:
        """Whether a driver holds this directory now."""
        return self.store.is_locked(self.lock_file)


def _is_prepared(path: Path) -> bool:
    return path.name in PREPARED or (path.name.startswith(".") and path.name.endswith(TEMPORARY))


def read_json(path: Path) -> Any:
    """A JSON file's content, or None where there is no such file. BrokenRecord if it is none."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise BrokenRecord(f"{path}: is cut off or damaged ({error}): remove it and go on") from error
