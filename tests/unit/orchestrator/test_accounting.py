"""What is charged for entries that report little, that an earlier driver began, or that die when they should stop."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterTrouble
from cluster.workers import WorkerDied
from competitors.contract import Brief, Submission
from competitors.entry import settle
from competitors.events import reporter
from orchestrator.record.events import EntryChanged, TournamentEvent
from orchestrator.rounds import retries
from orchestrator.views.tokens import tokens_of
from tests.faked import FakedWorkers, allocated, climbing, faked_config, hand_in, play


def test_gpu_hours_of_a_program_that_reports_nothing_are_those_it_held(tmp_path: Path):
    class Silent(FakedWorkers):
        def _compete(self, brief: Brief, recipe: Any) -> Submission:
            done = super()._compete(brief, recipe)
            return done.model_copy(update={"device_seconds": brief.budget.seconds or 0.0})

    programs = [{"name": name, "kind": "python", "entrypoint": "tests.recipes:writes_nothing"} for name in "ab"]
    (tmp_path / "in").mkdir()
    config = allocated(tmp_path / "in", budget={"total_gpu_hours": 12}, competitors=programs)
    played = play(config, tmp_path / "run", Silent(has_gpus=True))
    given = [e.entry.budget.seconds or 0 for one in played.lineages[0].rounds for e in one.entries if e.entry.budget]
    assert sum(given) <= 12 * 3600 * 1.001


class Reporting(FakedWorkers):
    """Each entry reports 900 of 1,000 tokens; `b` then goes on without end, as long as it `hangs`."""

    hangs = True

    def _compete(self, brief: Brief, recipe: Any) -> Submission:
        began, report = time.time(), reporter(brief.progress_file)
        report({"event": "loading"})
        report({"event": "started", "tokens": 0})
        time.sleep(0.2)
        report({"event": "step", "tokens": 900, "step": 9, "seconds": 9.0})
        other = brief.progress_file.parent.parent / "b" / "progress.jsonl"
        while self.hangs and (brief.competitor == "b" or not (other.is_file() and "900" in other.read_text())):
            time.sleep(0.01)
        hand_in(brief)
        report({"event": "ended", "tokens": 1000, "step": 10, "seconds": 10.0})
        done = settle(brief, recipe.kind, "used its budget", began)
        return done.model_copy(update={"sha256": brief.competitor})


def test_what_a_killed_driver_has_begun_is_charged_to_its_entry(tmp_path: Path):
    def killed(event: TournamentEvent) -> None:
        if isinstance(event, EntryChanged) and event.competitor == "a" and event.state == "scored":
            raise KeyboardInterrupt

    (tmp_path / "in").mkdir()
    config, workers = faked_config(tmp_path / "in", rounds=1), Reporting()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        play(config, tmp_path / "run", workers, tell=killed)
    workers.hangs = False
    stopped = time.monotonic()
    time.sleep(1)  # in which nobody held anything
    went_on = time.monotonic()
    lineage = play(config, tmp_path / "run", workers).lineages[0]
    driven = stopped - began + time.monotonic() - went_on
    ended = lineage.rounds[0].entry("b")
    assert ended is not None
    assert ended.submission is not None
    assert (ended.submission.train_tokens, ended.submission.lost_tokens) == (1000, 900)
    assert 2 * 0.2 <= ended.submission.device_seconds < driven
    assert "900" in tokens_of(lineage).in_words


def test_what_several_killed_drivers_have_begun_adds_up(tmp_path: Path):
    (tmp_path / "in").mkdir()
    config, killed = faked_config(tmp_path / "in", rounds=1), list[int]()

    def act(brief: Brief) -> None:
        report = reporter(brief.progress_file)
        report({"event": "started", "tokens": 0, "time": 1.0})
        report({"event": "step", "tokens": 500, "step": 1, "seconds": 1.0})
        if len(killed) < 3:
            killed.append(brief.round)
            raise ClusterTrouble("the driver's machine is gone")
        hand_in(brief)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "ATTEMPTS", 1)
        for _ in range(3):
            with pytest.raises(ClusterTrouble):
                play(config, tmp_path / "run", FakedWorkers(acts={"a": act}))
        entry = play(config, tmp_path / "run", FakedWorkers(acts={"a": act})).lineages[0].rounds[0].entry("a")
    assert entry is not None
    assert entry.submission is not None
    assert entry.submission.lost_tokens == 3 * 500


def test_gpu_hours_are_those_of_all_gpus_that_an_entry_holds(tmp_path: Path):
    class Timed(FakedWorkers):
        def _compete(self, brief: Brief, recipe: Any) -> Submission:
            done = super()._compete(brief, recipe)
            return done.model_copy(update={"train_seconds": brief.budget.seconds or 0.0})

    (tmp_path / "in").mkdir()
    field = [{"name": "a", "kind": "sft", "learning_rate": 1e-3, "resources": {"gpus": 1, "workers": 2}}]
    config = allocated(tmp_path / "in", budget={"total_gpu_hours": 12}, competitors=field)
    rounds = play(config, tmp_path / "run", Timed(has_gpus=True)).lineages[0].rounds
    briefs = [entry.brief for one in rounds for entry in one.entries if entry.brief]
    assert 11 < sum((one.budget.seconds or 0) * one.resources.devices for one in briefs) / 3600 < 12.01


def test_tokens_lost_with_a_process_are_not_charged_to_a_whole_budget(tmp_path: Path):
    class Losing(FakedWorkers):
        def _compete(self, brief: Brief, recipe: Any) -> Submission:
            return super()._compete(brief, recipe).model_copy(update={"lost_tokens": 5_000})

    (tmp_path / "in").mkdir()
    config = allocated(tmp_path / "in")
    runs = [play(config, tmp_path / of.__name__, of(climbing)).lineages[0].rounds for of in (Losing, FakedWorkers)]
    losing, others = ([[entry.entry.budget for entry in one.entries] for one in rounds] for rounds in runs)
    assert losing == others


def test_what_a_killed_driver_has_begun_and_the_next_goes_on_from_is_not_lost(tmp_path: Path):
    class GoingOn(FakedWorkers):
        def _compete(self, brief: Brief, recipe: Any) -> Submission:
            report = reporter(brief.progress_file)
            report({"event": "started", "tokens": 900 if brief.attempt > 1 else 0})
            report({"event": "step", "tokens": 900})
            if self.is_lost:
                raise WorkerDied("the machine is gone", node_lost=True)
            hand_in(brief)
            report({"event": "ended", "tokens": 1000})
            return settle(brief, recipe.kind, "used its budget", time.time())

        is_lost = True

    (tmp_path / "in").mkdir()
    field = [{"name": "a", "kind": "sft", "learning_rate": 1e-3}]
    config, workers = faked_config(tmp_path / "in", rounds=1, competitors=field), GoingOn()
    with pytest.raises(ClusterTrouble):
        play(config, tmp_path / "run", workers)
    workers.is_lost = False
    (entry,) = play(config, tmp_path / "run", workers).lineages[0].rounds[0].entries
    assert entry.submission is not None
    assert (entry.submission.train_tokens, entry.submission.lost_tokens) == (1000, 0)


def test_waiting_for_a_place_is_not_charged(tmp_path: Path):
    class Crowded(FakedWorkers):
        """The first call for `a` waits, and its node is gone before it is placed."""

        waited = 0.0

        async def call(self, shape: Any, function: Any, *args: Any, **more: Any) -> Any:
            if function.__name__ == "compete" and args[0].competitor == "a" and not self.waited:
                self.waited = 0.3
                await asyncio.sleep(self.waited)
                raise WorkerDied("the machine is gone", node_lost=True)
            return await super().call(shape, function, *args, **more)

    (tmp_path / "in").mkdir()
    workers = Crowded()
    entry = play(faked_config(tmp_path / "in", rounds=1), tmp_path / "run", workers).lineages[0].rounds[0].entry("a")
    assert workers.waited
    assert entry is not None
    assert entry.submission is not None
    assert entry.submission.device_seconds == 0
