"""Scoring as it runs in a worker process: with a progress callback that writes to the entry's own file.

Module-level functions of plain arguments, so that workers are sent them by name.
"""

import time
from pathlib import Path

from competitors.events import reporter
from evaluation.evaluator import ScoringJob, score_model, score_slice
from evaluation.scorecard import Scorecard
from evaluation.submissions.inspection import Form, inspect

REPORT_SECONDS = 0.5


class _Fraction:
    """A progress callback that appends `scoring` events to a progress file, a few a second at most."""

    def __init__(self, path: Path) -> None:
        self.report, self.last = reporter(path), 0.0

    def __call__(self, fraction: float) -> None:
        if time.monotonic() - self.last > REPORT_SECONDS:
            self.last = time.monotonic()
            self.report({"event": "scoring", "fraction": round(fraction, 4)})


def score(job: ScoringJob, progress_file: Path) -> Scorecard:
    """Score a model and put its scorecard on record. Raises Forfeit when its loss is not finite."""
    progress_file.parent.mkdir(parents=True, exist_ok=True)
    return score_model(job, _Fraction(progress_file))


def score_checkpoint(job: ScoringJob, form: Form, seed: Path, rows: int) -> float:
    """Loss of a running entry's checkpoint on the first `rows` validation rows, in nats per completion token.

    Raises Forfeit when it does not pass inspection.
    """
    inspect(job.adapter or job.model, form, seed, is_control=True)  # as good as its seed it may yet be
    return score_slice(job, rows)
