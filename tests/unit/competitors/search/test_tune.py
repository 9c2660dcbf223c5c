"""When trials are compared, and what one process of a search is given."""

from pathlib import Path

import pytest

from competitors.contract import Allowance, Brief
from competitors.search.tune import marks, trial_brief


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
