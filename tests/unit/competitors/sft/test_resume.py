"""A training that is killed goes on from its last checkpoint, within the same budget, to the same end."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from competitors.contract import Allowance, Brief
from competitors.entry import compete
from competitors.events import Event, read_events
from competitors.sft import callback, resume
from competitors.sft.callback import BudgetCallback
from competitors.sft.recipe import SftRecipe
from tests.unit.competitors.making import beside, run, sft_recipe, steps, weights

ROOT = Path(__file__).parents[4]
KILLED = """
import sys, time
from pathlib import Path
from competitors.contract import Brief
from competitors.entry import compete
from competitors.sft import callback
from competitors.sft.recipe import SftRecipe
callback.REPORT_SECONDS = 0
told = callback.BudgetCallback._report_step
callback.BudgetCallback._report_step = lambda self, step: (time.sleep(0.1), told(self, step))
compete(Brief.read(Path(sys.argv[1])), SftRecipe.model_validate_json(sys.argv[2]))
"""
AVERAGE: dict[str, Any] = {"score_weights": "tail_average", "tail": 0.6, "schedule": "constant"}
SETTINGS: dict[str, dict[str, Any]] = {
    "full": {"weight_decay": 0.1},
    "average": AVERAGE,
    "cooled": {"score_weights": "cool_down", "tail": 0.6},
    "lora": {"adapter": {"method": "lora", "rank": 2}},
    "dropout": {"adapter": {"method": "lora", "rank": 2, "dropout": 0.2}},
    "pissa": {"adapter": {"method": "pissa", "rank": 2}},
    "adafactor": {"optimizer": "adafactor", "optimizer_args": {"scale_parameter": False, "relative_step": False}},
    "packed": {"packing": True, "batch_size": 1},
}


@pytest.fixture(autouse=True)
def every_step_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback, "REPORT_SECONDS", 0)


def killed_after(brief: Brief, recipe: SftRecipe, is_time: Callable[[list[Event]], bool]) -> None:
    """Run the entry in a process of its own and kill it once its events say that it is time."""
    brief.write(brief.output_dir.parent / "brief.json")
    arguments = [str(brief.output_dir.parent / "brief.json"), recipe.model_dump_json(by_alias=True)]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not is_time(read_events(brief.progress_file)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def losses(events: list[Event]) -> dict[int | None, float | None]:
    return {event.step: event.loss for event in steps(events)}


def assert_same_end(brief: Brief, undisturbed: Brief) -> None:
    expected = weights(undisturbed.output_dir)
    assert set(weights(brief.output_dir)) == set(expected)
    for name, tensor in weights(brief.output_dir).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=0)
    told = losses(read_events(brief.progress_file))
    assert told == pytest.approx(losses(read_events(undisturbed.progress_file)), abs=1e-5)
    for file in ("continuation.json", "seen.npy"):
        assert (brief.continuation_dir / file).exists()
    seen = np.load(brief.continuation_dir / "seen.npy")
    assert (seen == np.load(undisturbed.continuation_dir / "seen.npy")).all()


def test_a_killed_training_ends_where_an_undisturbed_one_does(brief: Brief, tmp_path: Path):
    brief = brief.model_copy(update={"budget": Allowance(steps=30), "race_at": (0.3,)})
    undisturbed = beside(brief, tmp_path / "undisturbed")
    whole = compete(undisturbed, sft_recipe())
    killed_after(brief, sft_recipe(), lambda events: any(event.event == "checkpoint" for event in events))
    brief.stop_file.write_text("left over")
    submission = compete(brief.model_copy(update={"attempt": 2}), sft_recipe())
    assert (submission.status, submission.reason) == ("delivered", "used its budget")
    assert (submission.train_steps, submission.train_tokens) == (30, whole.train_tokens)
    assert submission.has_continuation
    assert_same_end(brief, undisturbed)
    events = read_events(brief.progress_file)
    begun = [event for event in events if event.event == "started"]
    assert [event.step for event in begun] == [0, 9]
    assert begun[1].tokens == next(event.tokens for event in steps(events) if event.step == 9)
    assert [event.text for event in events if event.event == "note"] == ["its process was lost: goes on from step 9"]
    after = events[events.index(begun[1]) :]
    assert [event.step for event in steps(after)] == list(range(10, 31))
    assert not brief.scratch_dir.exists()


@pytest.mark.parametrize("name", SETTINGS)
def test_it_goes_on_the_same_whatever_is_trained(
    brief: Brief, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    brief = brief.model_copy(update={"budget": Allowance(steps=12)})
    recipe = sft_recipe(**SETTINGS[name])
    undisturbed = beside(brief, tmp_path / "undisturbed")
    compete(undisturbed, recipe)
    told = BudgetCallback._report_step

    def lost(self: BudgetCallback, step: int) -> None:
        told(self, step)
        if step == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(BudgetCallback, "_report_step", lost)
    with pytest.raises(KeyboardInterrupt):
        compete(brief, recipe)
    monkeypatch.setattr(BudgetCallback, "_report_step", told)
    assert resume.saved(brief) is not None
    assert compete(brief.model_copy(update={"attempt": 2}), recipe).status == "delivered"
    assert_same_end(brief, undisturbed)


def test_without_anything_saved_it_starts_over(brief: Brief):
    (brief.scratch_dir / "resume.new").mkdir(parents=True)  # cut off
    assert compete(brief.model_copy(update={"attempt": 2}), sft_recipe()).status == "delivered"
    assert [event.step for event in steps(read_events(brief.progress_file))] == list(range(1, 11))


def test_seconds_that_were_spent_before_count(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    """A budget of time goes on where it was, not from its beginning."""
    brief = brief.model_copy(update={"budget": Allowance(steps=12, seconds=1000)})
    saved = resume.Resume.write

    def later(self: resume.Resume, path: Path, **settings: Any) -> Any:
        return saved(self.model_copy(update={"seconds": 999.0 + self.step / 100}), path, **settings)

    monkeypatch.setattr(resume.Resume, "write", later)
    run(brief, checkpoints=11)
    resumed = resume.saved(brief)
    assert resumed is not None
    assert resume.Resume.read(resumed / "resume.json").seconds == pytest.approx(999.11)
    events = read_events(brief.progress_file)
    submission = compete(brief.model_copy(update={"attempt": 2}), sft_recipe(checkpoints=11))
    assert submission.train_seconds > 999
    later_events = read_events(brief.progress_file)[len(events) :]
    assert [event.seconds for event in later_events if event.event == "started"] == [pytest.approx(999.11)]


def test_the_newest_whole_folder_counts(brief: Brief):
    assert resume.saved(brief) is None
    old, new = brief.scratch_dir / "resume", resume.new_folder(brief)
    old.mkdir(parents=True)
    new.mkdir()
    assert resume.saved(brief) is None
    resume.Resume(step=1, seconds=1, averaged=0).write(old / "resume.json")
    assert resume.saved(brief) == old
    resume.finish(brief, resume.Resume(step=2, seconds=1, averaged=0))
    assert resume.saved(brief) == old
    assert not new.exists()
    assert resume.Resume.read(old / "resume.json").step == 2
    new.mkdir()
    resume.Resume(step=3, seconds=1, averaged=0).write(new / "resume.json")  # killed before it took its place
    assert resume.saved(brief) == new
