"""leaderboard.json and report.html, drawn again and again while a tournament runs."""

import time
from collections.abc import Sequence

from cluster.store import looks_of
from orchestrator.record.events import State, TournamentEnded, TournamentEvent
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import Snapshot, SnapshotReader
from orchestrator.views import leaderboard
from orchestrator.views.leaderboard import Leaderboard
from orchestrator.views.report import write_report

REDRAW_SECONDS = 120.0
"""The report is megabytes, and may lie in an object store."""


class Pages:
    """The observer that keeps both up to date."""

    name = "leaderboard.json and report.html"
    pause_seconds = 3.0

    def __init__(self, run: RunDirectory) -> None:
        self.reader = SnapshotReader(run)

    def hear(self, events: Sequence[TournamentEvent]) -> None:
        """Draw both as they should be now."""
        ended: list[State] = [event.state for event in events if isinstance(event, TournamentEnded)]
        draw(self.reader.read(), ended[-1] if ended else "running")


def draw(snapshot: Snapshot, state: State) -> Leaderboard:
    """Write both where they would say something else. The report first: it is drawn again until both are written; for
    what changes all the time, costs and curves of training, only every REDRAW_SECONDS."""
    board, looks = leaderboard.build(snapshot, state), looks_of(snapshot.run.report_file)
    is_old = looks is None or (state == "running" and time.time() > looks.written_ns / 1e9 + REDRAW_SECONDS)
    if is_old or not leaderboard.is_written(snapshot.run, board, but_for_cost=True):
        write_report(snapshot, state)
    leaderboard.write(snapshot.run, board)
    return board
