"""The arms that Ray Tune itself runs: ASHA, Optuna's TPE with ASHA, population-based training.

All draw from the one space of recipes. Their trials are trained by the project's code, and tell Tune the loss on the
validation rows. The trials share one allowance of tokens: a ledger, a file for each trial, says what is spent, and
when it is spent all of them end where they are.
"""

import json
import logging
import os
import random
import struct
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.on_ray.connect import connected
from competitors.contract import Brief
from competitors.sft.recipe import SftRecipe
from competitors.sft.trainer import RecipeTrainer
from competitors.sft.training import train
from tests.experiments import recipes
from tests.experiments.cells import Cell
from tests.experiments.counting import Counter, counted
from tests.experiments.results import Outcome, Point
from tests.experiments.single import brief_for, point

REDUCTION = 4
RUNGS = (1 / 16, 1 / 4, 1.0)
"""Shares of a trial's longest training at which ASHA looks at it."""
LONGEST = 1 / 4
"""Share of all tokens that a trial of ASHA, or a member of a population, may train on: as much as one of the
tournament's four recipes would get in equal shares."""
MOST_TRIALS = 64
POPULATION = 4
INTERVALS = 8
LOOK_TOKENS = 1000
"""So often a trial asks the ledger."""


class Ledger:
    """What all trials of an arm have spent."""

    def __init__(self, folder: Path, total: int) -> None:
        self.folder, self.total = folder, total

    def write(self, trial: str, counter: Counter, before: tuple[int, int] = (0, 0)) -> None:
        """A trial's count until now. What lies there is replaced in one write."""
        amounts = (counter.tokens + before[0], counter.padded_tokens + before[1])
        (self.folder / trial).write_bytes(struct.pack("<qq", *amounts))

    def read(self, trial: str) -> tuple[int, int]:
        """A trial's tokens and padded tokens."""
        path = self.folder / trial
        content = path.read_bytes() if path.exists() else b""
        return struct.unpack("<qq", content) if len(content) == 16 else (0, 0)

    def spent(self) -> tuple[int, int]:
        """Those of all trials."""
        all_of_them = [self.read(one.name) for one in self.folder.iterdir()]
        return sum(one[0] for one in all_of_them), sum(one[1] for one in all_of_them)

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.spent()[0] >= self.total


class AllSpent(Exception):
    """Ends a trial where it is: all tokens are spent."""


def asha(cell: Cell, folder: Path) -> Outcome:
    """Recipes drawn at random, stopped by Ray Tune's ASHA."""
    from ray.tune.search.basic_variant import BasicVariantGenerator

    search = BasicVariantGenerator(random_state=np.random.RandomState(cell.seed))
    return _halved(cell, folder, search, _tune_space(cell.setting.adapters))


def tpe(cell: Cell, folder: Path) -> Outcome:
    """Recipes proposed by Optuna's tree of Parzen estimators, stopped by Ray Tune's ASHA."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    low, high = recipes.RATES[cell.setting.adapters]
    space = {name: CategoricalDistribution(values) for name, values in recipes.CHOICES.items()}
    search = OptunaSearch(
        {"rate": FloatDistribution(low, high, log=True), **space},
        metric="loss",
        mode="min",
        sampler=optuna.samplers.TPESampler(seed=cell.seed, n_startup_trials=6, constant_liar=True),
    )
    return _halved(cell, folder, search, None)


def _halved(cell: Cell, folder: Path, search: Any, space: Any) -> Outcome:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    steps = REDUCTION ** (len(RUNGS) - 1)
    return _tuned(
        cell,
        folder,
        stopped_early,
        space,
        tune.TuneConfig(
            metric="loss",
            mode="min",
            search_alg=search,
            scheduler=ASHAScheduler(time_attr="passed", grace_period=1, max_t=steps, reduction_factor=REDUCTION),
            num_samples=MOST_TRIALS,
            max_concurrent_trials=cell.side_by_side,
            reuse_actors=True,  # a fresh process imports torch and TRL again
        ),
    )


def population(cell: Cell, folder: Path) -> Outcome:
    """Ray Tune's population-based training (Jaderberg et al. 2017): the worst quarter goes on from the best one's
    weights and optimizer with values near its own. Schedules span the whole training."""
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    random.seed(cell.seed)
    np.random.seed(cell.seed)
    space = _tune_space(cell.setting.adapters)
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=1,
        synch=True,  # so that all get their part, and nobody's is skipped
        # Of a list the neighbours are drawn; a number is multiplied, which would take beta2 beyond 1.
        hyperparam_mutations={
            "rate": space["rate"],
            "batch": list(recipes.CHOICES["batch"]),
            "beta2": list(recipes.CHOICES["beta2"]),
        },
    )
    config = tune.TuneConfig(
        metric="loss",
        mode="min",
        scheduler=scheduler,
        num_samples=POPULATION,
        max_concurrent_trials=cell.side_by_side,
        reuse_actors=True,
    )
    return _tuned(cell, folder, member, space, config)


def _tune_space(adapters: bool) -> dict[str, Any]:
    """The space as Tune has it."""
    from ray import tune

    choices = {name: tune.choice(list(values)) for name, values in recipes.CHOICES.items()}
    return {"rate": tune.loguniform(*recipes.RATES[adapters]), **choices}


Trial = Callable[[Cell, Path, Ledger, dict[str, Any]], None]


def _tuned(cell: Cell, folder: Path, trial: Trial, space: Any, config: Any) -> Outcome:
    """Run the trials on a Ray of our own; the best model that any of them told of, scored."""
    from ray import tune

    ledger = Ledger(folder / "ledger", cell.setting.total_tokens)
    ledger.folder.mkdir()
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}

    def trainable(values: dict[str, Any]) -> None:
        os.environ.update(environment)
        from tests.experiments.run import quiet

        quiet()
        trial(cell, folder / "trials", ledger, values)

    # Tune knows trainables by name, for the whole Ray job.
    trainable.__name__ = f"{trial.__name__}-{uuid.uuid4().hex}"
    told = _told(ledger)
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # a trial that finds all spent tells of no loss
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with connected("local"):
        results = tune.Tuner(
            tune.with_resources(trainable, {"CPU": 1}),
            param_space=space,
            tune_config=config,
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder),
                callbacks=[told],
                verbose=0,
                failure_config=tune.FailureConfig(fail_fast=True),  # a population waits for its members for ever
            ),
        ).fit()
    errors = [result.error for result in results if result.error is not None]
    if errors:
        raise errors[0]
    best = min(told.results, key=lambda one: one["loss"])
    card = cell.score(Path(best["model"]), folder / "scored")
    tokens, padded = ledger.spent()
    began, own = len(list(ledger.folder.iterdir())), best["own_tokens"]
    words = f"best of {began} trials: {best['recipe']}, {own:,} tokens on its own line"
    return Outcome(card.validation.loss, card.reported.loss, tokens, padded, curve=tuple(told.curve), chosen=words)


ENVIRONMENT = ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE")


def _told(ledger: Ledger) -> Any:
    """A callback of Tune's that keeps what the trials report, and the best so far over what all have spent."""
    from ray import tune

    class Told(tune.Callback):  # type: ignore[misc]
        results: list[dict[str, Any]] = []
        curve: list[Point] = []

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
            if "loss" not in result:  # one that began when all was spent
                return
            self.results.append(result)
            best = min(self.results, key=lambda one: one["loss"])
            spent = ledger.spent()[0]
            self.curve.append(Point(tokens=spent, validation=best["loss"], test=best["test"]))

    return Told()


@contextmanager
def _on_the_ledger(ledger: Ledger, trial: str) -> Iterator[Callable[[], tuple[int, bool]]]:
    """Count a trial's training. What it yields is called after each step, and says what the trial has spent and
    whether the trials together have spent all. AllSpent ends the block quietly."""
    before = ledger.read(trial)  # of the same trial before it was paused
    with counted() as counter:
        looked = 0

        def step() -> tuple[int, bool]:
            nonlocal looked
            ledger.write(trial, counter, before)
            is_time = counter.tokens - looked >= LOOK_TOKENS
            looked = counter.tokens if is_time else looked
            return counter.tokens + before[0], is_time and ledger.is_spent

        with suppress(AllSpent):
            yield step


def stopped_early(cell: Cell, folder: Path, ledger: Ledger, values: dict[str, Any]) -> None:
    """A trial of ASHA: one schedule over its longest training, looked at on each rung and where the tokens end."""
    from ray import tune

    if ledger.is_spent:
        return
    trial = tune.get_context().get_trial_id()
    recipe = recipes.drawn(cell.setting.adapters, f"trial-{trial}", values)
    brief = brief_for(cell, recipe, round(cell.setting.total_tokens * LONGEST), folder / trial)
    brief.output_dir.mkdir(parents=True)
    passed = 0

    def tell(trainer: RecipeTrainer, tokens: int) -> None:
        model = brief.output_dir.parent / f"model-{trainer.step}"
        trainer.save_to(model)
        now = point(cell, trainer)
        told = {"loss": now.validation, "test": now.test, "model": str(model), "recipe": recipe.summary}
        tune.report({"passed": REDUCTION ** (passed - 1) if passed else 0, "own_tokens": tokens, **told})

    with _on_the_ledger(ledger, trial) as step:

        def watch(trainer: RecipeTrainer, spent: float) -> None:
            nonlocal passed
            tokens, is_over = step()
            if is_over or sum(spent >= rung for rung in RUNGS) > passed:
                passed += not is_over
                tell(trainer, tokens)
            if is_over:
                raise AllSpent

        train(brief, recipe, lambda event: None, watch)


def member(cell: Cell, folder: Path, ledger: Ledger, values: dict[str, Any]) -> None:
    """A member of a population: interval after interval, from its own or another's weights and optimizer."""
    from ray import tune

    trial = tune.get_context().get_trial_id()
    at = _Place.of(tune.get_checkpoint())
    whole = cell.setting.total_tokens / POPULATION
    for interval in range(at.interval, INTERVALS):
        here = folder / trial / f"{interval}-{uuid.uuid4().hex[:6]}"
        settings = {"continue": True, "schedule_spans": "lineage"}
        recipe = recipes.drawn(cell.setting.adapters, f"member-{trial}", values, **settings)
        # What an interval's last whole step left over is the next one's.
        brief = brief_for(cell, recipe, round(whole * (interval + 1) / INTERVALS) - at.tokens, here).model_copy(
            update={
                "round": interval + 1,
                "progress": (interval / INTERVALS, (interval + 1) / INTERVALS),
                "seed_continuation": at.continuation,
            }
        )
        now = _trained_on(cell, brief, recipe, ledger, trial)
        at = _Place(interval + 1, at.tokens + now.tokens, brief.continuation_dir)
        told = {"loss": now.validation, "test": now.test, "model": str(brief.output_dir), "own_tokens": at.tokens}
        tune.report({**told, "recipe": recipe.summary}, checkpoint=at.checkpoint(here / "checkpoint"))


def _trained_on(cell: Cell, brief: Brief, recipe: SftRecipe, ledger: Ledger, trial: str) -> Point:
    """Where a member is at the end of an interval."""
    brief.output_dir.mkdir(parents=True)
    ends: list[Point] = []
    with _on_the_ledger(ledger, trial) as step:

        def watch(trainer: RecipeTrainer, spent: float) -> None:
            step()
            if spent == 1:
                ends.append(point(cell, trainer))

        train(brief, recipe, lambda event: None, watch)
    return ends[0]


@dataclass(frozen=True)
class _Place:
    """Where a member of a population is: what Tune hands on as its checkpoint."""

    interval: int = 0
    tokens: int = 0
    """On the line that it goes on from."""
    continuation: Path | None = None

    @classmethod
    def of(cls, checkpoint: Any) -> "_Place":
        if checkpoint is None:
            return cls()
        with checkpoint.as_directory() as folder:
            interval, tokens, continuation = json.loads((Path(folder) / "place.json").read_text())
        return cls(interval, tokens, Path(continuation))

    def checkpoint(self, folder: Path) -> Any:
        from ray import tune

        folder.mkdir()
        (folder / "place.json").write_text(json.dumps([self.interval, self.tokens, str(self.continuation)]))
        return tune.Checkpoint.from_directory(folder)
