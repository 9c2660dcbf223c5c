"""Progress that a person can follow: a live table in a terminal, timestamped lines anywhere else.

The board only shows; nothing is decided from it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from competitors.contract import Allowance, Brief, Event

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.record.records import Roster
    from orchestrator.rounds.verdict import Verdict

LINE_SECONDS = 15.0
"""In a log, a running entry is mentioned again after so long."""


@dataclass
class EntryState:
    """What is known of one entry now."""

    board: "Board"
    lineage: str
    round: int
    competitor: str
    kind: str
    budget: Allowance
    phase: str = "queued"
    detail: str = ""
    tokens: int = 0
    step: int = 0
    loss: float | None = None
    seconds: float = 0.0
    fraction: float = 0.0
    said: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """For a line in a log."""
        return f"{self.lineage} round {self.round} {self.competitor}"

    @property
    def done(self) -> float:
        """Share of the budget spent, 0 to 1, by whichever limit is nearest."""
        shares = [
            spent / limit
            for spent, limit in (
                (self.tokens, self.budget.tokens),
                (self.seconds, self.budget.seconds),
                (self.step, self.budget.steps),
            )
            if limit
        ]
        return min(1.0, max(shares, default=0.0))

    @property
    def speed(self) -> float:
        """Training tokens per second since the first step."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Until the budget is spent at this pace; None before there is a pace."""
        return self.seconds * (1 - self.done) / self.done if self.done > 0.02 and self.seconds else None

    def update(self, event: Event) -> None:
        """Take in one event of the entry's progress file."""
        kind = event["event"]
        if kind == "loading":
            self.phase = "loading"
        elif kind in ("started", "step"):
            if self.phase != "training":
                self.phase, self.said = "training", time.monotonic()
                self.board.say(f"{self.name}: training")
            self.tokens = int(event.get("tokens", self.tokens))
            self.step = int(event.get("step", self.step))
            self.loss = event.get("loss", self.loss)
            self.seconds = float(event.get("seconds", self.seconds))
        elif kind == "scoring":
            self.phase, self.fraction = "scoring", float(event.get("fraction", 0.0))
        elif kind == "note":
            self.note(str(event.get("text", "")))
        self.board.changed(self)

    def note(self, text: str) -> None:
        """Something that the person should know about this entry."""
        self.board.say(f"{self.name}: {text}")

    def end(self, phase: str, detail: str) -> None:
        """The entry is through: scored, forfeit or rejected."""
        self.phase, self.detail = phase, detail
        self.board.say(f"{self.name}: {phase}: {detail}" if phase != "scored" else f"{self.name}: {detail}")


class Board:
    """Progress as timestamped lines, for a log."""

    def __init__(self, console: "Console", rounds: int) -> None:
        self.console, self.rounds = console, rounds
        self.states: dict[tuple[str, str], EntryState] = {}
        """The newest entry of each lineage and competitor."""
        self.verdicts: dict[str, Verdict] = {}

    def round_begins(self, roster: "Roster", rounds: int) -> None:
        """A round's field stands: those who left it are no longer shown."""
        self.rounds = rounds
        names = {entry.recipe.name for entry in roster.entries}
        for key in [key for key in self.states if key[0] == roster.lineage and key[1] not in names]:
            del self.states[key]
        for reason in roster.reasons:
            self.say(f"{roster.lineage} round {roster.round}: {reason}")

    def entry(self, brief: Brief, kind: str) -> EntryState:
        """Begin to show an entry."""
        state = EntryState(self, brief.lineage, brief.round, brief.competitor, kind, brief.budget)
        self.states[brief.lineage, brief.competitor] = state
        return state

    def verdict(self, verdict: "Verdict") -> None:
        """A round is settled."""
        self.verdicts[verdict.lineage] = verdict
        for reason in verdict.reasons:
            self.say(f"{verdict.lineage} round {verdict.round}: {reason}")

    def say(self, text: str) -> None:
        """Print one line."""
        stamp = datetime.now().strftime("%H:%M:%S")
        self.console.print(f"{stamp} {text}", markup=False, highlight=False, soft_wrap=True)

    def changed(self, state: EntryState) -> None:
        """A running entry has news; in a log it is mentioned now and then."""
        now = time.monotonic()
        if state.phase == "training" and now - state.said > LINE_SECONDS:
            state.said = now
            self.say(f"{state.name}: {_doing(state)}")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While the block lasts, the board is on the screen."""
        yield


class LiveBoard(Board):
    """Progress as a table that stays at the bottom of the terminal, under the lines."""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While the block lasts, the table is redrawn twice a second."""
        from rich.live import Live

        with Live(get_renderable=self.table, console=self.console, refresh_per_second=2, transient=True):
            yield

    def changed(self, state: EntryState) -> None:
        """The table shows it."""

    def table(self) -> Any:
        """The table as it is now."""
        from rich.table import Table

        table = Table(title=self._title(), title_justify="left", expand=False, pad_edge=False)
        for column in ("lineage", "competitor", "state"):
            table.add_column(column, no_wrap=True)
        for column in ("tokens", "loss", "tokens/s", "left"):
            table.add_column(column, justify="right", no_wrap=True)
        last = ""
        for state in self.states.values():
            table.add_row(state.lineage if state.lineage != last else "", state.competitor, *_cells(state))
            last = state.lineage
        return table

    def _title(self) -> str:
        rounds = {}
        for state in self.states.values():
            rounds[state.lineage] = state.round
        return ", ".join(f"{lineage}: round {number} of {self.rounds}" for lineage, number in rounds.items())


def make_board(console: "Console", rounds: int) -> Board:
    """A live table where a person watches a terminal, lines elsewhere."""
    return LiveBoard(console, rounds) if console.is_terminal else Board(console, rounds)


def _cells(state: EntryState) -> tuple[str, str, str, str, str]:
    colours = {"training": "cyan", "scoring": "magenta", "scored": "green", "forfeit": "red", "rejected": "red"}
    text = state.phase
    if state.phase == "training":
        text = f"training {bar(state.done)}"
    elif state.phase == "scoring":
        text = f"scoring  {bar(state.fraction)}"
    elif state.phase == "scored":
        text = state.detail
    colour = colours.get(state.phase, "dim")
    tokens = f"{state.tokens:,}" + (f" / {state.budget.tokens:,}" if state.budget.tokens else "")
    loss = "" if state.loss is None else f"{state.loss:.3f}"
    speed = f"{state.speed:,.0f}" if state.speed else ""
    left = state.seconds_left if state.phase == "training" else None
    return f"[{colour}]{text}[/]", tokens if state.tokens else "", loss, speed, "" if left is None else duration(left)


def _doing(state: EntryState) -> str:
    loss = "" if state.loss is None else f", train loss {state.loss:.3f}"
    left = "" if state.seconds_left is None else f", {duration(state.seconds_left)} left"
    return f"{state.done:.0%} of the budget, {state.tokens:,} tokens{loss}, {state.speed:,.0f} tokens/s{left}"


def bar(share: float, width: int = 10) -> str:
    """A share as a bar of `width` cells."""
    filled = round(max(0.0, min(1.0, share)) * width)
    return "█" * filled + "░" * (width - filled)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes} min {seconds:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
