"""What gain a config can prove, against simulated lineages."""

from pathlib import Path

import pytest

from orchestrator.config.tournament import TournamentConfig
from orchestrator.planning.plan import make_plan
from orchestrator.planning.power import USUAL_SPREAD, groups_that_prove, in_words, power_of, too_few_rows
from orchestrator.planning.preparation import make_data
from tests.faked import faked_config
from tests.simulation import SPREAD, Setup, false_titles
from tests.tiny import tiny_rows, write_jsonl


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


def test_too_few_rows_to_prove_anything_are_said_before(tmp_path: Path):
    assert too_few_rows(config(tmp_path, 100, 5)) == []
    assert "Give 100 at least" in too_few_rows(config(tmp_path, 99, 5))[0]


def test_rows_that_belong_together_prove_as_their_groups_do(tmp_path: Path):
    alone, together = config(tmp_path, 200, 5), config(tmp_path, 200, 5)
    assert too_few_rows(alone) == too_few_rows(alone, 60) == []
    (line,) = too_few_rows(together, 10)
    assert "10 groups" in line
    assert power_of(together, 10).rows == 10
    rows = [row | {"doc": number // 10} for number, row in enumerate(tiny_rows(600))]
    write_jsonl(tmp_path / "documents.jsonl", rows)
    grouped = {"source": str(tmp_path / "documents.jsonl"), "group": "doc"}
    of_documents = together.model_copy(update={"data": together.data.model_copy(update=grouped)})
    assert make_plan(of_documents, tmp_path / "t.yaml", None).power.rows <= 10
    assert groups_that_prove(tmp_path / "data") is None
    make_data(of_documents, tmp_path / "t.yaml", tmp_path / "data")
    assert 5 <= groups_that_prove(tmp_path / "data") <= 10
