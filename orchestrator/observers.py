"""The table of observers: who is told what happens in every tournament, beside whoever watches this one start.

A new one (a message to a chat when a champion changes) is a file with a class as `record.events.Observer` describes,
that hears for instance `ChampionCrowned`, and a line here.
"""

from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.events import Observer
from orchestrator.record.run_directory import RunDirectory
from orchestrator.tracking.trackers import trackers
from orchestrator.views.pages import Pages


def observers(config: TournamentConfig, run: RunDirectory) -> list[Observer]:
    """Those of a tournament, ready to hear. The pages come first: trackers send what they have drawn."""
    tracked = trackers(config, run)
    for tracker in tracked:
        tracker.open()
    return [Pages(run), *tracked]
