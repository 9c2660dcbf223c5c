"""Ray Tune's part of a search: it proposes values, runs the trials side by side, halves them, and then runs the longer
training. What comes of it is told to the coordinator, and decided there.

Ray ends what this process has started when it is ended.
"""

import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from cluster.environment import settle_in
from cluster.errors import ClusterTrouble, machine_trouble
from cluster.on_ray.lent_group import tuning
from competitors.capture import captured_output
from competitors.contract import Allowance, Brief
from competitors.failure_words import describe
from competitors.search.coordinator import BEST, LONGER, Search, drawn
from competitors.search.space import Range

log = logging.getLogger(__name__)

LIBRARIES = ("HF_", "TRANSFORMERS_", "TOKENIZERS_")
"""Environment variables that worker processes get and that trials need too."""


def try_values(search: Search) -> None:
    """Run the trials, and after them the longer training, on Ray Tune."""
    recipe = search.recipe
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # TensorBoard and the like
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    at = marks(recipe.grace, recipe.reduction)
    tuner = tune.Tuner(
        tune.with_resources(_trainable(search, at), tune.PlacementGroupFactory([search.brief.resources.size])),
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            search_alg=_proposer(search),
            scheduler=ASHAScheduler(
                time_attr="passed",
                grace_period=1,
                max_t=recipe.reduction ** (len(at) - 1),
                reduction_factor=recipe.reduction,
            ),
            num_samples=recipe.trials + 1,
            max_concurrent_trials=recipe.resources.workers,
            reuse_actors=True,  # a fresh process would import torch and transformers again
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(search.folder),
            callbacks=[_Follower(search), JsonLoggerCallback()],
            verbose=0,
        ),
    )
    with tuning():
        results = tuner.fit()
    for result in results:
        if result.error is not None:
            name = Path(result.path).name
            search.fail(name, _why(result.error), trouble_of(result.error))
            log.error("%s failed: %s", name, result.error)
    search.gather()


def _trainable(search: Search, at: tuple[float, ...]) -> Callable[[dict[str, Any]], None]:
    """What Tune runs in a trial's process. It goes there by value, so it must not hold the search itself."""
    handed, folder, log_file = search.handed, search.folder, search.brief.log_file
    part, held_back, reduction = search.part, search.held_back, search.recipe.reduction
    environment = trial_environment()

    def passed(count: int, loss: float) -> None:
        tune.report({"passed": reduction ** (count - 1), "loss": loss})

    def trial(config: dict[str, Any]) -> None:
        settle_in(environment)
        from competitors.search.trial import run_trial

        is_longer = LONGER in config
        name = LONGER if is_longer else tune.get_context().get_trial_id()
        with handed.apart(folder / name, log_file) as ((brief, recipe, trials), exchange):
            allowed = Allowance(**config[LONGER]) if is_longer else part
            own, made = trial_brief(brief, trials / name, allowed), recipe.made(drawn(recipe, config))
            looks = [n / (made.checkpoints + 1) for n in range(1, made.checkpoints + 2)] if is_longer else at
            tell = None if is_longer else passed
            with captured_output(brief.log_file):
                loss = run_trial(own, made, held_back, looks, trials / BEST, tell, exchange)
        if is_longer:
            passed(len(at), loss)

    # Tune registers trainables by name for the whole Ray job: a second search's function of the same name
    # would take this one's place, and its code would run in this one's trials.
    trial.__name__ = f"search-{search.brief.competitor}-{uuid.uuid4().hex}"
    return trial


class _Follower(tune.Callback):  # type: ignore[misc]
    """Tells the search what Tune does."""

    def __init__(self, search: Search) -> None:
        self.search = search

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.search.begin(_name(trial), trial.config)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.search.trials[_name(trial)].is_over = True

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        self.search.poll()

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        self.search.poll(now=True)  # the trial waits for this: the next one compares itself with the best so far


def _proposer(search: Search) -> OptunaSearch:
    """Optuna's proposals, and after the last of them has ended the longer training."""
    proposed, ended = set[str](), set[str]()

    class Proposer(OptunaSearch):  # type: ignore[misc]
        # The search is no attribute, since Tune pickles those of its searcher.
        def suggest(self, trial_id: str) -> Any:
            if len(proposed) < search.recipe.trials and not search.trials_time_is_up:
                proposed.add(trial_id)
                return super().suggest(trial_id)
            if proposed - ended:
                return None
            return (search.chosen is None and search.longer()) or Searcher.FINISHED

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            if trial_id in proposed:
                super().on_trial_result(trial_id, result)

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            ended.add(trial_id)
            if trial_id in proposed:
                super().on_trial_complete(trial_id, result, error)

    # By default it only begins to learn from results after ten trials.
    sampler = optuna.samplers.TPESampler(
        seed=search.brief.random_seed, n_startup_trials=min(10, max(2, search.recipe.trials // 3)), constant_liar=True
    )
    space = {key: _distribution(values) for key, values in search.recipe.space.items()}
    return Proposer(space, metric="loss", mode="min", sampler=sampler)


def marks(grace: float, reduction: int) -> tuple[float, ...]:
    """The shares of a trial's part at which it is compared, the last of them 1."""
    found = []
    while grace < 1 - 1e-9:
        found.append(grace)
        grace *= reduction
    return (*found, 1.0)


def trial_brief(brief: Brief, folder: Path, part: Allowance) -> Brief:
    """The entry's brief for one process of its search. The random seed stays: all see the same rows in one order."""
    single = brief.resources.model_copy(update={"workers": 1})
    changes = {"budget": part, "output_dir": folder / "submission", "resources": single, "race_at": ()}
    return brief.model_copy(update=changes)


def _distribution(values: Range | list[Any]) -> optuna.distributions.BaseDistribution:
    """As Optuna has it. A choice goes by place, since Optuna takes only plain values."""
    if not isinstance(values, Range):
        return optuna.distributions.CategoricalDistribution(range(len(values)))
    if values.is_whole:
        return optuna.distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
    return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)


def _name(trial: Any) -> str:
    """A Tune trial's folder and key."""
    return LONGER if LONGER in trial.config else str(trial.trial_id)


def trial_environment() -> dict[str, str]:
    """What is set in a trial's process."""
    passed_on = {name: value for name, value in os.environ.items() if name.startswith(LIBRARIES)}
    # So long a trial that was stopped may take to end, files that go to a store included. Of one that is not waited for
    # Tune loses the next trial, and with it the end of the search.
    return passed_on | {"TUNE_FUNCTION_THREAD_TIMEOUT_S": "600"}


def trouble_of(error: BaseException) -> str | None:
    """What was wrong with the machine or the store, in words, where that is why a trial failed."""
    cause = getattr(error, "cause", None) or error
    return str(cause) if isinstance(cause, ClusterTrouble) else machine_trouble(cause)


def _why(error: BaseException) -> str:
    """Why a trial failed, in a line."""
    if isinstance(error, RayTaskError):
        return describe(error.cause)
    return "its process died" if isinstance(error, RayActorError) else describe(error)
