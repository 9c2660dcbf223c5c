"""The coordinator of a search: Ray Tune's trials, what they spent, the longer training, and what is submitted.

The trials write their progress into folders of their own beside the submission. The coordinator reads it there,
and is the only one that writes the entry's progress: tokens and steps are sums over all trials, the loss is
the best on the slice so far. Ray ends what the coordinator has started when the coordinator is ended.
"""

import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from cluster.errors import Forfeit
from cluster.machine import collect_garbage_rarely
from cluster.placement import any_member_selector
from cluster.store import LOCAL
from competitors.contract import Allowance, Brief, Report
from competitors.failures import describe
from competitors.search.recipe import SearchRecipe
from competitors.search.record import SearchRecord, Trial
from competitors.search.space import Range
from competitors.sft.budget import remainder, share_out
from competitors.sft.slice_loss import take_slice

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
START_SECONDS = 120.0
"""No entry is charged for its start. All the later starts of a search are not charged so much: the tournament
ends an entry that is minutes past its budget."""
LONGER = "longer"
LIBRARIES = ("HF_", "TRANSFORMERS_", "TOKENIZERS_")
"""Environment variables that processes of the pool get and that trials need too."""


class Search:
    """One search from its brief to its submission."""

    def __init__(self, brief: Brief, recipe: SearchRecipe, report: Report) -> None:
        self.brief, self.recipe, self.report = brief, recipe, report
        self.folder = brief.scratch_dir / "trials"
        self.best_file = self.folder / "best"
        self.held_back = take_slice(brief.train_data, recipe.slice_rows, brief.random_seed)
        self.part = share_out(brief.budget, recipe.share, recipe.trials, recipe.resources.workers)
        self.trials: dict[str, Trial] = {}
        self.began: float | None = None
        self.polled = 0.0
        self.best: tuple[float, str] = (inf, "")
        self.saved = 0
        self.chosen: Trial | None = None
        self.failures: list[str] = []

    def run(self) -> str:
        """Search, train the best values with what is left, submit whichever model is best on the slice.

        Returns and raises what `submit` does.
        """
        self.folder.mkdir(parents=True)
        self.try_values()
        return self.submit()

    def try_values(self) -> None:
        """Run the trials, and after them the longer training, on Ray Tune."""
        recipe = self.recipe
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # TensorBoard and the like
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        at = marks(recipe.grace, recipe.reduction)
        results = tune.Tuner(
            tune.with_resources(self._trainable(at), self._place()),
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                search_alg=_proposer(self),
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
                storage_path=str(self.folder),
                callbacks=[_Follower(self), JsonLoggerCallback()],
                verbose=0,
            ),
        ).fit()
        for result in results:
            if result.error is not None:
                self.failures.append(_why(result.error))
                if (trial := self.trials.get(Path(result.path).name)) is not None:  # it had begun
                    trial.reason = self.failures[-1]
                log.error("%s failed: %s", Path(result.path).name, result.error)
        self.poll(now=True)

    def _place(self) -> tune.PlacementGroupFactory:
        """What a trial holds, on any of the nodes where the pool reserved it."""
        held = self.brief.resources
        amounts = {"CPU": held.cpus, "GPU": held.gpus, "memory": int((held.memory_gb or 0) * 2**30)}
        bundle = {name: amount for name, amount in amounts.items() if amount}
        return tune.PlacementGroupFactory([bundle], bundle_label_selector=[any_member_selector()])

    def _trainable(self, at: tuple[float, ...]) -> Callable[[dict[str, Any]], None]:
        """What Tune runs in a trial's process. It goes there by value, so it must not hold the search itself."""
        brief, recipe, folder, part = self.brief, self.recipe, self.folder, self.part
        held_back, best_file, environment = self.held_back, self.best_file, _library_environment()

        def trial(config: dict[str, Any]) -> None:
            os.environ.update(environment)
            collect_garbage_rarely()
            from competitors.search.trial import run_trial

            def passed(count: int, loss: float) -> None:
                tune.report({"passed": recipe.reduction ** (count - 1), "loss": loss})

            made = recipe.made(drawn(recipe, config))
            if LONGER not in config:
                own = trial_brief(brief, folder / tune.get_context().get_trial_id(), part)
                run_trial(own, made, held_back, at, best_file, passed)
                return
            own = trial_brief(brief, folder / LONGER, Allowance(**config[LONGER]))
            parts = made.checkpoints + 1
            loss = run_trial(own, made, held_back, [n / parts for n in range(1, parts + 1)], best_file, None)
            passed(len(at), loss)

        # Tune registers trainables by name for the whole Ray job: a second search's function of the same name
        # would take this one's place, and its code would run in this one's trials.
        trial.__name__ = f"search-{brief.competitor}-{uuid.uuid4().hex}"
        return trial

    def longer(self) -> dict[str, Any] | None:
        """The longer training as Tune's last trial: the best values and what is left of the budget.

        None when no trial has a loss, or when no more is left than a trial had.
        """
        self.poll(now=True)
        if not self.best[1]:
            return None
        chosen, rest = self.trials[self.best[1]], self._rest()
        said = f"{self._best_in_words(chosen)} (slice loss {self.best[0]:.4f} nats)"
        if rest is None or _less(rest, self.part):
            self._note(f"{said}; nothing is left to train longer with")
            return None
        self._note(f"{said}; trains with what is left of the budget: {_words(rest)}")
        self.chosen = chosen
        return {**chosen.config, LONGER: rest.model_dump()}

    def submit(self) -> str:
        """Put the longer training's model in place where it is best; else the best checkpoint lies there already.

        Returns the values that were chosen, in words. Raises Forfeit when every trial failed.
        """
        trials = [trial for name, trial in self.trials.items() if name != LONGER]
        if not self.best[1]:
            raise Forfeit(f"all {len(trials)} trials failed, the first: {self.failures[0] if self.failures else '?'}")
        longer = self.trials.get(LONGER)
        if longer is not None and self.best[1] == LONGER:
            if longer.loss == self.best[0] and not longer.reason:
                self.brief.output_dir.rename(self.folder / "replaced")
                (longer.folder / "submission").rename(self.brief.output_dir)
            if (longer.folder / "continuation").is_dir():
                (longer.folder / "continuation").rename(self.brief.continuation_dir)
        elif longer is not None:
            why = longer.reason or f"its slice loss was {longer.loss:.4f}"
            self._note(f"submits the trial as it was and not the longer training: {why}")
        chosen = self.chosen or self.trials[self.best[1]]
        SearchRecord(
            slice_rows=len(self.held_back),
            trials=[trial.record for trial in trials],
            best=trials.index(chosen),
            longer=longer and longer.record,
            submitted="longer" if self.best[1] == LONGER else "trial",
        ).write(self.brief.output_dir.parent / "search.json")
        self.report({"event": "ended", **self._totals()})
        return self._best_in_words(chosen)

    def poll(self, now: bool = False) -> None:
        """Take in what the trials reported, at most every half second unless `now`."""
        if not now and time.monotonic() - self.polled < POLL_SECONDS:
            return
        self.polled, before = time.monotonic(), self._totals()
        for name, trial in self.trials.items():
            for event in trial.events():
                trial.take(event)
                if trial.began is not None and self.began is None:
                    self.began = time.monotonic()
                    self.report({"event": "started", "tokens": 0, "step": 0})
                if event["event"] == "mark" and trial.loss is not None:
                    self._compare(name, trial.loss, event["saved"])
        if self.began is not None and self._totals()["tokens"] != before["tokens"]:
            self.report({"event": "step", **self._totals()})

    def _compare(self, name: str, loss: float, saved: str | None) -> None:
        """Keep the best model so far where it counts if the entry has to be ended."""
        if loss < self.best[0]:
            self.best = (loss, name)
            LOCAL.write_text(self.best_file, repr(loss))
            if saved is not None:
                self.saved += 1
                Path(saved).rename(self.brief.output_dir / f"checkpoint-{self.saved}")
                shutil.rmtree(self.brief.output_dir / f"checkpoint-{self.saved - 1}", ignore_errors=True)
        elif saved is not None:
            shutil.rmtree(saved)

    def _totals(self) -> dict[str, Any]:
        """Of all trials together. Memory is that of the largest."""
        trials = self.trials.values()
        totals = {"tokens": sum(t.tokens for t in trials), "step": sum(t.steps for t in trials)}
        best = {"loss": self.best[0]} if self.best[1] else {}
        memory = {key: max(t.memory.get(key, 0) for t in trials) for t in trials for key in t.memory}
        return {**totals, "seconds": round(self.seconds, 3), **best, **memory}

    @property
    def seconds(self) -> float:
        """What is charged: the time in which trials trained, and starts beyond START_SECONDS."""
        if self.began is None:
            return 0.0
        trained = covered([(t.began, t.heard) for t in self.trials.values() if t.began is not None])
        return max(trained, time.monotonic() - self.began - START_SECONDS)

    @property
    def trials_time_is_up(self) -> bool:
        """Whether the trials' share of the budget's seconds is over: no more are begun."""
        seconds = self.brief.budget.seconds
        return seconds is not None and self.seconds >= seconds * self.recipe.share

    def _rest(self) -> Allowance | None:
        """What the trials left. One that was cut off between reports counts with its whole part."""
        tokens = steps = 0
        for trial in self.trials.values():
            known = trial.at_mark or trial.began is None
            tokens += trial.tokens if known else self.part.tokens or 0
            steps += trial.steps if known else self.part.steps or 0
        return remainder(self.brief.budget, tokens, steps, self.seconds)

    def _best_in_words(self, chosen: Trial) -> str:
        values = ", ".join(f"{key} {_short(value)}" for key, value in chosen.values.items())
        return f"best of {sum(name != LONGER for name in self.trials)} trials: {values}"

    def _note(self, text: str) -> None:
        log.info(text)
        self.report({"event": "note", "text": text})


class _Follower(tune.Callback):  # type: ignore[misc]
    """Tells the search what Tune does."""

    def __init__(self, search: Search) -> None:
        self.search = search

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        search, name = self.search, _name(trial)
        part = Allowance(**trial.config[LONGER]) if name == LONGER else search.part
        search.trials[name] = Trial(search.folder / name, trial.config, drawn(search.recipe, trial.config), part)

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
            return (LONGER not in search.trials and search.longer()) or Searcher.FINISHED

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


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """How long at least one of the intervals, each from a beginning to an end, lasted."""
    total, until = 0.0, -inf
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def drawn(recipe: SearchRecipe, config: Mapping[str, Any]) -> dict[str, Any]:
    """The values that Tune drew: numbers of a range as they are, choices by their place in the list."""
    return {
        key: config[key] if isinstance(distribution, Range) else distribution[config[key]]
        for key, distribution in recipe.space.items()
    }


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


def _library_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(LIBRARIES)}


def _why(error: BaseException) -> str:
    """Why a trial failed, in a line."""
    if isinstance(error, RayTaskError):
        return describe(error.cause)
    return "its process died" if isinstance(error, RayActorError) else describe(error)


def _less(one: Allowance, other: Allowance) -> bool:
    return any(amount < getattr(other, name) for name, amount in one.model_dump().items() if amount is not None)


def _words(allowance: Allowance) -> str:
    return ", ".join(f"{amount:.4g} {name}" for name, amount in allowance.model_dump().items() if amount is not None)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
