"""Test rows only report: of whatever is shown or sent of a tournament, no entry's test loss is a part.

The entries of this run have one on record all the same, as a run of an older version does: a number that shows.
"""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from evaluation.scorecard import Scorecard
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import Snapshot
from orchestrator.tracking.json_lines import happenings
from orchestrator.tracking.tree import parts
from orchestrator.views.evaluate import entry_that_is
from orchestrator.views.export import model_card
from orchestrator.views.leaderboard import build
from orchestrator.views.report import page
from orchestrator.views.tables import print_leaderboard, print_outcome, print_status
from tests.fabricate import fabricate, read
from tests.tiny import tiny_model

ENTRYS, CHAMPIONS = 7.777, 6.666


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Of two rounds of three entries, of which `full` takes the title in the first and `own` seeds after the second."""
    losses = {1: {"full": 1.0}, 2: {"own": 0.95}}
    rules = {"margin_nats": 0.1}
    _, run = fabricate(
        tmp_path / "run",
        lineages=("llama",),
        loss=lambda _, number, name: losses.get(number, {}).get(name, 2.0),
        settings={"selection": rules},
    )
    for file in run.root.glob("lineages/*/round-*/*/scorecard.json"):
        is_champion = file.parent == run.entry("llama", 1, "full")
        assert (Scorecard.read(file).test is not None) == is_champion
        _report(file, CHAMPIONS if is_champion else ENTRYS)
    lineage = read(run).lineages[0]
    assert [str(lineage.champion), str(lineage.verdicts[-1].seed_next)] == ["full@1", "own@2"]
    return run


def _report(file: Path, value: float) -> None:
    card = Scorecard.read(file)
    figures = dict.fromkeys(card.validation.figures, value)
    card.model_copy(update={"test": card.validation.model_copy(update={"figures": figures})}).write(file)


def _printed(show: Callable[[Console, Snapshot], None]) -> Callable[[Snapshot], str]:
    def view(snapshot: Snapshot) -> str:
        console = Console(width=400, record=True, file=io.StringIO())
        show(console, snapshot)
        return console.export_text()

    return view


VIEWS: dict[str, Callable[[Snapshot], str]] = {
    "leaderboard.json": lambda snapshot: build(snapshot, "finished").to_text(),
    "leaderboard": _printed(lambda console, snapshot: print_leaderboard(console, build(snapshot, "finished"))),
    "outcome": _printed(
        lambda console, snapshot: print_outcome(console, snapshot.run, build(snapshot, "finished"), "")
    ),
    "report": lambda snapshot: page(snapshot, build(snapshot, "finished")),
    "model card": lambda snapshot: model_card(snapshot, snapshot.lineages[0]),
    "MLflow": lambda snapshot: "".join(repr(part.build()) for part in parts(snapshot)),
    "JSON lines": lambda snapshot: repr(happenings(snapshot)),
}
"""All of them tell the champion's."""
SILENT: dict[str, Callable[[Snapshot], str]] = {
    "status": _printed(lambda console, snapshot: print_status(console, snapshot, build(snapshot, "finished"))),
    "MLflow, entries": lambda snapshot: "".join(
        repr(one.build().points) for one in parts(snapshot) if one.level == "competitor"
    ),
}
"""None of them tells any."""


@pytest.mark.parametrize("view", VIEWS | SILENT)
def test_a_champions_test_loss_is_shown_and_no_other_entrys(run: RunDirectory, view: str) -> None:
    text = (VIEWS | SILENT)[view](read(run))
    assert str(ENTRYS) not in text
    assert (str(CHAMPIONS) in text) == (view in VIEWS)


def test_evaluate_tells_an_entry_from_a_champion_and_from_an_outside_model(run: RunDirectory, tmp_path: Path) -> None:
    from cluster.digest import model_sha256
    from competitors.contract import Submission
    from orchestrator.record.records import ModelFolder

    def looks_like(name: str, file: Path, kind: type[Submission] | type[ModelFolder]) -> str | None:
        """What is said of a model that the record at `file` names by its hash."""
        folder = tiny_model(tmp_path / name, seed=sum(name.encode()))
        record = run.read(kind, file)
        assert record is not None
        run.write(record.model_copy(update={"sha256": model_sha256(folder)}), file)
        found = entry_that_is(read(run), folder)
        return None if found is None else str(found)

    assert looks_like("own", run.entry("llama", 1, "own") / "submission.json", Submission) == "own@1"
    assert looks_like("the next seed", run.round("llama", 2) / "seed.json", ModelFolder) == "own@2"
    assert looks_like("the champion", run.entry("llama", 1, "full") / "submission.json", Submission) is None
    assert looks_like("the first seed", run.round("llama", 1) / "seed.json", ModelFolder) is None
    assert (
        looks_like("the first seed", run.entry("llama", 2, "lora-r16") / "submission.json", Submission) is None
    )  # a copy
    assert entry_that_is(read(run), tiny_model(tmp_path / "outside")) is None
