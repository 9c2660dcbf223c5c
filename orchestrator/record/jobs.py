"""What an evaluator is asked to score, by a tournament's own rules: an entry, or a model from outside alike."""

from pathlib import Path

from evaluation.evaluator import ScoringJob
from evaluation.submissions.examination import Form
from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.run_directory import RunDirectory


def scoring_job(
    run: RunDirectory, config: TournamentConfig, name: str, model: Path, tokenizer: Path, out: Path, round: int = 0
) -> ScoringJob:
    """Score `model` as it is, with `tokenizer`, on the rows that choose in `round`, into the folder `out`."""
    return ScoringJob(
        name=name,
        model=model,
        tokenizer=tokenizer,
        held_out=run.held_out,
        max_tokens=config.data.max_tokens,
        batch_tokens=config.evaluation.batch_tokens,
        dtype=config.evaluation.dtype,
        written_rows=config.evaluation.written_rows,
        written_tokens=config.evaluation.written_tokens,
        harness=tuple(config.evaluation.harness),
        include=run.own_tasks,
        splits=(config.choosing(round),),
        out=out,
    )


def as_submission(job: ScoringJob, form: Form, seed: Path) -> ScoringJob:
    """The same for a model that stands on `seed`: an adapter over it, or weights under its config."""
    if form == "adapter":
        return job.model_copy(update={"model": seed, "adapter": job.model})
    return job.model_copy(update={"seed": seed})
