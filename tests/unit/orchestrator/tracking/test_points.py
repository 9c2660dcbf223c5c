"""Points of metrics."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import BrokenRecord
from competitors.events import Event
from evaluation.figures import FIGURES
from evaluation.scorecard import Scorecard
from orchestrator.field.model_ref import BASE
from orchestrator.tracking.points import champions, of_entry, of_event, of_lineage, of_scorecard, scores_of
from tests.tracked import make, snapshot_of


def card_of(root: Path) -> Scorecard:
    _, run = make(root / "demo", rounds=1, references=[])
    card = snapshot_of(run).lineages[0].scorecard
    assert card is not None
    return card


def test_every_figure_is_a_metric(tmp_path: Path) -> None:
    card = card_of(tmp_path)
    assert list(scores_of(card)) == ["validation_loss", *(f"test_{name}" for name in FIGURES)]
    assert {"test_loss", "test_perplexity", "test_bits_per_byte", "test_token_accuracy"} <= scores_of(card).keys()
    points = of_scorecard(card, 3, 5)
    assert {(point.step, point.time_ms) for point in points} == {(3, 5)}
    assert {point.name: point.value for point in points} == scores_of(card)
    assert of_scorecard(None, 3, 5) == []


def test_a_scorecard_of_another_version_gives_what_it_has(tmp_path: Path) -> None:
    card = card_of(tmp_path)
    test = card.reported.model_copy(update={"figures": {"loss": 1.5, "future": 2.0}})
    assert scores_of(card.model_copy(update={"test": test})) == {
        "validation_loss": card.validation.loss,
        "test_loss": 1.5,
        "test_future": 2.0,  # as that of a task
    }


def test_the_line_of_a_lineage_is_its_champions(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo", rounds=2, references=[])
    lineage = snapshot_of(run).lineages[0]
    line = list(champions(lineage))
    assert [number for number, _, _ in line] == [0, 1, 2]
    assert line[0][1] == BASE
    assert [model for _, model, _ in line[1:]] == [verdict.champion for verdict in lineage.verdicts]
    loss = [(point.step, point.value) for point in of_lineage(lineage) if point.name == "test_loss"]
    assert loss == [(number, card.reported.loss) for number, _, card in line]


def test_a_champion_whose_scorecard_is_gone_is_one_line_that_names_it(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo", rounds=2, references=[])
    lineage = snapshot_of(run).lineages[0]
    file = run.scores(lineage.name, lineage.champion) / "scorecard.json"
    file.unlink()
    with pytest.raises(BrokenRecord) as caught:
        list(champions(snapshot_of(run).lineages[0]))
    assert str(caught.value).startswith(f"{file}: is missing")


def test_an_entry_that_has_only_begun_has_no_points(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo", rounds=1, references=[])
    entry = snapshot_of(run).lineages[0].rounds[0].entries[0]
    assert of_entry(1, 5, entry, None) != []
    assert of_entry(1, 5, replace(entry, submission=None, scorecard=None), None) == []


def test_events_of_strangers_do_no_harm() -> None:
    assert list(of_event(Event(event="note", loss=1.0))) == []
    assert list(of_event(Event(event="step", time=1.0))) == []
    assert list(of_event(Event(event="step", tokens=10, seconds=0.0))) == []
    (point,) = of_event(Event(event="step", step=7, gpu_memory_megabytes=12, time=2.0))
    assert (point.name, point.value, point.step, point.time_ms) == ("system/gpu_memory_megabytes", 12.0, 7, 2000)


def test_an_event_is_placed_by_its_tokens() -> None:
    event = Event(event="ended", tokens=40, step=2, seconds=8.0, loss=1.5, learning_rate=1e-4, time=3.0)
    found = {point.name: (point.value, point.step, point.time_ms) for point in of_event(event)}
    assert found == {
        "train_loss": (1.5, 40, 3000),
        "learning_rate": (1e-4, 40, 3000),
        "tokens_per_second": (5.0, 40, 3000),
    }
