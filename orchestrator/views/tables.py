"""What the commands print: leaderboards, status, and where to find the result.

Cells are Text, not strings: a competitor's reason is no markup.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from competitors.contract import USED_ITS_BUDGET, Allowance
from evaluation.figures import FIGURES, loss_in_words
from evaluation.figures.figure import Figure
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import RosterEntry
from orchestrator.record.events import EntryChanged
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import EntrySnapshot, LineageSnapshot, Snapshot, has_ended
from orchestrator.views.columns import RECIPE_COLUMNS, Column, RecipeColumn, shown_in
from orchestrator.views.leaderboard import EntryRow, Leaderboard, RoundRow
from orchestrator.views.live import cells, entry_table
from orchestrator.views.progress import Progress, read_progress
from orchestrator.views.words import print_line

C = TypeVar("C")


def print_leaderboard(console: Console, board: Leaderboard) -> None:
    """Each lineage's rounds with their entries, then the chart as a table."""
    for lineage in board.lineages:
        for round_ in lineage.rounds[1:]:
            console.print(_round_table(console, lineage.name, round_))
            for line in [*_said_of_entries(round_), *round_.field, *round_.reasons]:
                print_line(console, f"  {line}")
            if round_.recipes:
                console.print(_recipes_table(console, lineage.name, round_))
                _print_about_recipes(console, round_)
            console.print()
    console.print(_chart_table(console, board))


def _said_of_entries(round_: RoundRow) -> list[str]:
    """Why entries failed, and where their logs are; how others ended where that says anything."""
    return [
        f"{e.competitor}: {e.reason}" + (f" (log: {e.log})" if e.log and e.status != "scored" else "")
        for e in round_.entries
        if e.reason not in ("", USED_ITS_BUDGET)
    ]


def _round_table(console: Console, lineage: str, round_: RoundRow) -> Table:
    def with_columns(columns: Sequence[Column]) -> Table:
        table = Table(title=Text(f"{lineage}, round {round_.round}"), title_justify="left")
        for title in ("competitor", "result"):
            table.add_column(title, no_wrap=True)
        for column in columns:
            table.add_column(column.title, justify="right", no_wrap=True)
        for entry in round_.entries:
            numbers = [Text(column.cell(entry)) for column in columns]
            table.add_row(Text(entry.competitor), _result(entry, round_), *numbers)
        return table

    return _that_fits(console, with_columns, shown_in("terminal", round_.metric))


def _recipes_table(console: Console, lineage: str, round_: RoundRow) -> Table:
    """The recipes that are repeated: of all tables the one that is about recipes."""

    def with_columns(columns: Sequence[RecipeColumn]) -> Table:
        title = f"{lineage}, round {round_.round}: recipes over their runs, validation loss"
        table = Table(title=Text(title), title_justify="left")
        table.add_column("recipe", no_wrap=True)
        for column in columns:
            table.add_column(column.title, justify="right", no_wrap=True)
        for one in round_.recipes:
            table.add_row(Text(one.recipe), *(Text(column.cell(one)) for column in columns))
        return table

    return _that_fits(console, with_columns, RECIPE_COLUMNS)


def _print_about_recipes(console: Console, round_: RoundRow) -> None:
    for one in round_.recipes:
        if one.words:
            print_line(console, f"  {one.words}")


def _result(entry: EntryRow, round_: RoundRow) -> Text:
    if entry.competitor == round_.winner:
        return Text("winner*" if round_.dethroned else "winner", style="bold green")  # said below the last table
    return Text(entry.status, style="" if entry.status == "scored" else "red")


def _chart_table(console: Console, board: Leaderboard) -> Table:
    """Test loss of the champion after each round, and what else its test rows come to now: one row per lineage and
    reference. Where not all rounds fit, the base and the last ones."""
    loss = FIGURES["loss"]
    rounds = max((len(lineage.rounds) for lineage in board.lineages), default=0)

    def with_figures(figures: Sequence[Figure], shown: Sequence[int]) -> Table:
        title = "test loss of the champion, nats per completion token"
        table = Table(title=title, title_justify="left", min_width=min(len(title), console.width))
        table.add_column("")
        for number in shown:
            table.add_column("base" if number == 0 else f"round {number}", justify="right")
        for figure in figures:
            table.add_column(figure.title, justify="right", no_wrap=True)
        for lineage in board.lineages:
            losses = [f"{loss.text(r.test_loss)}{'*' if r.dethroned else ''}" for r in lineage.rounds]
            losses += [""] * (rounds - len(losses))
            now = [figure.text(lineage.rounds[-1].test.get(figure.name)) for figure in figures if lineage.rounds]
            table.add_row(Text(lineage.name), *(losses[number] for number in shown), *now)
        for reference in board.references:
            now = [figure.text(reference.test.get(figure.name)) for figure in figures]
            first = [loss.text(reference.test_loss)] if rounds else []
            table.add_row(Text(reference.name, style="dim"), *first, *[""] * (len(shown) - len(first)), *now)
        table.caption = "* a new champion, proven on rows that chose nothing; test rows only report"
        if len(shown) < rounds:
            table.caption += f"; rounds 1 to {rounds - len(shown)} do not fit here: --json has them"
        return table

    per_byte = FIGURES["bits_per_byte"]  # by which models of different tokenizers compare
    others = [figure for figure in board.figures if figure not in (loss, per_byte)]
    for left_out in range(max(1, rounds - 1)):
        shown = [number for number in range(rounds) if not 0 < number <= left_out]
        table = _that_fits(console, partial(with_figures, shown=shown), [per_byte, *others], kept=1)
        if _fits(console, table):
            break
    return table


def _fits(console: Console, table: Table) -> bool:
    return console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width


def _that_fits(console: Console, build: Callable[[Sequence[C]], Table], columns: Sequence[C], kept: int = 0) -> Table:
    """The table without its last columns but the first `kept`, as far as they do not fit; --json has them all."""
    while len(columns) > kept and not _fits(console, build(columns)):
        columns = columns[:-1]
    return build(columns)


def print_status(console: Console, snapshot: Snapshot, board: Leaderboard) -> None:
    """What each entry of each lineage's newest round is doing, by its records and its own reports."""
    print_line(console, f"{board.tournament}: {board.state}")
    table = entry_table(None, "round")
    for lineage in snapshot.lineages:
        number = _newest_round(snapshot, lineage)
        for entry in _field_of(snapshot, lineage, number):
            there = lineage.rounds[number - 1].entry(entry.recipe.name) if number <= len(lineage.rounds) else None
            event = _now(lineage, number, entry, there, entry.budget or snapshot.config.budget.allowance)
            of_all = f"{number}/{snapshot.config.all_rounds}"
            shown = cells(event)
            if board.state == "stopped" and event.state not in ("forfeit", "rejected", "scored"):
                shown = [Text("stopped" if there else "not begun", style="dim"), *shown[1:-1], Text("")]
            table.add_row(Text(lineage.name), of_all, Text(event.competitor), *shown)
    console.print(table)
    for row in board.lineages:
        if row.rounds and row.rounds[-1].recipes:
            print_line(console, f"{row.name}, recipes over their runs in round {row.rounds[-1].round}:")
            _print_about_recipes(console, row.rounds[-1])
    if words := snapshot.spent.in_words:
        print_line(console, f"cost so far: {words}")


def _field_of(snapshot: Snapshot, lineage: LineageSnapshot, number: int) -> list[RosterEntry]:
    """Who competes in a round: its roster, or the config's competitors where it has not begun."""
    if number <= len(lineage.rounds):
        return lineage.rounds[number - 1].roster.entries
    return [RosterEntry(recipe=recipe) for recipe in snapshot.config.competitors]


def _newest_round(snapshot: Snapshot, lineage: LineageSnapshot) -> int:
    """The round that runs now or would be next; the last one of a lineage that has ended."""
    settled = len(lineage.settled)
    return max(1, settled if has_ended(snapshot.config, lineage.verdicts) else settled + 1)


def _now(
    lineage: LineageSnapshot, number: int, entry: RosterEntry, there: EntrySnapshot | None, budget: Allowance
) -> EntryChanged:
    """An entry's state as an observer would have been told it."""
    progress = read_progress(there.progress_file, budget) if there else Progress(budget)
    scored = there.scorecard if there and there.state == "scored" else None
    return EntryChanged(
        lineage=lineage.name,
        round=number,
        competitor=entry.recipe.name,
        kind=entry.recipe.kind,
        budget=budget,
        state=there.state if there else "queued",
        detail=f"scored: {scored.validation.loss:.4f}" if scored else "",
        tokens=progress.tokens,
        step=progress.step,
        loss=progress.loss,
        seconds=progress.seconds,
    )


def print_outcome(console: Console, run: RunDirectory, board: Leaderboard, command: str) -> None:
    """Where the champions, the report and the MLflow UI are."""
    console.print()
    for lineage in board.lineages:
        if not lineage.rounds:
            continue
        first, last = lineage.rounds[0], lineage.rounds[-1]
        print_line(
            console,
            f"{lineage.name}: test loss {loss_in_words(first.test)} -> {loss_in_words(last.test)}, champion"
            f" {last.champion}: {champion_folder(run, lineage.name, last.champion)}",
        )
    if run.lies_at is not None:
        print_line(console, f"report: {run.lies_at}/{run.report_file.name}")
        print_line(console, f"champions, and all else: {command} export {run.lies_at} DEST, or fetch")
    else:
        print_line(console, f"report: {run.report_file}")
        print_line(console, f"MLflow: {command} ui {run.root}")


def champion_folder(run: RunDirectory, lineage: str, champion: ModelRef) -> str:
    """Where a champion's model lies."""
    if champion.is_base:
        return "the base model: no entry proved better"
    folder = run.round(lineage, champion.round) / "champion"
    return str(folder) if run.lies_at is None else folder.relative_to(run.root).as_posix()
