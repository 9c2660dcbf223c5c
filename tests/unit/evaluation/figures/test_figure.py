"""What one figure has to say of itself."""

import pytest

from evaluation.figures.figure import Figure


def test_a_value_is_shown_in_its_form():
    figure = Figure("share", "share", "", "higher", lambda results: 0.0, ".1%")
    assert (figure.text(0.1234), figure.text(None)) == ("12.3%", "–")


def test_what_measures_names_its_column():
    with pytest.raises(AssertionError):
        Figure("share", "share", "", "higher", lambda results: 0.0, ".1%", measure=lambda logits, targets: targets)
