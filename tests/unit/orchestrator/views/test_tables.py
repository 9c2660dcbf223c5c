"""What the commands print: every column and figure of the tables, and other people's text as text."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from cluster.text import harmless
from evaluation.figures import FIGURES
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.spent import Spent
from orchestrator.views.columns import RECIPE_COLUMNS, shown_in
from orchestrator.views.leaderboard import Leaderboard, LineageRow, RoundRow, build
from orchestrator.views.tables import _chart_table, champion_folder, print_leaderboard, print_outcome, print_status
from tests.fabricate import REPEATED, fabricate, read, repeated_loss

EVIL = "KeyError: [/bold] [red]layers.0[/red] :boom: [link=https://x.invalid]here[/link] \\"


def printed(run: RunDirectory, command: str = "leaderboard", width: int = 200) -> str:
    snapshot, console = read(run), Console(width=width, record=True, force_terminal=True, file=io.StringIO())
    board = build(snapshot, snapshot.state)
    if command == "leaderboard":
        print_leaderboard(console, board)
    elif command == "status":
        print_status(console, snapshot, board)
    else:
        print_outcome(console, run, board, "tournament")
    return console.export_text()


def test_a_reason_is_shown_as_it_is(tmp_path: Path) -> None:
    one, other = ("llama", 1, "own"), ("llama", 1, "full")
    _, run = fabricate(tmp_path / "run", rounds=1, forfeits={one: EVIL}, rejections={other: EVIL})
    lines = printed(run).splitlines()
    assert f"  own: {harmless(EVIL)} (log: lineages/llama/round-001/own/log.txt)" in lines
    (run.entry(*other[:1], 1, "full") / "log.txt").unlink()  # as in a run of an earlier version
    assert f"  full: {harmless(EVIL)}" in printed(run).splitlines()


def test_recipes_have_a_table_of_their_own_only_where_they_are_repeated(tmp_path: Path) -> None:
    _, plain = fabricate(tmp_path / "plain", rounds=1)
    assert not any("over their runs" in printed(plain, command) for command in ("leaderboard", "status"))
    _, run = fabricate(tmp_path / "run", lineages=("llama",), competitors=REPEATED, loss=repeated_loss)
    first, second = (row.recipes for row in build(read(run), "finished").lineages[0].rounds[1:])
    lines = printed(run).splitlines()
    assert sum("recipes over their runs" in line for line in lines) == 2
    for one in (*first, *second):
        cells = [one.recipe, *(column.cell(one) for column in RECIPE_COLUMNS)]
        assert any([cell.strip() for cell in line.split("│")[1:-1]] == cells for line in lines)
        assert not one.words or f"  {one.words}" in lines
    assert "hot is better than wild" in printed(run, width=60)
    shown = printed(run, "status")
    assert all(one.words in shown for one in second)
    assert first[1].words not in shown


def test_status_says_what_it_cost_where_there_are_prices(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", rounds=1)
    spent = Spent(seconds={"llama": {"H100": 7200.0}, "": {"H100": 1800.0, "CPU": 360.0}}, limit=200.0)
    run.write(spent, run.spent_file)
    assert "cost" not in printed(run, "status")
    assert build(read(run), "finished").cost is None
    run.write(spent.model_copy(update={"prices": {"H100": 4.0}}), run.spent_file)
    assert "cost so far: 10.00 of at most 200.00 (0.10 hours of CPU, 2.50 hours of H100)\n" in printed(run, "status")
    assert build(read(run), "finished").cost == 10


@pytest.mark.parametrize("width", [60, 80, 200])
def test_columns_that_do_not_fit_are_left_out_from_the_right(tmp_path: Path, width: int) -> None:
    _, run = fabricate(tmp_path / "run", rounds=1, lineages=("llama",), forfeits={("llama", 1, "own"): "x" * 300})
    text = printed(run, width=width)
    header = next(line for line in text.splitlines() if "competitor" in line)
    titles = [column.title for column in shown_in("terminal")]
    there = [title for title in titles if title in header]
    assert there == titles[: len(there)]
    assert len(there) == len(titles) or width < 200
    assert len(there) >= 3
    assert "…" not in text
    assert "x" * 300 in text


def test_names_of_references_and_folders_are_shown_as_they_are(tmp_path: Path) -> None:
    references = [{"name": "[/bold] a [b]", "model": "x/y"}]
    _, run = fabricate(tmp_path / "[/bold]" / "run", rounds=1, references=references)
    assert "[/bold] a [b]" in printed(run)
    assert f"report: {run.report_file}" in printed(run, "outcome", width=1000)


def test_every_column_and_every_figure_is_there(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", rounds=1, lineages=("llama",))
    text, board = printed(run), build(read(run), "finished")
    for entry in board.lineages[0].rounds[1].entries:
        row = next(line for line in text.splitlines() if line.startswith(f"│ {entry.competitor} "))
        assert all(f" {column.cell(entry)} " in row for column in shown_in("terminal"))
    for title in (*(column.title for column in shown_in("terminal")), *(f.title for f in FIGURES.values())):
        assert title in text
    last = board.lineages[0].rounds[1].test
    row = next(line for line in text.splitlines() if "│ llama " in line)
    assert all(FIGURES[name].text(value) in row for name, value in last.items())


@pytest.mark.parametrize("width", [40, 80])
def test_bits_per_byte_stand_beside_the_losses_of_different_tokenizers_in_any_terminal(
    tmp_path: Path, width: int
) -> None:
    _, run = fabricate(tmp_path / "run", rounds=1)
    board = build(read(run), "finished")
    for row in (*(lineage.rounds[-1] for lineage in board.lineages), *board.references):
        assert FIGURES["bits_per_byte"].text(row.test["bits_per_byte"]) in printed(run, width=width)
    for lineage in board.lineages:
        assert f"({FIGURES['bits_per_byte'].text(lineage.rounds[-1].test['bits_per_byte'])} bits/byte), champion" in (
            printed(run, "outcome")
        )


@pytest.mark.parametrize("settled", [{}, {"llama": 0}, {"llama": 2, "sn9": 1}])
def test_an_unfinished_tournament_has_its_tables(tmp_path: Path, settled: dict[str, int]) -> None:
    _, run = fabricate(tmp_path / "run", settled=settled)
    assert "test loss of the champion" in printed(run)
    assert "demo: stopped" in printed(run, "status")


def test_status_is_what_records_and_reports_say(tmp_path: Path) -> None:
    states = {("llama", 1, "own"): "diverged"}
    _, run = fabricate(tmp_path / "run", lineages=("llama",), rounds=2, settled={"llama": 1}, training=True)
    with run.locked():
        lines = [line for line in printed(run, "status").splitlines() if "2/2" in line]
    assert len(lines) == 3
    assert all("training" in line and "24,000 / 100,000" in line and "1,667" in line for line in lines)
    lines = [line for line in printed(run, "status").splitlines() if "2/2" in line]
    assert all("stopped" in line and line.rstrip().endswith("1,667") for line in lines)  # no time that is left
    _, run = fabricate(tmp_path / "done", lineages=("llama",), rounds=1, references=[], rejections=states)
    lines = [line for line in printed(run, "status").splitlines() if "1/1" in line]
    assert [state for state in ("scored: 0.9", "rejected") for line in lines if state in line] == [
        "scored: 0.9",
        "scored: 0.9",
        "rejected",
    ]
    assert "demo: finished" in printed(run, "status")


def test_status_of_a_lineage_that_ended_early_is_its_last_round(tmp_path: Path) -> None:
    settings = {"selection": {"patience": 1}}
    _, run = fabricate(
        tmp_path / "run", lineages=("llama",), rounds=3, settled={"llama": 1}, settings=settings, loss=lambda *_: 5.0
    )
    assert read(run).lineages[0].verdicts[0].ends_lineage
    assert sum("1/3" in line for line in printed(run, "status").splitlines()) == 3


def test_outcome_says_where_everything_is(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", lineages=("llama",))
    champion = read(run).lineages[0].champion
    text = printed(run, "outcome", width=1000)
    assert f"champion {champion}: {run.round('llama', champion.round) / 'champion'}" in text
    assert f"MLflow: tournament ui {run.root}" in text
    assert champion_folder(run, "llama", BASE) == "the base model: no entry proved better"
    assert champion_folder(run, "llama", ModelRef("a", 2)).endswith("round-002/champion")


def test_outcome_of_a_run_in_a_bucket_names_no_folder_that_goes_with_its_machine(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", lineages=("llama",))
    (run.root / ".storage").write_text("s3://bucket/runs/run\n")
    text = printed(run, "outcome", width=1000)
    assert str(tmp_path) not in text
    assert "report: s3://bucket/runs/run/report.html" in text
    assert "tournament export s3://bucket/runs/run DEST" in text
    assert "champion full@2: lineages/llama/round-002/champion" in text


def test_nothing_trains_or_is_queued_in_a_tournament_that_stopped(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", rounds=2)
    run.config_file.write_text(run.config_file.read_text().replace("\nrounds: 2\n", "\nrounds: 3\n"))
    snapshot = read(run)
    begun = run.entry("llama", 2, "full")
    (begun / "scorecard.json").unlink()
    for state, words in (("running", "queued"), ("stopped", "not begun")):
        console = Console(width=200, record=True, file=io.StringIO())
        print_status(console, snapshot, build(snapshot, state))
        text = console.export_text()
        assert words in text
        assert ("queued" in text) == (state == "running")


@pytest.mark.parametrize(("rounds", "width"), [(31, 120), (11, 80)])
def test_of_many_rounds_the_base_and_the_last_ones_are_shown(rounds: int, width: int) -> None:
    test = {"loss": 2.1234, "bits_per_byte": 1.234}
    about = {"champion": BASE, "winner": None, "seed_next": BASE, "validation_loss": 2.0, "test": test}
    rows = [RoundRow(round=number, dethroned=number > 0, **about) for number in range(rounds)]
    lineage = LineageRow(name="llama-3.2-3b", base="x", rounds=rows)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(
        _chart_table(console, Leaderboard(tournament="t", state="finished", lineages=[lineage], references=[]))
    )
    text = console.export_text()
    assert "…" not in text
    assert f"round {rounds - 1} " in text
    shown = text.count("2.1234")
    assert 3 < shown < rounds
    assert f"rounds 1 to {rounds - shown} do not fit here" in " ".join(text.split())
