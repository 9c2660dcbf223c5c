"""The models that the entries of a round are measured by, on the rows that choose in it."""

from collections.abc import Iterable

from evaluation.evaluator import score_again
from evaluation.results import read_results
from orchestrator.record.records import ModelFolder
from orchestrator.rounds.context import Context


async def score_incumbents(
    context: Context, lineage: str, number: int, models: Iterable[ModelFolder], base: ModelFolder
) -> None:
    """Score those of `models` on the rows that choose in round `number` that are not yet: all where rows rotate."""
    run, evaluators = context.run, context.evaluators
    split = context.config.choosing(number)
    for model, folder in {one.model: one for one in models}.items():
        scores = run.scores(lineage, model)
        if len(read_results(scores / "losses.parquet", split).tokens):
            continue
        assert folder.path is not None
        assert base.path is not None
        job = evaluators.job(str(model), folder.path, base.path, scores, number)
        await evaluators.call(score_again, job)
