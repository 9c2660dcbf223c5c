"""What the commands print: leaderboards, status, and where to find the result."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from competitors.contract import read_events
from orchestrator.config import TournamentConfig
from orchestrator.record.run_directory import RunDirectory
from orchestrator.views.leaderboard import EntryRow, Leaderboard, RoundRow, field_of, settled
from orchestrator.views.live import bar


def print_leaderboard(console: Console, board: Leaderboard) -> None:
    """Each lineage's rounds with their entries, then the chart as a table."""
    for lineage in board.lineages:
        for round_ in lineage.rounds[1:]:
            console.print(_round_table(lineage.name, round_))
            for line in round_.field:
                console.print(f"  {line}", markup=False, highlight=False)
            for reason in round_.reasons:
                console.print(f"  {reason}", markup=False, highlight=False)
            console.print()
    console.print(_chart_table(board))


def _round_table(lineage: str, round_: RoundRow) -> Table:
    table = Table(title=f"{lineage}, round {round_.round}", title_justify="left")
    table.add_column("competitor", no_wrap=True)
    table.add_column("result", overflow="fold")
    for column in ("validation", "gain", "at least", "tokens", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in round_.entries:
        crown = " (champion)" if round_.dethroned and entry.competitor == round_.winner else ""
        won = "[bold green]winner[/]" + crown if entry.competitor == round_.winner else _result(entry)
        table.add_row(
            entry.competitor,
            won,
            _number(entry.validation_loss),
            _number(entry.improvement, "+"),
            _number(entry.improvement_low, "+"),
            f"{entry.train_tokens:,}",
            f"{entry.train_seconds:.0f}",
        )
    return table


def _result(entry: EntryRow) -> str:
    return "scored" if entry.status == "scored" else f"[red]{entry.status}: {entry.reason}[/]"


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.4f}"


def _chart_table(board: Leaderboard) -> Table:
    """Test loss of the champion after each round: one row per lineage and reference."""
    rounds = max((len(lineage.rounds) for lineage in board.lineages), default=0)
    table = Table(title="test loss of the champion, nats per completion token", title_justify="left")
    table.add_column("")
    for number in range(rounds):
        table.add_column("base" if number == 0 else f"round {number}", justify="right")
    table.add_column("bits/byte", justify="right")
    for lineage in board.lineages:
        cells = [f"{r.test_loss:.4f}{'*' if r.dethroned else ''}" for r in lineage.rounds]
        last = f"{lineage.rounds[-1].test_bits_per_byte:.4f}" if lineage.rounds else ""
        table.add_row(lineage.name, *cells, *[""] * (rounds - len(cells)), last)
    for reference in board.references:
        cells = [f"{reference.test_loss:.4f}"] + [""] * max(0, rounds - 1)
        table.add_row(f"[dim]{reference.name}[/]", *cells, f"{reference.test_bits_per_byte:.4f}")
    table.caption = "* a new champion, proven on the validation rows; the test rows only report"
    return table


def print_status(console: Console, config: TournamentConfig, run: RunDirectory, board: Leaderboard) -> None:
    """What each entry of each lineage's newest round is doing, from its own reports."""
    console.print(f"{board.tournament}: {board.state}")
    table = Table()
    for column in ("lineage", "round", "competitor", "state"):
        table.add_column(column)
    table.add_column("tokens", justify="right")
    table.add_column("loss", justify="right")
    for lineage in config.lineages:
        number = min(len(settled(config, run, lineage)) + 1, config.all_rounds)
        for entry in field_of(config, run, lineage.name, number):
            name = entry.recipe.name
            state, tokens, loss = _doing(run.entry(lineage.name, number, name), config)
            table.add_row(lineage.name, f"{number}/{config.all_rounds}", name, state, tokens, loss)
    console.print(table)


def _doing(folder: Path, config: TournamentConfig) -> tuple[str, str, str]:
    events = read_events(folder / "progress.jsonl")
    last = {key: event[key] for event in events for key in ("tokens", "loss") if key in event}
    if (folder / "scorecard.json").exists():
        state = "scored"
    elif (folder / "rejected.json").exists():
        state = "rejected"
    elif (folder / "submission.json").exists():
        state = "submitted"
    else:
        state = str(events[-1]["event"]) if events else "queued"
    tokens = last.get("tokens", 0)
    if state == "step" and config.budget.tokens:
        state = f"training {bar(tokens / config.budget.tokens)}"
    return state, f"{tokens:,}", f"{last['loss']:.4f}" if "loss" in last else ""


def print_outcome(console: Console, run: RunDirectory, board: Leaderboard, command: str) -> None:
    """Where the champions, the report and the MLflow UI are."""
    console.print()
    for lineage in board.lineages:
        if not lineage.rounds:
            continue
        first, last = lineage.rounds[0], lineage.rounds[-1]
        console.print(
            f"{lineage.name}: test loss {first.test_loss:.4f} -> {last.test_loss:.4f}, champion {last.champion}: "
            f"{champion_folder(run, lineage.name, last.champion)}",
            soft_wrap=True,
            highlight=False,
        )
    console.print(f"report: {run.report_file}", soft_wrap=True, highlight=False)
    console.print(f"MLflow: {command} ui {run.root}", soft_wrap=True, highlight=False)


def champion_folder(run: RunDirectory, lineage: str, label: str) -> str:
    """Where a champion's model lies."""
    _, _, number = label.partition("@")
    if number:
        return str(run.round(lineage, int(number)) / "champion")
    return "the base model: no entry proved better"
