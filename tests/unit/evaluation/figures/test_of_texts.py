"""Figures of what a model writes by itself."""

import math

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from evaluation.figures import FIGURES
from evaluation.figures.exact_match import matches
from evaluation.figures.rouge_l import overlap
from evaluation.results import RowResults

WRITTEN, RIGHT = "The cat is on the mat", "the cat sat on a mat, today"


@pytest.mark.parametrize(
    ("written", "right", "match"), [(" Paris\n", "Paris", 1), ("a  b", "a b", 1), ("paris", "Paris", 0), ("", "a", 0)]
)
def test_an_exact_match_is_the_same_words(written: str, right: str, match: float):
    assert matches(written, right) == match


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence():
    # the cat on mat: 4 words of 6 written and of 7 that are right
    assert overlap(WRITTEN, RIGHT) == pytest.approx(2 * 4 / (6 + 7))
    assert overlap(WRITTEN, RIGHT) == pytest.approx(RougeScorer(["rougeL"]).score(RIGHT, WRITTEN)["rougeL"].fmeasure)
    assert overlap("Это дом", "это дом") == 1
    assert overlap("...", "...") == 0


@pytest.mark.parametrize("name", ["exact_match", "rouge_l"])
def test_rows_without_a_text_do_not_count(name: str):
    figure = FIGURES[name]
    judged = RowResults(np.ones(3), np.ones(3), **{figure.column: np.array([1.0, np.nan, 0.5])})
    assert figure.is_in(judged)
    assert figure.compute(judged) == 0.75
    assert figure.costs(judged).tokens.tolist() == [1, 0, 1]
    assert not figure.is_in(RowResults(np.ones(3), np.ones(3)))
    assert not figure.is_in(RowResults(np.ones(1), np.ones(1), **{figure.column: np.array([math.nan])}))
