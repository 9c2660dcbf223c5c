"""When trials are compared."""

import pytest

from competitors.search.coordinator import covered
from competitors.search.tune import marks


def test_marks_and_the_time_that_is_charged():
    assert marks(0.25, 2) == (0.25, 0.5, 1.0)
    assert marks(0.3, 3) == pytest.approx((0.3, 0.9, 1.0))
    assert marks(1, 2) == (1.0,)
    assert covered([]) == 0
    assert covered([(5, 7), (0, 2), (1, 3)]) == 5
    assert covered([(0, 10), (2, 3)]) == 10
