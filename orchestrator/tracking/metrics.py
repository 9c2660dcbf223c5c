"""How far a tournament is, as figures for Prometheus: see `cluster.on_ray.metrics`."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import get_args

from cluster.on_ray.metrics import show
from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.events import (
    ChampionCrowned,
    EntryChanged,
    EntryState,
    RoundBegan,
    TournamentEvent,
    VerdictReached,
)
from orchestrator.record.run_directory import RunDirectory


class Metrics:
    """Shows the newest of everything that it hears. `show` is told the name, the value and the labels."""

    name = "metrics"
    pause_seconds = 2.0

    def __init__(self, config: TournamentConfig, run: RunDirectory, show: Callable[..., None] = show) -> None:
        del run
        self._tournament, self._show = config.name, show
        self._entries: dict[str, dict[str, EntryChanged]] = {}

    def open(self) -> None:
        """Nothing to reach: Ray is asked once it is there."""

    def hear(self, events: Sequence[TournamentEvent]) -> None:
        """Show what changed."""
        changed = set()
        for event in events:
            match event:
                case RoundBegan():
                    self._entries[event.roster.lineage] = {}
                    self._say(event.roster.lineage, tournament_round=event.roster.round, tournament_rounds=event.rounds)
                    changed.add(event.roster.lineage)
                case EntryChanged():
                    self._entries.setdefault(event.lineage, {})[event.competitor] = event
                    changed.add(event.lineage)
                case VerdictReached():
                    self._say(event.verdict.lineage, tournament_validation_loss=event.verdict.validation_loss)
                case ChampionCrowned() if "loss" in event.test:
                    self._say(event.lineage, tournament_test_loss=event.test["loss"])
        for lineage in changed:
            entries = self._entries[lineage].values()
            states = Counter(entry.state for entry in entries)
            for state in get_args(EntryState):
                labels = {"tournament": self._tournament, "lineage": lineage, "state": state}
                self._show("tournament_entries", states[state], **labels)
            self._say(lineage, tournament_training_tokens=sum(entry.tokens for entry in entries))

    def _say(self, lineage: str, **figures: float) -> None:
        for name, value in figures.items():
            self._show(name, value, tournament=self._tournament, lineage=lineage)
