"""What happens in a tournament, as it is told to whoever looks on, and what such an observer is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from competitors.contract import Allowance
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import Roster
from orchestrator.record.records import Verdict

State = Literal["running", "finished", "stopped"]
EntryState = Literal["queued", "training", "delivered", "forfeit", "inspected", "rejected", "scored"]


@dataclass(frozen=True)
class RoundBegan:
    """A round's field stands. `rounds` is how many there are to be."""

    roster: Roster
    rounds: int


@dataclass(frozen=True)
class EntryChanged:
    """An entry went on to its next state, or came further in the one that it is in.

    `tokens`, `step`, `loss` (nats per completion token) and `seconds` (since the first step) are the newest that its
    competitor reported; `fraction` is how much of its scoring is done. `detail` says why, or how good it is.
    """

    lineage: str
    round: int
    competitor: str
    kind: str
    budget: Allowance
    state: EntryState
    detail: str = ""
    tokens: int = 0
    step: int = 0
    loss: float | None = None
    seconds: float = 0.0
    fraction: float = 0.0

    @property
    def key(self) -> tuple[str, int, str]:
        """Which entry it is about."""
        return self.lineage, self.round, self.competitor


@dataclass(frozen=True)
class Noted:
    """Something that a person who watches should know."""

    text: str


@dataclass(frozen=True)
class VerdictReached:
    """A round is settled, and everything about it is on record."""

    verdict: Verdict
    again: bool = False
    """Whether it was settled before this driver began: a tournament that goes on tells its story from the start."""


@dataclass(frozen=True)
class ChampionCrowned:
    """A new champion; its model lies in `folder`."""

    lineage: str
    model: ModelRef
    test: Mapping[str, float]
    """The figures of its test rows, by the names of `evaluation.figures`."""
    folder: Path
    again: bool = False
    """As of a verdict: a message to a chat is sent only where this is false."""


@dataclass(frozen=True)
class TournamentEnded:
    """Nothing more is to come from this driver."""

    state: State


TournamentEvent = RoundBegan | EntryChanged | Noted | VerdictReached | ChampionCrowned | TournamentEnded


class Observer(Protocol):
    """Somebody who is told what happens: the live table, the report, a tracker, a message to a chat.

    Nothing is decided by observers. `hear` runs in a thread of its own, never twice at once. What it raises is
    logged once; the same events are told again with those that came since. It may block.
    """

    name: str
    pause_seconds: float
    """How long it is left alone between two calls, so that it hears many events together."""

    def hear(self, events: Sequence[TournamentEvent]) -> None:
        """Take in what happened since, in order. Of an entry's progress only the newest is among them."""
        ...
