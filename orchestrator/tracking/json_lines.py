"""The tournament as JSON lines: one object for each thing that happened, for whoever greps, pipes or posts it on.

Everything follows from the record, so what happened while nobody looked is told too; and each line has an id made of
what it is about, so that none is written twice, however often a driver starts again.
"""

import os
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic_core

from cluster.errors import UserError
from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.events import TournamentEnded, TournamentEvent
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import EntrySnapshot, RoundSnapshot, Snapshot, SnapshotReader
from orchestrator.tracking.points import costs_of, scores_of

FILE = "events.jsonl"


@dataclass(frozen=True)
class Happening:
    """One thing that happened. `fields` are what its line says beside its id, its time and the tournament."""

    id: str
    time_ms: int
    fields: dict[str, Any]


def happenings(snapshot: Snapshot, known: Collection[str] = ()) -> list[Happening]:
    """What is on record, by time; without the rounds whose verdict, the last thing about a round, is `known`."""
    rounds = [
        (f"{lineage.name}/{one.number}", {"lineage": lineage.name, "round": one.number}, one)
        for lineage in snapshot.lineages
        for one in lineage.rounds
    ]
    found = [h for key, where, one in rounds if f"{key}/verdict" not in known for h in _of_round(key, where, one)]
    return sorted(found, key=lambda happening: happening.time_ms)


def _of_round(key: str, where: dict[str, Any], one: RoundSnapshot) -> Iterator[Happening]:
    field = {"competitors": [entry.name for entry in one.entries], "reasons": one.roster.reasons}
    yield Happening(f"{key}/round", one.times["roster.json"], {"event": "round", **where, **field})
    for entry in one.entries:
        yield from _of_entry(f"{key}/{entry.name}", where, entry)
    verdict = one.verdict
    if verdict is None:
        return
    when = one.times["verdict.json"]
    if verdict.dethroned and one.champion is not None:
        card = next((entry.scorecard for entry in one.entries if entry.name == verdict.champion.competitor), None)
        crowned = {"model": str(verdict.champion), "path": one.champion.path, "sha256": one.champion.sha256}
        scores = scores_of(card) if card else {}
        yield Happening(f"{key}/champion", when, {"event": "champion", **where, **crowned, **scores})
    yield Happening(f"{key}/verdict", when, {"event": "verdict", **where, **verdict.model_dump(mode="json")})


def _of_entry(key: str, where: dict[str, Any], entry: EntrySnapshot) -> Iterator[Happening]:
    """An entry's states, each from the record that began it."""
    about = {"event": "entry", **where, "competitor": entry.name, "kind": entry.entry.recipe.kind}

    def became(state: str, file: str, **more: Any) -> Happening:
        return Happening(f"{key}/{state}", entry.times[file], {**about, "state": state, **more})

    submission, inspection, card = entry.submission, entry.inspection, entry.scorecard
    if entry.brief is not None:
        yield became("training", "brief.json")
    if submission is not None:
        yield became(submission.status, "submission.json", reason=submission.reason, **costs_of(submission))
    if inspection is not None and inspection.passed:
        yield became("inspected", "inspection.json", form=inspection.form)
    if card is not None:
        yield became("scored", "scorecard.json", validation_loss=card.validation.loss)
    if inspection is not None and not inspection.passed:
        yield became("rejected", "inspection.json", reason=inspection.reason)


class JsonLinesTracker:
    """Appends what happened to a file of this run alone: events.jsonl of the run directory, or `path`."""

    name = "JSON lines"
    pause_seconds = 1.0

    def __init__(self, run: RunDirectory, path: Path | None = None) -> None:
        self.path = path or run.root / FILE
        self._reader = SnapshotReader(run)
        self._known: set[str] | None = None
        """The ids in the file; None where it has to be read first."""

    @classmethod
    def chosen(cls, config: TournamentConfig, run: RunDirectory) -> "JsonLinesTracker | None":
        """The tracker that the config asks for. A relative path is meant from beside the run directory, as SQLite's."""
        where = config.tracking.json_lines
        if isinstance(where, str) and where:
            return cls(run, run.root.parent / where)
        return cls(run) if where else None

    def open(self) -> None:
        """UserError where the file cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
        except OSError as error:
            raise UserError(f"tracking.json_lines: {self.path}: cannot be written: {error.strerror}") from error

    def hear(self, events: Sequence[TournamentEvent]) -> None:
        """Append what is on record and not in the file yet, and the end where it has come."""
        known = self._ids() if self._known is None else self._known
        self._known = None  # until all that follows is on disk
        snapshot = self._reader.read()
        news = {one.id: one for one in happenings(snapshot, known) if one.id not in known}
        # The end of another driver is another end, once something has happened since.
        count = sum(not one.startswith("/end/") for one in known | news.keys())
        for event in events:
            if isinstance(event, TournamentEnded) and (key := f"/end/{event.state}/{count}") not in known:
                news[key] = Happening(key, time.time_ns() // 1_000_000, {"event": "end", "state": event.state})
        self._append(list(news.values()), snapshot.config.name)
        self._known = known | news.keys()

    def _append(self, news: list[Happening], tournament: str) -> None:
        if not news:
            return
        lines = [{"id": one.id, "time": one.time_ms / 1000, "tournament": tournament, **one.fields} for one in news]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as stream:
            # A number that is none stands as the word for it, as in the records: JSON has no other.
            stream.write(b"".join(pydantic_core.to_json(line, inf_nan_mode="strings") + b"\n" for line in lines))
            stream.flush()
            os.fsync(stream.fileno())

    def _ids(self) -> set[str]:
        """The ids in the file. A last line that was cut off is taken away: it is written again."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return set()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(self.path, len(whole))
        return {key for line in whole.splitlines() if (key := _id(line)) is not None}


def _id(line: bytes) -> str | None:
    try:
        value = pydantic_core.from_json(line)
    except ValueError:
        return None
    key = value.get("id") if isinstance(value, dict) else None
    return key if isinstance(key, str) else None
