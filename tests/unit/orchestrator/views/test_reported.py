"""Test rows only report: of whatever is shown or sent of a tournament, no entry's test loss is a part.

The entries of this run have one on record all the same, as a run of an older version does: a number that shows.
"""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from evaluation.data.splits import Row
from evaluation.results import RowResults, read_results
from evaluation.scorecard import Scorecard
from evaluation.submissions.inspection import inspect
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.record.records import Inspection, ModelFolder
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import Snapshot
from orchestrator.tracking.json_lines import happenings
from orchestrator.tracking.tree import parts
from orchestrator.views.evaluate import entry_that_is, evaluate_model
from orchestrator.views.export import model_card
from orchestrator.views.leaderboard import build
from orchestrator.views.report import page
from orchestrator.views.tables import print_leaderboard, print_outcome, print_status
from tests.fabricate import ROWS, fabricate, read
from tests.tiny import tiny_model
from tests.unit.evaluation.submissions.making import held_out

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


def test_evaluate_tells_an_entry_from_a_champion_and_from_an_outside_model(run: RunDirectory) -> None:
    def told(
        sha256: str = "of another folder", content: str = "other values", losses_of: ModelRef | None = None
    ) -> str:
        """What is said of a model with that hash, those values, or the losses of another one."""
        rows = read_results(run.scores("llama", losses_of or BASE) / "losses.parquet", "validation")
        if losses_of is None:
            rows = RowResults(rows.nats + 1e-3, rows.tokens)
        return str(entry_that_is(read(run), sha256, content, lambda split: rows))

    for number, name in ((1, "own"), (1, "full"), (2, "lora-r16")):
        file = run.entry("llama", number, name) / "inspection.json"
        run.write(Inspection(form="full", content=f"{name}'s"), file)
    assert told(content="own's") == "own@1"
    assert told(losses_of=ModelRef("own", 2)) == "own@2"
    seed = ModelFolder(model=ModelRef("own", 2), path=None, sha256="the next seed")
    run.write(seed, run.round("llama", 2) / "seed.json")
    assert told(sha256="the next seed") == "own@2"
    assert told(content="full's") == told(losses_of=ModelRef("full", 1)) == told(losses_of=BASE) == "None"
    assert told(content="lora-r16's", losses_of=BASE) == "None"  # a copy
    assert told() == "None"


def test_one_file_more_does_not_get_an_entry_scored_on_the_test_rows(run: RunDirectory, tmp_path: Path) -> None:
    rows = [Row(str(number), "what is the dog ?", "a cat .") for number in range(ROWS)]
    held_out(run.held_out, rows, rows, rows)
    model = tiny_model(tmp_path / "model", seed=3)
    tiny_model(run.round("llama", 1) / "seed")
    outside = evaluate_model(read(run), model, None, "plain")
    assert (outside.entry, outside.scorecard.test is not None) == (None, True)
    content = inspect(model, "full", run.round("llama", 1) / "seed").content
    run.write(Inspection(form="full", content=content), run.entry("llama", 2, "own") / "inspection.json")
    (model / "README.md").write_text("one file more")
    entry = evaluate_model(read(run), model, None, "plain")
    assert str(entry.entry) == "own@2"
    assert (entry.scorecard.test, entry.scorecard.proof) == (None, None)
