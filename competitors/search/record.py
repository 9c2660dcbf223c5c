"""What a search knows of its trials while they run, and what it leaves on record: search.json."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.records import Record
from competitors.contract import Allowance
from competitors.events import Event, EventReader


class TrialRecord(Record):
    """One trial: the values it drew, the slice's loss at its last mark, how far it came."""

    values: dict[str, Any]
    loss: float | None = None
    spent: float = 0.0
    """Share of its own part of the budget."""
    tokens: int = 0
    steps: int = 0
    reason: str = ""
    """Why it failed; empty when it did not."""


class SearchRecord(Record):
    """search.json: what was tried and what came of it."""

    slice_rows: int
    trials: list[TrialRecord]
    best: int
    """Which of the trials, from 0."""
    longer: TrialRecord | None
    """The best values, trained once more on what was left; None when nothing was."""
    submitted: str
    """`longer` or `trial`."""


@dataclass
class Trial:
    """A trial as the coordinator sees it: what it reported to the progress file in its folder."""

    folder: Path
    config: dict[str, Any]
    """As Tune has it."""
    values: dict[str, Any]
    part: Allowance
    loss: float | None = None
    spent: float = 0.0
    tokens: int = 0
    steps: int = 0
    began: float | None = None
    """When its first step began, by the clock of its own machine in seconds; `heard` is when it last reported."""
    heard: float = 0.0
    reason: str = ""
    at_mark: bool = False
    """Whether the last that was heard of it is a mark: then nothing is spent that was not reported."""
    is_over: bool = False
    """Whether Tune has ended it: what is still to come from its machine is taken at the search's end."""
    memory: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._reader = EventReader(self.folder / "progress.jsonl")

    def events(self) -> list[Event]:
        """What was reported since the last call."""
        return self._reader.read()

    def take(self, event: Event) -> None:
        """Bring the trial up to date with one of its events."""
        self.heard = self.heard if event.time is None else event.time
        if event.event == "started":
            self.began = self.heard
        self.at_mark = event.event in ("mark", "ended")
        self.tokens = self.tokens if event.tokens is None else event.tokens
        self.steps = self.steps if event.step is None else event.step
        for name in ("memory_megabytes", "gpu_memory_megabytes"):
            if (megabytes := getattr(event, name)) is not None:
                self.memory[name] = megabytes
        if event.event == "mark":
            self.loss, self.spent = event.loss, event.fraction or 0.0

    @property
    def record(self) -> TrialRecord:
        """Its line in search.json."""
        return TrialRecord(**{name: getattr(self, name) for name in TrialRecord.model_fields})
