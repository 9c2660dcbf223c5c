"""The stages as they run in a worker process: thin calls that report progress to the entry's own file.

Module-level functions of plain arguments, so that Ray ships them by name.
"""

import time
from pathlib import Path

from cluster.storage import sha256_of
from competitors.contract import Brief, Submission, reporter
from competitors.entry import settle
from evaluation.evaluator import Dtype, ScoringJob, generate, make_full, score_model, score_submission
from evaluation.inspection import Form
from evaluation.scorecard import Scorecard

REPORT_SECONDS = 0.5


class _Fraction:
    """A progress callback that appends `scoring` events to a progress file, a few a second at most."""

    def __init__(self, path: Path) -> None:
        self.report, self.last = reporter(path), 0.0

    def __call__(self, fraction: float) -> None:
        if time.monotonic() - self.last > REPORT_SECONDS:
            self.last = time.monotonic()
            self.report({"event": "scoring", "fraction": round(fraction, 4)})


def score_entry(job: ScoringJob, form: Form, seed: Path, progress_file: Path) -> Scorecard:
    """Inspect and score a submission. Raises Forfeit when it is at fault itself."""
    return score_submission(job, form, seed, _Fraction(progress_file))


def score_plain(job: ScoringJob, progress_file: Path) -> Scorecard:
    """Score a base model or a reference."""
    progress_file.parent.mkdir(parents=True, exist_ok=True)
    return score_model(job, _Fraction(progress_file))


def settle_late(brief: Brief, kind: str, reason: str, began: float) -> Submission:
    """What a competitor that was ended from outside left."""
    return settle(brief, kind, reason, began)


def build_base(name: str, folder: Path) -> None:
    """Build a built-in base model."""
    from competitors.builtin_bases import build

    build(name, folder)


def hash_folder(folder: Path) -> str:
    """SHA-256 of a model folder."""
    return sha256_of(folder)


def promote_submission(seed: Path, submission: Path, form: Form, tokenizer: Path, out: Path) -> str:
    """Make a submission a full model folder; returns its SHA-256."""
    return make_full(seed, submission, form, tokenizer, out)


def write_samples(model: Path, tokenizer: Path, prompts: list[str], tokens: int, dtype: Dtype) -> list[str]:
    """Greedy completions of `prompts`."""
    return generate(model, tokenizer, prompts, tokens, dtype)
