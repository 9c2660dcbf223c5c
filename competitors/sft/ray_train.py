"""A gang: several workers that train one entry together, through Ray Train.

The entry's own process only coordinates. Its workers are Ray Train's; each runs the training that one worker
alone would run, within one torch.distributed group.
"""

import logging
import os
import sys
import uuid
from pathlib import Path
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, WorkerGroupError

from cluster.bucket.spreading import Spread, spread
from cluster.environment import settle_in
from cluster.errors import ClusterTrouble, Forfeit
from cluster.on_ray.gpu_memory import stay_within
from cluster.on_ray.lent_group import train_callbacks
from cluster.on_ray.ray_private import is_health_check_failure
from cluster.text import plain
from competitors.capture import captured_output
from competitors.contract import Brief
from competitors.events import reporter
from competitors.sft.recipe import SftRecipe

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often the workers are started, where one of them was lost."""
PLACEMENT_TRIES = 4
"""Of Ray Train's one minute each: what the workers hold is reserved before the coordinator starts."""
PASSED_ON = ("HF_", "TRANSFORMERS_", "TOKENIZERS_", "TORCH_", "NCCL_", "GLOO_", "RAY_TRAIN_")
"""Environment variables of the coordinator that its workers get: those of the tournament and of the network."""
ECHOES = ("connection closed by peer", "connection reset", "connection refused", "broken pipe", "gloo", "nccl")
"""How a worker's communication fails when another worker is gone."""
NODE = "its node was lost"
SAID = 120
"""So many characters of what a worker said are passed on."""


def train_together(brief: Brief, recipe: SftRecipe) -> None:
    """Train on `resources.workers` workers and leave the submission in the brief's output folder.

    Raises what a worker raised, Forfeit when workers were lost too often, and ClusterTrouble when their nodes were,
    or when they were not placed though their place was reserved.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # would log a second time what is printed
    lost = ""
    for attempt in range(1, ATTEMPTS + 1):
        handed = spread(brief, recipe)
        try:
            _trainer(brief, handed, attempt).fit()
            return
        except ControllerError as error:
            why = plain(error.controller_failure)
            raise ClusterTrouble(f"the workers of {brief.competitor} were not started: {why}") from error
        except PreemptionError:
            lost = NODE
        except WorkerGroupError as error:
            own = [failure for failure in error.worker_failures.values() if not _is_loss(failure)]
            if own:
                raise own[0] from error
            lost = what_was_lost(error.worker_failures)
        finally:
            handed.gather(brief.resources.workers)
        log.warning("attempt %d: %s", attempt, lost)
    if NODE in lost:
        raise ClusterTrouble(f"{brief.competitor}: {lost} ({ATTEMPTS} times)")
    raise Forfeit(f"{lost}, the last of {ATTEMPTS} times")


def _trainer(brief: Brief, handed: Spread, attempt: int) -> Any:
    held = brief.resources
    gpus = "GPU" in held.size
    name = f"{brief.tournament}-{brief.lineage}-{brief.round}-{brief.competitor}-{attempt}-{uuid.uuid4().hex[:8]}"
    return TorchTrainer(
        _work,
        train_loop_config={"handed": handed, "environment": _environment(gpus)},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=held.workers,
            use_gpu=gpus,
            resources_per_worker=held.size,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(brief.scratch_dir.absolute() / "ray-train"),
            # Ray cannot tell a competitor's own error from a lost worker, so it retries neither; we do, above.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=PLACEMENT_TRIES),
            callbacks=train_callbacks(),
        ),
    )


def _environment(gpus: bool) -> dict[str, str]:
    passed_on = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    # ninja, with which DeepSpeed builds what it needs on a GPU, lies beside the interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return passed_on | {"PATH": path} | ({} if gpus else {"DS_ACCELERATOR": "cpu"})


def _work(config: dict[str, Any]) -> None:
    """One worker. Nothing that reads the environment is imported before it is set."""
    settle_in(config["environment"])
    rank = get_context().get_world_rank()
    from competitors.sft.training import train

    handed: Spread = config["handed"]
    with handed.here(rank) as (brief, recipe):
        stay_within(brief.resources.gpus_where(False))
        with captured_output(brief.log_file if rank == 0 else brief.log_file.with_name(f"log-{rank}.txt")):
            train(brief, recipe, reporter(brief.progress_file) if rank == 0 else _to_nobody)


def _to_nobody(event: dict[str, Any]) -> None:
    pass


def what_was_lost(failures: dict[int, Exception]) -> str:
    """In words, which workers a gang has lost and how; those that only noticed are passed over."""
    ended = {rank: failure for rank, failure in sorted(failures.items()) if _has_ended(failure)}
    if not ended:
        rank, failure = min(failures.items())
        return f"its workers lost touch with each other: worker {rank} said {plain(failure, SAID)}"
    return "; ".join(f"worker {rank}: {_how(failure)}" for rank, failure in ended.items())


def _how(failure: Exception) -> str:
    """What became of a worker's process."""
    cause = getattr(failure, "health_check_failure", failure)
    said = str(cause).lower()
    if getattr(cause, "preempted", False) or "node has died" in said or "node was terminated" in said:
        return NODE
    if isinstance(cause, OutOfMemoryError) or "running low on memory" in said:
        return "was ended by Ray, since its node ran low on memory"
    if isinstance(cause, RayActorError):
        return "its process ended"
    return f"answered no more: {plain(cause, SAID)}"


def _is_loss(failure: BaseException) -> bool:
    """Whether a worker ended, or failed as one does whose counterpart has ended."""
    echoes = isinstance(failure, RuntimeError) and any(echo in str(failure).lower() for echo in ECHOES)
    return echoes or _has_ended(failure)


def _has_ended(failure: BaseException) -> bool:
    return isinstance(failure, RayActorError | OutOfMemoryError) or is_health_check_failure(failure)
