"""scorecard.json: figures stand flat beside the counts, and read back."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import BrokenRecord
from evaluation.figures import FIGURES
from evaluation.results import RowResults
from evaluation.scorecard import Scorecard, SplitScore


def split_score() -> SplitScore:
    tokens = np.array([0.0, 2.0])
    return SplitScore.of(RowResults(np.array([0.0, 6.0]), tokens, np.array([0.0, 4.0]), hits=tokens / 2), cut_short=2)


def card(**scores: SplitScore) -> Scorecard:
    both = {"validation": split_score(), "test": split_score()} | scores
    return Scorecard(model="m", model_sha256="0" * 64, device="cpu", dtype="float32", seconds=1.0, **both)


def test_rows_cut_away_are_counted():
    score = split_score()
    assert (score.rows, score.rows_cut_away, score.rows_cut_short, score.tokens, score.bytes) == (2, 1, 2, 2, 4)
    assert score.loss == 3.0
    assert score.perplexity == pytest.approx(math.exp(3))
    assert score.bits_per_byte == pytest.approx(6 / math.log(2) / 4)


def test_figures_are_flat_in_json_in_their_order_before_the_counts(tmp_path: Path):
    card().write(tmp_path / "scorecard.json")
    written = json.loads((tmp_path / "scorecard.json").read_text())
    assert written["format"] == 2
    assert written["test"]["loss"] == 3.0
    names = [name for name, figure in FIGURES.items() if figure.judge is None]  # of texts, where there are any
    assert list(written["test"]) == [*names, "rows", "tokens", "bytes", "rows_cut_away", "rows_cut_short"]
    assert Scorecard.read(tmp_path / "scorecard.json") == card()


def test_a_card_of_another_version_has_a_figure_more_or_less(tmp_path: Path):
    path = tmp_path / "scorecard.json"
    card().write(path)
    written = json.loads(path.read_text())
    del written["test"]["perplexity"]
    written["test"]["of_tomorrow"] = 0.25
    path.write_text(json.dumps(written))
    read = Scorecard.read(path).reported
    assert (read.loss, read.figures.get("perplexity"), read.figures["of_tomorrow"]) == (3.0, None, 0.25)


def test_a_card_without_a_loss_is_broken(tmp_path: Path):
    path = tmp_path / "scorecard.json"
    card().write(path)
    path.write_text(path.read_text().replace('"loss"', '"lost"'))
    with pytest.raises(BrokenRecord, match="loss is missing"):
        Scorecard.read(path)


def test_values_that_are_not_finite_read_back(tmp_path: Path):
    odd = split_score().model_copy(update={"figures": {"loss": math.inf, "bits_per_byte": math.nan}})
    card(test=odd).write(tmp_path / "scorecard.json")
    read = Scorecard.read(tmp_path / "scorecard.json").reported
    assert math.isinf(read.loss)
    assert math.isnan(read.bits_per_byte)
