"""When trials are compared, what is proposed, and what one process of a search is given."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train._internal.storage as storage_module
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.trainable.function_trainable import wrap_function

from cluster.errors import ClusterTrouble
from competitors.contract import Allowance, Brief
from competitors.search.coordinator import LONGER
from competitors.search.tune import _proposer, marks, trial_brief, trial_environment, trouble_of
from tests.unit.competitors.search.making import recipe


def test_marks_double_up_to_the_whole():
    assert marks(0.25, 2) == (0.25, 0.5, 1.0)
    assert marks(0.3, 3) == pytest.approx((0.3, 0.9, 1.0))
    assert marks(1, 2) == (1.0,)


def test_a_trial_has_a_folder_and_a_part_of_its_own_and_the_entrys_seed(brief: Brief, tmp_path: Path):
    racing = brief.model_copy(
        update={"race_at": (0.5,), "resources": brief.resources.model_copy(update={"workers": 3})}
    )
    own = trial_brief(racing, tmp_path / "t1", Allowance(steps=2))
    assert (own.output_dir, own.budget, own.random_seed) == (
        tmp_path / "t1" / "submission", Allowance(steps=2), brief.random_seed,
    )  # fmt: skip
    assert (own.resources.workers, own.race_at) == (1, ())


class Searched:
    """What the proposer asks of a search: two of six trials fit into its time."""

    recipe = recipe(trials=6, resources={"workers": 2, "gpus": 0})
    brief = SimpleNamespace(random_seed=1)
    chosen: Any = None
    trials: dict[str, Any] = {}
    trials_time_is_up = False

    def longer(self) -> dict[str, Any]:
        self.chosen = object()
        return {"learning_rate": 1e-3, LONGER: {"seconds": 60}}


def test_the_longer_training_is_proposed_once_however_often_tune_asks():
    """It asks again for the next place before the first proposal has begun."""
    search = Searched()
    proposer = ConcurrencyLimiter(_proposer(search), max_concurrent=2)  # type: ignore[arg-type]
    proposer.suggest("a"), proposer.suggest("b")
    search.trials_time_is_up = True
    for name in "ab":
        proposer.on_trial_complete(name, {"loss": 1.0})
    assert LONGER in proposer.suggest("c")
    assert [proposer.suggest(name) for name in "de"] == [Searcher.FINISHED] * 2


def test_a_trial_that_takes_long_to_end_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Tune gives up a process that is not free for the next trial after two seconds, and that trial with it."""
    for name, value in trial_environment().items():
        monkeypatch.setenv(name, value)

    def trial(config: dict[str, Any]) -> None:
        try:
            tune.report({"loss": 1.0})
        finally:
            time.sleep(2.5)

    monkeypatch.chdir(tmp_path)  # Tune goes to the folder of the trial, and the next test is not to be there
    monkeypatch.setattr(storage_module, "_get_ray_train_session_dir", lambda: str(tmp_path / "session"))
    storage = storage_module.StorageContext(str(tmp_path), "experiment", trial_dir_name="trial")
    process = wrap_function(trial)(config={}, storage=storage)
    assert process.train()["loss"] == 1.0
    assert process.reset({}, storage=storage)


def test_a_store_in_trouble_is_no_fault_of_the_search():
    failed = RayTaskError("trial", "traceback", ClusterTrouble("s3://b/x: cannot be read: nothing answers"))
    assert trouble_of(failed.as_instanceof_cause()) == "s3://b/x: cannot be read: nothing answers"
    assert trouble_of(RayTaskError("trial", "traceback", ValueError("diverged")).as_instanceof_cause()) is None
