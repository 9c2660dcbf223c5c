"""What one figure has to say of itself."""

import numpy as np
import pytest

from evaluation.figures.figure import Figure
from evaluation.results import Array, RowResults


def sums(results: RowResults) -> tuple[Array, Array]:
    return results.nats, results.tokens


def test_a_value_is_shown_in_its_form():
    figure = Figure("share", "share", "", "higher", sums, ".1%")
    assert (figure.text(0.1234), figure.text(None)) == ("12.3%", "–")


def test_what_measures_names_its_column():
    with pytest.raises(AssertionError):
        Figure("share", "share", "", "higher", sums, ".1%", measure=lambda logits, targets: targets)


def test_costs_are_lower_for_the_better_and_their_mean_is_the_figure():
    better, worse = (RowResults(np.array([hits]), np.array([4.0])) for hits in (3.0, 1.0))
    figure = Figure("share", "share", "", "higher", lambda results: (results.nats, results.tokens), ".1%")
    assert (figure.compute(better), figure.costs(better).loss) == (0.75, -0.75)
    assert figure.costs(better).loss < figure.costs(worse).loss
    assert (figure.worse(0.75, 0.5), figure.worse(0.5, 0.75)) == (0.25, -0.25)
