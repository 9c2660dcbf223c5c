"""Work for the evaluators: what a job holds, trying again elsewhere, and telling their trouble from a submission's.

Who owns a failure is settled here, for everything that an evaluator is asked to do with a submission:

- what the submission's own files are found guilty of is a `Forfeit`, and the submission is rejected;
- anything else (its process dies, the deadline passes, an error nobody expected) is tried once more elsewhere;
- if it stays, the seed is scored in the same way and written to the same disk. If that works, the submission is
  what the evaluator fails on: it is rejected, with the trouble as the reason. If it does not, the evaluator or the
  cluster is in trouble: the tournament stops, and goes on with the same command.

So a bad submission never stops a tournament, and a bad machine never costs a competitor its round.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from cluster.errors import ClusterTrouble, Forfeit, machine_trouble
from cluster.resources import Shape
from cluster.workers import EVALUATOR, Workers
from competitors.contract import Brief
from evaluation.evaluator import ScoringJob, score_model
from evaluation.submissions.examination import Form
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.jobs import as_submission, scoring_job
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.retries import ATTEMPTS, ATTEMPTS_ON_A_SUBMISSION

log = logging.getLogger(__name__)
T = TypeVar("T")


class Evaluators:
    """Calls functions of evaluation/ in warm processes, each within `limits.evaluation_minutes`."""

    def __init__(self, config: TournamentConfig, run: RunDirectory, workers: Workers) -> None:
        self.config, self.run, self.workers = config, run, workers
        self.shape = Shape.of("evaluator", config.evaluation.resources, workers.has_gpus)
        self._at_once = None if self.shape.size else asyncio.Semaphore(config.evaluation.at_once)

    async def call(
        self, function: Callable[..., T], *args: Any, shape: Shape | None = None, attempts: int = ATTEMPTS
    ) -> T:
        """Call `function` in an evaluator. A Forfeit or UserError comes through; other trouble is tried again."""
        for attempt in range(1, attempts + 1):
            try:
                async with AsyncExitStack() as stack:
                    if self._at_once is not None:
                        await stack.enter_async_context(self._at_once)
                    return await self.workers.call(
                        shape or self.shape,
                        function,
                        *args,
                        priority=EVALUATOR,
                        deadline_seconds=self.config.limits.evaluation_minutes * 60,
                    )
            except ClusterTrouble as error:
                if attempt == attempts:
                    times = f", tried {attempts} times" if attempts > 1 else ""
                    raise ClusterTrouble(f"{error} ({function.__name__}{times})") from error
                log.warning("evaluator: %s failed, trying again: %s", function.__name__, error)
        raise AssertionError("unreachable")

    async def call_on_submission(self, seed: ScoringJob, function: Callable[..., T], *args: Any) -> T:
        """Call `function` on a submission. Forfeit where it fails on that, and not on its seed, which `seed` scores."""
        try:
            return await self.call(function, *args, attempts=ATTEMPTS_ON_A_SUBMISSION)
        except ClusterTrouble as trouble:
            if machine_trouble(trouble) is not None:
                raise
            log.warning("evaluator: %s; scoring the seed to find out whose trouble it is", trouble)
            try:
                await self.call(score_model, seed)
            except Forfeit as broken:
                raise ClusterTrouble(f"{trouble}; and its seed cannot be scored either: {broken}") from trouble
            finally:
                self.run.store.remove(seed.out)
            raise Forfeit(f"the evaluator fails on it, and not on its seed: {trouble}") from trouble

    def job_of(self, brief: Brief, form: Form, tokenizer: Path, checkpoint: Path | None = None) -> ScoringJob:
        """Score what was handed in for `brief`, into its entry's folder; or a checkpoint of it, into that."""
        name = str(ModelRef(brief.competitor, brief.round))
        folder, out = (checkpoint, checkpoint) if checkpoint else (brief.output_dir, brief.output_dir.parent)
        return as_submission(self.job(name, folder, tokenizer, out, brief.round), form, brief.seed_model)

    def job(self, name: str, model: Path, tokenizer: Path, out: Path, round: int = 0) -> ScoringJob:
        """Score `model` with `tokenizer` by the config's rules, on the rows that choose in `round`, into `out`."""
        return scoring_job(self.run, self.config, name, model, tokenizer, out, round)
