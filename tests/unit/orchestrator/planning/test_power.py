"""What gain a config can prove, against simulated lineages."""

from pathlib import Path

import pytest

from orchestrator.config.tournament import TournamentConfig
from orchestrator.planning.power import USUAL_SPREAD, in_words, power_of
from tests.faked import faked_config
from tests.simulation import SPREAD, Setup, false_titles


def config(tmp_path: Path, validation: int, rounds: int, margin: float = 0.0) -> TournamentConfig:
    one = faked_config(tmp_path, rounds=rounds, selection={"margin_nats": margin})
    return one.model_copy(update={"data": one.data.model_copy(update={"validation": validation})})


def test_the_gain_that_is_said_takes_the_title_in_four_rounds_of_five(tmp_path: Path):
    power = power_of(config(tmp_path, 500, 5))
    rows_differ_in_length = (1 + 0.246) ** 0.5  # 5 to 59 tokens in the simulation: a wider spread of the mean
    gain = power.gain_nats * rows_differ_in_length
    first = Setup(entries=1, rounds=1, rows=power.rows, true_gains=(gain,), confidence=1 - power.level / 0.8)
    titles = sum(false_titles(first, seed)[1] for seed in range(300))
    assert 0.72 < titles / 300 < 0.88
    assert SPREAD == USUAL_SPREAD


def test_more_rows_prove_less_and_a_margin_is_asked_on_top(tmp_path: Path):
    few, many = power_of(config(tmp_path, 200, 5)), power_of(config(tmp_path, 20_000, 5))
    assert few.gain_nats == pytest.approx(10 * many.gain_nats, rel=0.01)
    assert "0.01" in few.rows_for
    assert power_of(config(tmp_path, few.rows_for["0.01"], 5)).gain_nats == pytest.approx(0.01, rel=0.01)
    assert power_of(config(tmp_path, 200, 5, margin=0.1)).gain_nats == pytest.approx(0.1 + few.gain_nats)
    assert "data.validation" in in_words(few)
