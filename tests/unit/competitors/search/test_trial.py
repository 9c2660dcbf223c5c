"""One trial: compared at its marks, saved where it is the best, without the rows of the slice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from cluster.errors import Forfeit
from competitors.contract import Allowance, Brief
from competitors.events import Event, read_events, reporter
from competitors.output import model_form
from competitors.search.trial import run_trial
from competitors.sft.slice_loss import take_slice
from competitors.sft.training import train
from tests.unit.competitors.making import beside, sft_recipe


@pytest.fixture
def brief(brief: Brief) -> Brief:
    return brief.model_copy(update={"budget": Allowance(steps=40)})


def trial(brief: Brief, best: Path, **settings: Any) -> tuple[list[tuple[int, float]], list[Event]]:
    """Runs a trial to its last mark, where Tune ends it: what was passed, and its marks."""
    passed = list[tuple[int, float]]()

    def tell(count: int, loss: float) -> None:
        passed.append((count, loss))
        if count == 3:
            raise SystemExit(0)

    brief.output_dir.rmdir()
    with pytest.raises(SystemExit):
        run_trial(brief, sft_recipe(**settings), take_slice(brief.train_data, 10, 1), (0.25, 0.5, 1.0), best, tell)
    return passed, [event for event in read_events(brief.progress_file) if event.event == "mark"]


def test_a_trial_is_compared_at_its_marks_and_saves_what_is_best(brief: Brief, tmp_path: Path):
    best = tmp_path / "best"
    best.write_text("3.3")
    passed, found = trial(brief, best)
    assert [count for count, _ in passed] == [1, 2, 3]
    assert [event.step for event in found] == [10, 20, 40]
    assert [event.loss for event in found] == [loss for _, loss in passed]
    assert found[2].loss < found[0].loss
    for event in found:
        assert (event.folder is not None) == (event.loss < 3.3)
    assert model_form(brief.output_dir.parent / str(found[2].folder)) == "full"
    assert model_form(brief.output_dir) is None  # it does not hand in


def test_what_is_scored_and_saved_is_what_would_be_handed_in(brief: Brief, tmp_path: Path):
    """With a tail average the loss at the last mark is that of the average, and the trunk trains on as it was."""
    settings = {"score_weights": "tail_average", "tail": 0.5, "schedule": "constant"}
    _, found = trial(brief, tmp_path / "best", **settings)
    whole = beside(brief, tmp_path / "whole")
    held_back = take_slice(brief.train_data, 10, 1)
    train(whole, sft_recipe(**settings), reporter(whole.progress_file), held_back=held_back)
    saved, handed_in = (
        load_file(f / "model.safetensors") for f in (brief.output_dir.parent / found[2].folder, whole.output_dir)
    )
    for name, tensor in handed_in.items():
        np.testing.assert_allclose(saved[name], tensor, atol=1e-6)


def test_the_slice_is_not_trained_on(brief: Brief):
    held_back = take_slice(brief.train_data, 15, 1)
    train(brief, sft_recipe(), reporter(brief.progress_file), held_back=held_back)
    seen = np.load(brief.continuation_dir / "seen.npy")
    assert seen.sum() == 160
    assert seen[held_back].sum() == 0
    assert np.delete(seen, held_back).min() >= 3


def test_a_trial_stays_within_its_part_of_a_gpu(brief: Brief, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parts = list[float]()
    monkeypatch.setattr("competitors.search.trial.stay_within", parts.append)
    resources = brief.resources.model_copy(update={"gpus": 0.25})
    trial(brief.model_copy(update={"resources": resources}), tmp_path / "best")
    assert parts == [0.25]


def test_a_trial_that_diverges_says_so(brief: Brief, tmp_path: Path):
    brief.output_dir.rmdir()
    with pytest.raises(Forfeit, match="its loss was nan after 25% of its part of the budget"):
        run_trial(
            brief, sft_recipe(learning_rate=1e30, max_grad_norm=1e30), take_slice(brief.train_data, 10, 1), (0.25, 1.0),
            tmp_path / "best", lambda count, loss: None,
        )  # fmt: skip
