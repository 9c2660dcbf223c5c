"""leaderboard.json: the contract's keys, one key a figure, written only when it differs, and no gap in the record."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.errors import BrokenRecord
from evaluation.figures import FIGURES
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import Snapshot
from orchestrator.views import leaderboard
from orchestrator.views.columns import COLUMNS
from orchestrator.views.evaluate import evaluate_model
from orchestrator.views.export import export_champion
from orchestrator.views.leaderboard import Leaderboard, ReferenceRow, build
from orchestrator.views.pages import draw
from orchestrator.views.report import write_report
from tests.fabricate import REPEATED, fabricate, read, repeated_loss

ENTRY = {
    "competitor", "kind", "status", "reason", "validation_loss", "improvement_low", "train_tokens", "train_seconds",
    "device_seconds", "submission_sha256",
}  # fmt: skip
ROUND = {"round", "champion", "dethroned", "seed_next", "validation_loss", "entries"}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    rejected = {("sn9", 1, "full"): "its tokenizer differs"}
    return fabricate(tmp_path / "run", forfeits={("llama", 2, "own"): "out of memory"}, rejections=rejected)[1]


def test_the_file_has_the_contracts_keys_and_one_for_each_figure(run: RunDirectory) -> None:
    data = json.loads(leaderboard.write(run, build(read(run), "running")).read_text())
    figures = {f"test_{name}" for name in FIGURES}
    assert set(data) == {"format", "tournament", "state", "lineages", "references", "cost"}
    for lineage in data["lineages"]:
        assert set(lineage) == {
            "name",
            "base",
            "rounds",
            "tokens_spent",
            "tokens_on_champions_line",
            "tokens_on_ingredients",
            "tokens_lost",
            "tokens_left_over",
        }
        for row in lineage["rounds"]:
            assert ROUND | figures <= set(row)
            assert all(set(entry) >= ENTRY for entry in row["entries"])
            assert [key for entry in row["entries"] for key in entry if key.startswith("test")] == []
    assert set(data["references"][0]) == {"name", "model", "validation_loss"} | figures
    assert {"test_loss", "test_bits_per_byte", "test_perplexity"} <= figures


def test_what_it_says_is_what_is_on_record(run: RunDirectory) -> None:
    snapshot = read(run)
    rows = build(snapshot, "finished").lineages[0].rounds
    verdict = snapshot.lineages[0].verdicts[1]
    last = rows[2]
    assert (last.champion, last.seed_next, last.winner) == (verdict.champion, verdict.seed_next, verdict.winner)
    card = snapshot.lineages[0].scorecard_of(verdict.champion)
    assert card is not None
    assert last.test == card.test_figures
    assert last.test
    states = {entry.competitor: (entry.status, entry.reason, entry.validation_loss) for entry in last.entries}
    assert states["own"] == ("forfeit", "out of memory", None)
    assert states["full"] == ("scored", "", verdict.entries[0].validation_loss)
    assert [entry.competitor for entry in last.entries] == [*verdict.ranking, "own"]
    assert [entry.log for entry in last.entries] == [
        f"lineages/llama/round-002/{entry.competitor}/log.txt" for entry in last.entries
    ]
    assert '"log": "lineages/llama/round-002/own/log.txt"' in build(snapshot, "finished").to_text()
    rejected = build(snapshot, "finished").lineages[1].rounds[1].entries[-1]
    assert (rejected.status, rejected.reason) == ("rejected", "its tokenizer differs")


def test_recipes_that_are_repeated_are_in_the_file(tmp_path: Path, run: RunDirectory) -> None:
    assert {r.round: r.recipes for r in build(read(run), "finished").lineages[0].rounds} == {0: [], 1: [], 2: []}
    lost = {("llama", 1, "wild-2"): "out of memory"}
    _, repeated = fabricate(tmp_path / "repeated", competitors=REPEATED, loss=repeated_loss, forfeits=lost)
    board = build(read(repeated), "finished")
    data = json.loads(leaderboard.write(repeated, board).read_text())["lineages"][0]["rounds"][1]["recipes"]
    assert [(one["recipe"], one["runs"], len(one["losses"])) for one in data] == [
        ("hot", 3, 3),
        ("mild", 3, 3),
        ("wild", 3, 2),
    ]
    assert data[2]["behind"] == pytest.approx(data[2]["validation_loss"] - data[0]["validation_loss"])
    assert Leaderboard.read(repeated.leaderboard_file) == board


def test_it_reads_back(run: RunDirectory) -> None:
    board = build(read(run), "stopped")
    again = Leaderboard.read(leaderboard.write(run, board))
    assert again == board
    assert isinstance(again.lineages[0].rounds[1].champion, ModelRef)


def test_a_column_of_the_table_is_a_key_of_the_file(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.views.columns import Column

    more = Column("steps", "steps", lambda entry, _: entry.submission and entry.submission.train_steps, str)
    monkeypatch.setattr(leaderboard, "COLUMNS", (*COLUMNS, more))
    board = build(read(run), "stopped")
    data = json.loads(leaderboard.write(run, board).read_text())
    assert data["lineages"][0]["rounds"][1]["entries"][0]["steps"] == 50
    assert more.cell(Leaderboard.read(run.leaderboard_file).lineages[0].rounds[1].entries[0]) == "50"


def test_figures_of_other_versions_and_odd_numbers_are_kept(tmp_path: Path) -> None:
    row = ReferenceRow(name="x", model="y", validation_loss=1.0, test={"loss": math.inf, "of_tomorrow": 2.0})
    text = row.write(tmp_path / "row.json").to_text()
    assert json.loads(text)["test_of_tomorrow"] == 2.0
    assert json.loads(text)["test_loss"] == "Infinity"
    assert ReferenceRow.read(tmp_path / "row.json") == row
    unscored = {"name": "x", "model": "y", "validation_loss": 1.0, "test_loss": None}
    assert ReferenceRow.model_validate(unscored).test == {}


def test_it_is_written_only_when_it_differs(run: RunDirectory) -> None:
    leaderboard.write(run, build(read(run), "running"))
    before = run.leaderboard_file.stat()
    leaderboard.write(run, build(read(run), "running"))
    assert run.leaderboard_file.stat().st_ino == before.st_ino
    leaderboard.write(run, build(read(run), "finished"))
    assert run.leaderboard_file.stat().st_ino != before.st_ino
    assert Leaderboard.read(run.leaderboard_file).state == "finished"


def test_it_grows_with_the_record(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", settled={"llama": 1}, training=True)
    board = build(read(run), "running")
    assert [len(lineage.rounds) for lineage in board.lineages] == [2, 0]
    assert board.references == []


def _export(snapshot: Snapshot) -> object:
    return export_champion(snapshot, snapshot.run.root.parent / "out", "llama")


def _evaluate(snapshot: Snapshot) -> object:
    model = snapshot.run.root / "model"
    model.mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (model / name).touch()
    return evaluate_model(snapshot, model, None, "plain")


VIEWS: dict[str, Callable[[Snapshot], object]] = {
    "leaderboard": lambda snapshot: build(snapshot, "stopped"),
    "report": lambda snapshot: write_report(snapshot, "stopped"),
    "pages": lambda snapshot: draw(snapshot, "stopped"),
    "export": _export,
    "evaluate": _evaluate,
}
FILES = (
    "references/instruct/scorecard.json", "data/manifest.json", "lineages/llama/round-000/scorecard.json",
    "lineages/llama/round-001/roster.json", "lineages/llama/round-001/verdict.json",
    "lineages/llama/round-002/champion.json", "lineages/llama/round-001/full/submission.json",
    "lineages/llama/round-001/full/inspection.json", "lineages/llama/round-002/full/scorecard.json",
)  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("spoil", ["torn", "newer"])
def test_a_record_that_is_torn_or_newer_is_named_by_every_view(run: RunDirectory, view: str, spoil: str) -> None:
    for name in FILES:
        file = run.root / name
        good = file.read_text()
        file.write_text(good[: len(good) // 2] if spoil == "torn" else re.sub(r'"format": \d+', '"format": 99', good))
        with pytest.raises(BrokenRecord) as caught:
            VIEWS[view](read(run))
        assert str(caught.value).startswith(f"{file}: ")
        assert "\n" not in str(caught.value)
        file.write_text(good)


@pytest.mark.parametrize("view", ["leaderboard", "report", "pages"])
@pytest.mark.parametrize(
    "name",
    [
        "round-000/scorecard.json",
        "round-001/roster.json",
        "round-001/verdict.json",
        "round-001/full/submission.json",
        "round-002/full/scorecard.json",
    ],
)
def test_a_gap_in_what_is_settled_is_named(run: RunDirectory, view: str, name: str) -> None:
    file = run.lineage("llama") / name
    file.unlink()
    with pytest.raises(BrokenRecord) as caught:
        VIEWS[view](read(run))
    assert str(caught.value).startswith(f"{file}: is missing")
