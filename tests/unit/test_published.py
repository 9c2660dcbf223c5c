"""What is said of a published experiment, on made-up records: other rules on the same entries, and the tables."""

import json
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from competitors.soup.blend import Blend
from evaluation.data.splits import Row
from evaluation.results import RowResults
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.record.spent import Spent
from tests.experiments import naive, published, published_field, published_losses, rehearsal
from tests.experiments.naive import Judged, judge
from tests.experiments.published_forms import FORMS, forms_of, made_by
from tests.experiments.published_picture import figure
from tests.fabricate import COMPETITORS, fabricate, falling_loss, read
from tests.faked import allocated, play

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


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two forms of an experiment `toy`; sn9's entries of the second never come below their base."""

    def stuck(lineage: str, number: int, competitor: str) -> float:
        return falling_loss(lineage, 0, "base") if lineage == "sn9" else falling_loss(lineage, number, competitor)

    monkeypatch.setattr(naive._Rows, "on_test", lambda self, model: results(falling_loss("", model.round, "full")))
    rows = [Row("0" * 16, "Name a colour.\n", "x" * 300)] * ROWS
    monkeypatch.setattr(published_losses, "read_split", lambda path: rows)
    for form, loss in zip(FORMS, (falling_loss, stuck), strict=True):
        fabricate(
            tmp_path / f"toy-{form}",
            rounds=2,
            samples=[("Name a | colour.\n", "Blue")] * 4,
            rejections={("llama", 1, "own"): "a copy"},
            forfeits={("llama", 2, "own"): "died"},
            loss=loss,
        )
    return tmp_path


def test_everything_is_said_of_both_forms(runs: Path):
    text = published.text("toy", runs)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.count("|") == tables[0].count("|") for line in tables[: 2 + 2 * 2 + 1])
    for words in (
        "llama, equal rounds",
        "sn9, one budget",
        "lower by 0.000",
        "base → ",
        "own, one budget",
        "and was removed: 17.",
        "its time is not on record",
        "Commit unknown; seed 17.",
        "sn9: In one budget the base is still the champion.",
    ):
        assert words in text
    assert "Name a / colour." in text
    assert text.count("what base of llama writes") == 3
    boards = [(held.form, held.board) for held in forms_of("toy", runs)]
    drawn = figure(boards)
    go.Figure(drawn)  # raises what plotly does not take
    assert len(drawn["data"]) == 2 * (2 * 2 + 1)  # in both panels two lineages in two forms, and a reference
    assert [trace["y"][0] for trace in drawn["data"][:2]] == [row.rounds[0].test_loss for row in boards[0][1].lineages]


def test_every_commit_that_ran_a_form_is_named(runs: Path):
    one, other = "a" * 40, "b" * 40 + "-dirty"
    (runs / "toy-equal/environment.json").write_text(json.dumps({"git_commit": one, "later": [{"git_commit": other}]}))
    (runs / "toy-whole/environment.json").write_text(json.dumps({"git_commit": one}))
    forms = forms_of("toy", runs)
    told = f"equal rounds {'a' * 12}, then {'b' * 12}-dirty; one budget {'a' * 12}; seed 17."
    assert made_by(forms) == f"Commits: {told}"
    assert made_by(forms[1:]) == f"Commit {'a' * 12}; seed 17."


def test_losses_stand_with_their_intervals_and_what_was_cut(runs: Path):
    held = forms_of("toy", runs)[0]
    lineage = held.snapshot.lineages[0]
    rows = held.on_test(lineage, BASE)
    per_row = rows.nats / rows.tokens  # fabricated alike for every row but for noise
    half = published_losses._reach(rows)
    assert half == pytest.approx(2 * per_row.std() / ROWS**0.5, rel=0.3)
    assert f"{rows.loss:.3f} ± {half:.3f} (" in published_losses.losses([held])[2]
    assert lineage.scorecard is not None
    assert lineage.scorecard.test is not None
    share = f"{lineage.scorecard.test.bytes / (300 * ROWS):.1%}"
    assert published_losses.cut([held])[2] == f"| llama | {ROWS} | 0 | 0 | {rows.tokens.sum():,.0f} | {share} |"


def test_forfeits_are_told_from_what_was_refused_and_soups_from_what_they_blend(runs: Path):
    equal, whole = forms_of("toy", runs)
    own = next(line for line in published_field.who_won([equal]) if line.startswith("| own,"))
    assert own.split("|")[6:8] == [" 1 ", " 1 "]
    lineage = equal.snapshot.lineages[0]
    entry = lineage.entry(lineage.champion)
    assert entry is not None
    Blend(blended=["full@1", "lora-r16@1"], slice_losses={}, blend_loss=None).write(entry.folder / "soup.json")
    assert f"{lineage.champion} (full@1 + lora-r16@1)" in published_field.ancestry([equal])[0]
    Spent(wall_seconds=3480).write(whole.snapshot.run.spent_file)
    assert "58 min 00 s for all rounds" in published_field.costs([forms_of("toy", runs)[1]])[0]


def test_where_curves_rise_as_published_and_here(judged: Judged):
    flan = published_losses.rises("flan", [], [("a", judged)])
    assert any(line.startswith("| published llama 3.2 | 2 of 6 | 3: 0.99 to 1.25; 6: 0.92 to 0.94") for line in flan)
    assert flan[-2] == "| a, each winner takes the title | 2 of 3 | 2: 2 to 2.01; 3: 2.01 to 2.2 |"
    assert published_losses.published_curves("smollm2") == {}


def test_what_a_race_gave_each_entry_is_said(tmp_path: Path):
    play(allocated(tmp_path), tmp_path / "toy-whole")
    lines = published_field.who_won(forms_of("toy", tmp_path))
    assert lines[-3:-1] == ["|---|--:|--:|", "| l, one budget | 500 | 500 |"]


def test_a_competitor_in_a_cpu_form_says_what_is_left_out():
    recipe = {"name": "a", "kind": "sft", "liger": True, "attention": "flash_attention_2", "optimizer": "lion_8bit"}
    changed, left = rehearsal.on_a_cpu(recipe | {"packing": True, "resources": {"gpus": 1, "workers": 2}})
    assert left == ["liger: True", "attention: flash_attention_2", "optimizer: lion_8bit"]
    assert changed["packing"]
    assert changed["resources"] == {"workers": 2, "cpus": 1.0}
    assert set(COMPETITORS[0]) <= set(rehearsal.on_a_cpu(COMPETITORS[0])[0])
