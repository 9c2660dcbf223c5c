"""What all rounds of one tournament have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.workers import Workers
from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.events import TournamentEvent
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.evaluators import Evaluators


@dataclass(frozen=True)
class Context:
    """The config, the record, the workers, and whom to tell what happens."""

    config: TournamentConfig
    run: RunDirectory
    config_folder: Path
    workers: Workers
    evaluators: Evaluators
    tell: Callable[[TournamentEvent], None]
    withheld: Sequence[Path] = ()
    """Where held-out rows lie: what no entry is to be shown."""
