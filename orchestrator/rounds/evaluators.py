"""Work for the evaluator processes: what a job holds, and trying again when they, not a competitor, fail."""

import logging
from pathlib import Path
from typing import Any

from cluster.errors import ClusterTrouble
from cluster.ray_workers import Pool, WorkerDied
from cluster.resources import Resources, Shape
from evaluation.evaluator import ScoringJob
from orchestrator.config import TournamentConfig
from orchestrator.record.run_directory import RunDirectory

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often work is tried when the evaluator or the cluster, not a competitor, is in trouble."""
EVALUATOR, TRAINER = 0, 1  # priorities: what has landed is scored before more is started


class Evaluators:
    """Calls functions of evaluation/ in warm processes of the pool."""

    def __init__(self, config: TournamentConfig, run: RunDirectory, pool: Pool, has_gpus: bool) -> None:
        self.config, self.dir, self.pool, self.has_gpus = config, run, pool, has_gpus

    async def call(self, function: Any, *args: Any, shape: Shape | None = None) -> Any:
        """Call `function` in an evaluator. A Forfeit or UserError comes through; other trouble is tried again."""
        shape = shape or self.shape("evaluator", self.config.evaluation.resources)
        trouble: Exception | None = None
        for _ in range(ATTEMPTS):
            async with self.pool.worker(shape, EVALUATOR) as worker:
                try:
                    return await worker.call(function, *args)
                except (ClusterTrouble, WorkerDied) as error:
                    trouble = error
                    log.warning("evaluator: %s failed, trying again: %s", function.__name__, error)
                    worker.kill()
        assert trouble is not None
        raise ClusterTrouble(f"{trouble} ({function.__name__}, tried {ATTEMPTS} times)") from trouble

    def job(self, name: str, model: Path, tokenizer: Path, out: Path, prompt: Any = "plain") -> ScoringJob:
        """Score `model` with `tokenizer` by the config's rules into the folder `out`."""
        return ScoringJob(
            name=name,
            model=model,
            tokenizer=tokenizer,
            held_out=self.dir.held_out,
            max_tokens=self.config.data.max_tokens,
            batch_tokens=self.config.evaluation.batch_tokens,
            prompt=prompt,
            dtype=self.config.evaluation.dtype,
            out=out,
        )

    def shape(self, role: str, resources: Resources, gang: bool = False) -> Shape:
        """What a process of that role holds on this cluster."""
        gpus = float(self.has_gpus) if resources.gpus == "auto" else float(resources.gpus)
        return Shape(role, resources.cpus, gpus, resources.memory_gb, resources.workers, gang)
