"""What is said of a published experiment, on made-up records: other rules on the same entries, and the tables."""

from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from evaluation.results import RowResults
from orchestrator.field.model_ref import BASE, ModelRef
from tests.experiments import naive, published, rehearsal
from tests.experiments.naive import Judged, judge
from tests.experiments.published_picture import figure
from tests.fabricate import COMPETITORS, fabricate, falling_loss, read

ROWS = 60
LOSSES = {0: 3.0, 1: 2.0, 2: 1.99, 3: 2.2}
"""Of every round's winner on the rows that choose."""
ON_TEST = {0: 3.0, 1: 2.0, 2: 2.01, 3: 2.2}
"""Round 2's lead is noise; round 3's winner is worse, and the first rule crowns it all the same."""


def results(loss: float, seed: int = 0) -> RowResults:
    rng, tokens = np.random.default_rng(seed), np.full(ROWS, 10.0)
    return RowResults(tokens * (loss + 0.001 * rng.standard_normal(ROWS)), tokens)


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judged:
    def loss(lineage: str, number: int, competitor: str) -> float:
        return LOSSES[number] + (0.05 if competitor != "full" and number else 0.0)

    _, run = fabricate(
        tmp_path / "run", lineages=("a",), rounds=3, loss=loss, settings={"selection": {"margin_nats": 0.1}}
    )
    monkeypatch.setattr(naive._Rows, "on_test", lambda self, model: results(ON_TEST[model.round], model.round))
    snapshot = read(run)
    return judge(snapshot, snapshot.lineages[0], tmp_path / "judged")


def test_rules_differ_in_whom_they_crown(judged: Judged):
    assert [(one.round, one.is_noise) for one in judged.always] == [(1, False), (2, True), (3, True)]
    assert [(one.round, one.is_noise) for one in judged.if_lower] == [(1, False), (2, True)]
    assert [(one.round, one.is_noise, one.is_proven) for one in judged.ours] == [(1, False, True)]
    assert [(one.round, one.is_noise) for one in judged.withheld] == [(2, True), (3, True)]
    assert judged.always[1].over == ModelRef("full", 1)
    assert judged.ours[0].over == BASE


def test_the_first_rules_curve_rises(judged: Judged):
    assert judged.curve == pytest.approx([3.0, 2.0, 2.01, 2.2], abs=0.001)


def test_everything_is_said_of_both_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(published, "RUNS", tmp_path)
    monkeypatch.setattr(naive._Rows, "on_test", lambda self, model: results(falling_loss("", model.round, "full")))
    for form in published.FORMS:
        fabricate(tmp_path / f"toy-{form}", rounds=2, samples=[("Name a | colour.\n", "Blue")] * 4)
    text = published.text("toy")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.count("|") == tables[0].count("|") for line in tables[: 2 + 2 * 2 + 1])
    for words in (
        "llama, equal rounds",
        "sn9, one budget",
        "lower by 0.000",
        "base → ",
        "own, one budget",
        "17 nearly say",
    ):
        assert words in text
    assert "Name a / colour." in text
    assert text.count("what base of llama writes") == 3
    boards = [(held.form, held.board) for held in (published.Held.read("toy", form) for form in published.FORMS)]
    drawn = figure(boards)
    go.Figure(drawn)  # raises what plotly does not take
    assert len(drawn["data"]) == 2 * (2 * 2 + 1)  # in both panels two lineages in two forms, and a reference
    assert [trace["y"][0] for trace in drawn["data"][:2]] == [row.rounds[0].test_loss for row in boards[0][1].lineages]


def test_a_competitor_in_a_cpu_form_says_what_is_left_out():
    recipe = {"name": "a", "kind": "sft", "liger": True, "attention": "flash_attention_2", "optimizer": "lion_8bit"}
    changed, left = rehearsal.on_a_cpu(recipe | {"packing": True, "resources": {"gpus": 1, "workers": 2}})
    assert left == ["liger: True", "attention: flash_attention_2", "optimizer: lion_8bit"]
    assert changed["packing"]
    assert changed["resources"] == {"workers": 2, "cpus": 1.0}
    assert set(COMPETITORS[0]) <= set(rehearsal.on_a_cpu(COMPETITORS[0])[0])
