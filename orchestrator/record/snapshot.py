"""The whole record at one moment, immutable: everything that is shown of a tournament is drawn from it.

A reader keeps what it has read: a file is read again only when it has changed, and a round that has its verdict, the
last record of a round, not at all.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from cluster.errors import BrokenRecord
from cluster.records import Record
from cluster.store import looks_of
from competitors.contract import Brief, Submission
from evaluation.data.splits import Manifest
from evaluation.scorecard import Scorecard
from orchestrator.config.sections import Lineage
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.record.events import EntryState, State
from orchestrator.record.records import Inspection, ModelFolder, Samples, Verdict
from orchestrator.record.run_directory import RunDirectory, read_json
from orchestrator.record.spent import Spent

R = TypeVar("R", bound=Record)

Times = Mapping[str, int]
"""When each record of a folder was written, by file name, in milliseconds since the epoch."""


@dataclass(frozen=True)
class EntrySnapshot:
    """One entry: which recipe, and what is on record of it."""

    entry: RosterEntry
    folder: Path
    brief: Brief | None
    submission: Submission | None
    inspection: Inspection | None
    scorecard: Scorecard | None
    times: Times = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The competitor's."""
        return self.entry.recipe.name

    @property
    def state(self) -> EntryState:
        """How far it has come, by its records alone."""
        if self.inspection is not None and not self.inspection.passed:
            return "rejected"
        if self.scorecard is not None:
            return "scored"
        if self.inspection is not None:
            return "inspected"
        if self.submission is not None:
            return "forfeit" if self.submission.status == "forfeit" else "delivered"
        return "training" if self.brief is not None and self.log_file.is_file() else "queued"

    @property
    def reason(self) -> str:
        """Why it was rejected, or forfeited; or how its training ended, and that it is all but its seed."""
        if self.state == "rejected" and self.inspection is not None:
            return self.inspection.reason
        ended = "" if self.submission is None else self.submission.reason
        return "; ".join(filter(None, [ended, self.inspection.note if self.inspection else ""]))

    @property
    def progress_file(self) -> Path:
        """What its competitor reports."""
        return self.folder / "progress.jsonl"

    @property
    def log_file(self) -> Path:
        """What its competitor printed, and how it ended."""
        return self.folder / "log.txt"


@dataclass(frozen=True)
class RoundSnapshot:
    """One round that has begun."""

    number: int
    folder: Path
    roster: Roster
    entries: tuple[EntrySnapshot, ...]
    verdict: Verdict | None
    champion: ModelFolder | None
    """Only where it is new."""
    samples: Samples | None
    times: Times = field(default_factory=dict)

    def entry(self, competitor: str) -> EntrySnapshot | None:
        """The entry of that competitor."""
        return self._by_name.get(competitor)

    @cached_property
    def _by_name(self) -> dict[str, EntrySnapshot]:
        return {one.name: one for one in self.entries}


@dataclass(frozen=True)
class LineageSnapshot:
    """One lineage. `scorecard` and `samples` are its base model's."""

    lineage: Lineage
    scorecard: Scorecard | None
    samples: Samples | None
    rounds: tuple[RoundSnapshot, ...]
    times: Times = field(default_factory=dict)
    """Of round 0."""

    @property
    def name(self) -> str:
        """The lineage's."""
        return self.lineage.name

    @property
    def settled(self) -> tuple[RoundSnapshot, ...]:
        """The rounds that have their verdict, round 1 first."""
        return tuple(one for one in self.rounds if one.verdict is not None)

    @property
    def verdicts(self) -> list[Verdict]:
        """Those of the settled rounds."""
        return [one.verdict for one in self.rounds if one.verdict is not None]

    @property
    def champion(self) -> ModelRef:
        """The reigning one."""
        verdicts = self.verdicts
        return verdicts[-1].champion if verdicts else BASE

    @property
    def competitors(self) -> dict[str, RosterEntry]:
        """Every competitor that it has had so far, by name, in order of appearance."""
        found: dict[str, RosterEntry] = {}
        for one in self.rounds:
            for entry in one.roster.entries:
                found.setdefault(entry.recipe.name, entry)
        return found

    def entry(self, model: ModelRef) -> EntrySnapshot | None:
        """The entry that handed in `model`; None for the base."""
        if model.competitor is None or model.round > len(self.rounds):
            return None
        return self.rounds[model.round - 1].entry(model.competitor)

    def scorecard_of(self, model: ModelRef) -> Scorecard | None:
        """The scorecard of one of its models."""
        entry = self.entry(model)
        return self.scorecard if model.is_base else entry.scorecard if entry else None


@dataclass(frozen=True)
class Snapshot:
    """Everything that is on record of a tournament."""

    run: RunDirectory
    config: TournamentConfig
    """With what was changed since it began."""
    lineages: tuple[LineageSnapshot, ...]
    references: Mapping[str, Scorecard]
    """Of those that are scored, by name."""
    manifest: Manifest | None
    environment: Any
    spent: Spent = field(default_factory=Spent)
    times: Times = field(default_factory=dict)
    """Of the config."""
    reference_times: Times = field(default_factory=dict)
    """When each reference's scorecard was written, by the reference's name."""

    @property
    def is_finished(self) -> bool:
        """Whether every round of every lineage and every reference is on record."""
        scored = all(r.name in self.references for r in self.config.references if r.model is not None)
        return scored and all(has_ended(self.config, lineage.verdicts) for lineage in self.lineages)

    @property
    def state(self) -> State:
        """Whether the tournament is finished, running now, or stopped."""
        return "finished" if self.is_finished else "running" if self.run.is_running else "stopped"

    def lineage(self, name: str) -> LineageSnapshot:
        """The lineage of that name."""
        return next(one for one in self.lineages if one.name == name)


def has_ended(config: TournamentConfig, verdicts: list[Verdict]) -> bool:
    """Whether a lineage with these verdicts has no round left."""
    return len(verdicts) >= config.all_rounds or bool(verdicts and verdicts[-1].ends_lineage)


class SnapshotReader:
    """Reads a run directory again and again. It may be shared between threads."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._kept: dict[Path, tuple[object, Any]] = {}
        self._settled: dict[Path, RoundSnapshot] = {}
        self._lock = threading.Lock()

    def read(self) -> Snapshot:
        """What is on record now. UserError where there is no run directory, BrokenRecord naming a file that is torn."""
        with self._lock:
            times = _times(self.run.root, self.run.config_file.name)
            config = self._config()
            folders = {one.name: self.run.reference(one.name) for one in config.references if one.model is not None}
            cards = {name: self._record(Scorecard, folder / "scorecard.json") for name, folder in folders.items()}
            written = {name: _times(folder, "scorecard.json") for name, folder in folders.items()}  # of each card
            return Snapshot(
                run=self.run,
                config=config,
                lineages=tuple(self._lineage(lineage, config) for lineage in config.lineages),
                references={name: card for name, card in cards.items() if card is not None},
                manifest=self._record(Manifest, self.run.manifest_file),
                environment=self._unless_known(self.run.environment_file, lambda: read_json(self.run.environment_file)),
                spent=self._record(Spent, self.run.spent_file) or Spent(),
                times=times,
                reference_times={name: when["scorecard.json"] for name, when in written.items() if when},
            )

    def _lineage(self, lineage: Lineage, config: TournamentConfig) -> LineageSnapshot:
        base = self.run.round(lineage.name, 0)
        rounds: list[RoundSnapshot] = []
        while len(rounds) < config.all_rounds and (one := self._round(lineage.name, len(rounds) + 1)) is not None:
            rounds.append(one)
        return LineageSnapshot(
            lineage=lineage,
            scorecard=self._record(Scorecard, base / "scorecard.json"),
            samples=self._record(Samples, base / "samples.json"),
            rounds=tuple(rounds),
            times=_times(base, "scorecard.json"),
        )

    def _round(self, lineage: str, number: int) -> RoundSnapshot | None:
        folder = self.run.round(lineage, number)
        if (kept := self._settled.get(folder)) is not None and kept.times == _times(folder, *ROUND_FILES):
            return kept
        times = _times(folder, *ROUND_FILES)
        roster = self._record(Roster, folder / "roster.json")
        if roster is None:
            if "verdict.json" in times:
                raise BrokenRecord(f"{folder / 'roster.json'}: is missing, though the round is settled: put it back")
            return None
        found = RoundSnapshot(
            number=number,
            folder=folder,
            roster=roster,
            # The verdict before the entries: where it is there, they are whole. One that was written since the times
            # were taken is of the next snapshot.
            verdict=self._record(Verdict, folder / "verdict.json") if "verdict.json" in times else None,
            entries=tuple(self._entry(entry, folder / entry.recipe.name) for entry in roster.entries),
            champion=self._record(ModelFolder, folder / "champion.json"),
            samples=self._record(Samples, folder / "samples.json"),
            times=times,
        )
        if found.verdict is not None:
            self._settled[folder] = found
        return found

    def _entry(self, entry: RosterEntry, folder: Path) -> EntrySnapshot:
        return EntrySnapshot(
            entry=entry,
            folder=folder,
            brief=self._record(Brief, folder / "brief.json"),
            submission=self._record(Submission, folder / "submission.json"),
            inspection=self._record(Inspection, folder / "inspection.json"),
            scorecard=self._record(Scorecard, folder / "scorecard.json"),
            times=_times(folder, *ENTRY_FILES),
        )

    def _config(self) -> TournamentConfig:
        found = self._unless_known(self.run.config_file, lambda: self.run.config)
        config: TournamentConfig = self.run.config if found is None else found  # which says what is wrong
        return config

    def _record(self, kind: type[R], path: Path) -> R | None:
        record: R | None = self._unless_known(path, lambda: self.run.read(kind, path))
        return record

    def _unless_known(self, path: Path, read: Callable[[], Any]) -> Any:
        """What `read` makes of the file at `path`, asked again only where that is another one than before."""
        looks = looks_of(path)
        if looks is None:
            self._kept.pop(path, None)
            return None
        kept = self._kept.get(path)
        if kept is None or kept[0] != looks:
            kept = self._kept[path] = (looks, read())
        return kept[1]


ROUND_FILES = ("roster.json", "verdict.json", "champion.json", "samples.json")
ENTRY_FILES = ("brief.json", "submission.json", "inspection.json", "scorecard.json")


def _times(folder: Path, *names: str) -> dict[str, int]:
    """When each of these files was written, in milliseconds; without those that are not there."""
    looks = {name: looks_of(folder / name) for name in names}
    return {name: status.written_ns // 1_000_000 for name, status in looks.items() if status is not None}
