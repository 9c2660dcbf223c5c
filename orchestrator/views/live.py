"""Progress that a person can follow: a live table in a terminal, timestamped lines anywhere else.

Two observers of the tournament. They only show; nothing is decided by them.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from evaluation.figures import loss_in_words
from orchestrator.field.roster import Roster
from orchestrator.record.events import (
    ChampionCrowned,
    EntryChanged,
    Noted,
    RoundBegan,
    TournamentEvent,
    VerdictReached,
)
from orchestrator.views.progress import Progress
from orchestrator.views.words import bar, duration, print_line

LINE_SECONDS = 15.0
"""In a log, an entry that trains is mentioned again after so long."""
COLOURS = {"training": "cyan", "delivered": "magenta", "inspected": "magenta", "scored": "green"}
COLOURS |= {"forfeit": "red", "rejected": "red"}
"""Of states; the others are dim."""

QUIET = ("queued", "delivered", "inspected")
"""States that a log does not mention: what comes of them is said a moment later."""

Key = tuple[str, str]
"""Lineage and competitor."""


class Lines:
    """Progress as timestamped lines, for a log."""

    name = "lines"
    pause_seconds = 0.0

    def __init__(self, console: Console, rounds: int) -> None:
        self.console, self.rounds = console, rounds
        self.entries: dict[Key, EntryChanged] = {}
        """The newest of each competitor in the newest round. Never changed in place: another thread draws it."""
        self._said: dict[Key, float] = {}

    def hear(self, events: Sequence[TournamentEvent]) -> None:
        """Show what happened."""
        for event in events:
            match event:
                case RoundBegan():
                    self.rounds = event.rounds
                    self._begin(event.roster)
                case EntryChanged():
                    self._take(event)
                case Noted():
                    self.say(event.text)
                case VerdictReached():
                    verdict = event.verdict
                    for reason in verdict.reasons:
                        self.say(f"{verdict.lineage} round {verdict.round}: {reason}")
                case ChampionCrowned():
                    loss = f"test loss {loss_in_words(event.test)}"
                    self.say(f"{event.lineage}: {event.model.in_words} is champion, {loss}: {event.folder}")

    def say(self, text: str) -> None:
        """Print one line."""
        print_line(self.console, f"{datetime.now():%H:%M:%S} {text}")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While the block lasts, it is on the screen."""
        yield

    def _begin(self, roster: Roster) -> None:
        """A round's field stands: those who left it are no longer shown."""
        names = {entry.recipe.name for entry in roster.entries}
        self.entries = {
            key: entry for key, entry in self.entries.items() if key[0] != roster.lineage or key[1] in names
        }
        for reason in roster.reasons:
            self.say(f"{roster.lineage} round {roster.round}: {reason}")

    def _take(self, event: EntryChanged) -> None:
        key = (event.lineage, event.competitor)
        before = self.entries.get(key)
        self.entries = self.entries | {key: event}
        if before is None or (before.round, before.state) != (event.round, event.state):
            self._said[key] = time.monotonic()
            if event.state not in QUIET:
                self.say(f"{_name(event)}: {event.state}" + (f": {event.detail}" if event.detail else ""))
        elif event.state == "training" and self._is_due(key):
            self._said[key] = time.monotonic()
            self.say(f"{_name(event)}: {in_words(progress_of(event))}")

    def _is_due(self, key: Key) -> bool:
        return time.monotonic() - self._said.get(key, 0.0) > LINE_SECONDS


class LiveTable(Lines):
    """Progress as a table that stays at the bottom of the terminal, under the lines."""

    name = "live table"

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While the block lasts, the table is redrawn twice a second."""
        with Live(get_renderable=self.table, console=self.console, refresh_per_second=2, transient=True):
            yield

    def _is_due(self, key: Key) -> bool:
        return False  # the table shows it

    def table(self) -> Table:
        """The table as it is now."""
        entries = list(self.entries.values())
        table = entry_table(Text(self._title(entries)))
        last = ""
        for event in entries:
            table.add_row(Text(event.lineage if event.lineage != last else ""), Text(event.competitor), *cells(event))
            last = event.lineage
        return table

    def _title(self, entries: list[EntryChanged]) -> str:
        rounds = {event.lineage: event.round for event in entries}
        return ", ".join(f"{lineage}: round {number} of {self.rounds}" for lineage, number in rounds.items())


def make_live(console: Console, rounds: int) -> Lines:
    """A live table where a person watches a terminal, lines elsewhere."""
    return LiveTable(console, rounds) if console.is_terminal else Lines(console, rounds)


def entry_table(title: Text | None, *columns: str) -> Table:
    """An empty table of entries: the lineage, further `columns`, and those of `cells`."""
    # Narrow, so that it fits a terminal of 80 columns.
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column in ("lineage", *columns, "competitor", "state"):
        table.add_column(column, no_wrap=True)
    for column in ("tokens", "loss", "tokens/s", "left"):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def cells(event: EntryChanged) -> list[Text]:
    """An entry's state and numbers. Text, not strings: a competitor's words are no markup."""
    progress = progress_of(event)
    state: str = event.state
    if event.state == "training" and progress.tokens + progress.step:
        state = f"training {bar(progress.share)}"
    elif event.state in ("delivered", "inspected") and event.fraction:
        state = f"scoring  {bar(event.fraction)}"
    elif event.state == "scored":
        state = event.detail or "scored"
    limit = f" / {event.budget.tokens:,}" if event.budget.tokens else ""
    left = progress.seconds_left if event.state == "training" else None
    return [
        Text(state, style=COLOURS.get(event.state, "dim")),
        Text(f"{event.tokens:,}{limit}" if event.tokens else ""),
        Text("" if event.loss is None else f"{event.loss:.3f}"),
        Text(f"{progress.speed:,.0f}" if progress.speed else ""),
        Text("" if left is None else duration(left)),
    ]


def progress_of(event: EntryChanged) -> Progress:
    """The numbers of an entry that trains."""
    return Progress(event.budget, event.tokens, event.step, event.loss, event.seconds)


def in_words(progress: Progress) -> str:
    """How far training has come, in a line."""
    loss = "" if progress.loss is None else f", train loss {progress.loss:.3f}"
    left = "" if progress.seconds_left is None else f", {duration(progress.seconds_left)} left"
    return f"{progress.share:.0%} of the budget, {progress.tokens:,} tokens{loss}, {progress.speed:,.0f} tokens/s{left}"


def _name(event: EntryChanged) -> str:
    return f"{event.lineage} round {event.round} {event.competitor}"
