"""The books of a search: what its trials spent, which model is the best so far, the longer training, the submission.

The trials write their progress into folders of their own beside the submission. It is read here, and here alone the
entry's progress is written: tokens and steps are sums over all trials, the loss is the best on the slice so far.
How the trials are run is not known here: tune.py does that, on Ray Tune.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Any

from cluster.bucket.spreading import Gathering, spread
from cluster.errors import ClusterTrouble, Forfeit
from cluster.store import LOCAL
from competitors.contract import Allowance, Brief
from competitors.events import Report
from competitors.search.recipe import SearchRecipe
from competitors.search.record import SearchRecord, Trial
from competitors.search.space import Range
from competitors.sft.budget import remainder, share_out
from competitors.sft.slice_loss import take_slice

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
START_SECONDS = 120.0
"""No entry is charged for its start. All the later starts of a search are not charged so much: the tournament
ends an entry that is minutes past its budget."""
LONGER = "longer"
BEST = "best"
"""A file beside the trials' folders: the lowest loss on the slice so far."""


class Search:
    """One search from its brief to its submission."""

    def __init__(self, brief: Brief, recipe: SearchRecipe, report: Report) -> None:
        self.brief, self.recipe, self.report = brief, recipe, report
        self.folder = brief.scratch_dir / "trials"
        self.best_file = self.folder / BEST
        self.held_back = take_slice(brief.train_data, recipe.slice_rows, brief.random_seed)
        self.part = share_out(brief.budget, recipe.share, recipe.trials, recipe.resources.workers)
        self.trials: dict[str, Trial] = {}
        self.began: float | None = None
        self.polled = 0.0
        self.best: tuple[float, str] = (inf, "")
        self.saved = 0
        self.chosen: Trial | None = None
        self.failures: list[str] = []
        self.trouble: str | None = None
        """What was wrong with the machine when a trial failed, in words."""
        self.folder.mkdir(parents=True)
        self.handed = spread(brief, recipe, self.folder)
        self.gathering = Gathering(self.handed, brief.log_file)

    def begin(self, name: str, config: dict[str, Any]) -> None:
        """A trial, or the longer training, starts."""
        part = Allowance(**config[LONGER]) if name == LONGER else self.part
        self.trials[name] = Trial(self.folder / name, config, drawn(self.recipe, config), part)

    def fail(self, name: str, reason: str, trouble: str | None) -> None:
        """A trial, or the longer training, has failed."""
        self.failures.append(reason)
        self.trouble = self.trouble or trouble
        if (trial := self.trials.get(name)) is not None:  # it had begun
            trial.reason = reason

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

        Returns the values that were chosen, in words. Raises Forfeit when every trial failed, ClusterTrouble where
        that was the machine's doing.
        """
        trials = [trial for name, trial in self.trials.items() if name != LONGER]
        if not self.best[1] and self.trouble is not None:
            raise ClusterTrouble(f"{self.brief.competitor}: {self.trouble}")
        if not self.best[1]:
            raise Forfeit(f"all {len(trials)} trials failed, the first: {self.failures[0] if self.failures else '?'}")
        longer = self.trials.get(LONGER)
        if longer is not None and self.best[1] == LONGER:
            if longer.loss == self.best[0] and not longer.reason:
                LOCAL.move(longer.folder / "submission", self.brief.output_dir)
            if (longer.folder / "continuation").is_dir():
                LOCAL.move(longer.folder / "continuation", self.brief.continuation_dir)
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
        """Take in what the trials reported, at most every POLL_SECONDS unless `now`."""
        if not now and time.monotonic() - self.polled < POLL_SECONDS:
            return
        self.polled, before = time.monotonic(), self._totals()
        for name, trial in self.trials.items():
            if not trial.is_over:
                self.gathering.take(name)
            for event in trial.events():
                trial.take(event)
                if trial.began is not None and self.began is None:
                    self.began = time.monotonic()
                    self.report({"event": "started", "tokens": 0, "step": 0})
                if event.event == "mark" and trial.loss is not None:
                    self._compare(name, trial.loss, trial.folder / event.folder if event.folder else None)
        if self.began is not None and self._totals()["tokens"] != before["tokens"]:
            self.report({"event": "step", **self._totals()})

    def gather(self) -> None:
        """Once all trials have ended: take in all that they have left. Raises ClusterTrouble where some of it cannot
        be had."""
        self.gathering.end()
        self.poll(now=True)

    def _compare(self, name: str, loss: float, saved: Path | None) -> None:
        """Keep the best model so far where it counts if the entry has to be ended."""
        if loss < self.best[0]:
            self.best = (loss, name)
            LOCAL.write_text(self.best_file, repr(loss))
            self.gathering.put(self.best_file)
            if saved is not None:
                self.saved += 1
                LOCAL.move(saved, self.brief.output_dir / f"checkpoint-{self.saved}")
                LOCAL.remove(self.brief.output_dir / f"checkpoint-{self.saved - 1}")
        elif saved is not None:
            LOCAL.remove(saved)

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


def _less(one: Allowance, other: Allowance) -> bool:
    return any(amount < getattr(other, name) for name, amount in one.model_dump().items() if amount is not None)


def _words(allowance: Allowance) -> str:
    return ", ".join(f"{amount:.4g} {name}" for name, amount in allowance.model_dump().items() if amount is not None)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
