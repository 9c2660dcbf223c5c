"""The table of trackers: which systems a tournament is shown in, by its config."""

from collections.abc import Callable
from typing import Protocol

from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.events import Observer
from orchestrator.record.run_directory import RunDirectory
from orchestrator.tracking.json_lines import JsonLinesTracker
from orchestrator.tracking.metrics import Metrics
from orchestrator.tracking.sync import MlflowTracker


class Tracker(Observer, Protocol):
    """An observer that shows the record in another system."""

    def open(self) -> None:
        """Reach the system and make it ready, before anything fans out and before the first `hear`."""
        ...


TRACKERS: tuple[Callable[[TournamentConfig, RunDirectory], Tracker | None], ...] = (
    MlflowTracker,
    JsonLinesTracker.chosen,
    Metrics,
)
"""Each makes its tracker; None where the config does not ask for it."""


def trackers(config: TournamentConfig, run: RunDirectory) -> list[Tracker]:
    """The trackers of a tournament, still to be opened."""
    made = [make(config, run) for make in TRACKERS]
    return [tracker for tracker in made if tracker is not None]
