"""What share of a round's wall time is neither training nor scoring, and how long an entry loads.

Read off the record of a real tournament with the quickstart's data and one of its bases.
"""

import os
from pathlib import Path

from competitors.contract import Submission
from competitors.events import read_events
from evaluation.scorecard import Scorecard
from orchestrator.config.loading import load_config
from orchestrator.driver import run_tournament
from orchestrator.record.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]
Interval = tuple[float, float]


def covered(intervals: list[Interval], start: float, end: float) -> float:
    """Seconds of [start, end] in which at least one interval runs."""
    total, reached = 0.0, start
    for low, high in sorted(intervals):
        low, high = max(low, reached), min(high, end)
        if high > low:
            total, reached = total + high - low, high
    return total


def intervals(entry: Path) -> list[Interval]:
    """When an entry trained and when it was scored."""
    times = {event.event: event.time for event in read_events(entry / "progress.jsonl")}
    scored = os.stat(entry / "scorecard.json").st_mtime
    card = Scorecard.read(entry / "scorecard.json")
    return [(times["started"], times["ended"]), (scored - card.seconds, scored)]


def test_share_of_a_round_that_is_neither_training_nor_scoring(tmp_path: Path):
    config = load_config(ROOT / "configs" / "quickstart.yaml", ["rounds=2", "references=[]"])
    config = config.model_copy(update={"lineages": config.lineages[:1]})
    run = RunDirectory(tmp_path / "run")
    run_tournament(config, ROOT / "configs" / "quickstart.yaml", run, "local")
    print()
    for number in (1, 2):
        folder = run.round(config.lineages[0].name, number)
        entries = [path.parent for path in folder.glob("*/scorecard.json")]
        start = min(os.stat(entry / "brief.json").st_mtime for entry in entries)
        end = os.stat(folder / "verdict.json").st_mtime
        worked = [interval for entry in entries for interval in intervals(entry)]
        share = 1 - covered(worked, start, end) / (end - start)
        loads = sorted(_load_seconds(entry) for entry in entries)
        trained = sum(Submission.read(entry / "submission.json").train_seconds for entry in entries)
        print(
            f"round {number}: {end - start:.1f} s, {share:.1%} of it neither training nor scoring;"
            f" {trained:.1f} s of training in {len(entries)} entries;"
            f" call to first step {loads[0]:.1f} to {loads[-1]:.1f} s"
        )


def _load_seconds(entry: Path) -> float:
    """From the call in a worker to the first training step."""
    times = {event.event: event.time for event in reversed(read_events(entry / "progress.jsonl"))}
    return float(times["started"] - times["loading"])
