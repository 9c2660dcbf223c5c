"""Live progress: a line at each change of state and now and then, a table that is what was told last."""

import io
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from competitors.contract import Allowance
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.record.events import (
    ChampionCrowned,
    EntryChanged,
    EntryState,
    Noted,
    RoundBegan,
    TournamentEnded,
    VerdictReached,
)
from orchestrator.views.live import LINE_SECONDS, Lines, LiveTable, make_live
from tests.fabricate import fabricate, read

QUEUED = EntryChanged("llama", 1, "full", "sft", Allowance(tokens=1000), "queued")
TRAINING = replace(QUEUED, state="training")
EVIL = "[/bold] [red]:boom:"


def console(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=160, force_terminal=terminal, color_system=None)


def said(lines: Lines) -> list[str]:
    """The lines printed since, without their times."""
    file = lines.console.file
    assert isinstance(file, io.StringIO)
    text = file.getvalue()
    file.seek(0)
    file.truncate()
    return [line.partition(" ")[2] for line in text.splitlines()]


def drawn(table: LiveTable) -> str:
    other = console()
    other.print(table.table())
    assert isinstance(other.file, io.StringIO)
    return other.file.getvalue()


def test_a_line_is_said_when_training_begins_and_when_something_came_of_it() -> None:
    lines = Lines(console(), 3)
    lines.hear([QUEUED, TRAINING, replace(TRAINING, tokens=10), replace(TRAINING, tokens=20)])
    assert said(lines) == ["llama round 1 full: training"]
    ends: list[tuple[EntryState, str]] = [("delivered", ""), ("inspected", ""), ("scored", "validation loss 0.9")]
    lines.hear([replace(TRAINING, state=state, detail=detail) for state, detail in ends])
    assert said(lines) == ["llama round 1 full: scored: validation loss 0.9"]
    lines.hear([replace(TRAINING, state="rejected", detail="lacks lm_head.weight")])
    assert said(lines) == ["llama round 1 full: rejected: lacks lm_head.weight"]
    lines.hear([replace(TRAINING, round=2)])
    assert said(lines) == ["llama round 2 full: training"]


def test_an_entry_that_trains_is_mentioned_again_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, now = Lines(console(), 3), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines.hear([TRAINING])
    said(lines)
    step = replace(TRAINING, tokens=250, step=5, loss=2.5, seconds=5.0)
    lines.hear([step])
    assert said(lines) == []
    now[0] += LINE_SECONDS + 1
    lines.hear([step])
    expected = "25% of the budget, 250 tokens, train loss 2.500, 50 tokens/s, 15 s left"
    assert said(lines) == [f"llama round 1 full: {expected}"]
    lines.hear([step])
    assert said(lines) == []


def test_everything_else_that_happens_is_a_line(tmp_path: Path) -> None:
    verdict = read(fabricate(tmp_path / "run", rounds=1)[1]).lineages[0].verdicts[0]
    lines = Lines(console(), 3)
    crowned = ChampionCrowned("llama", ModelRef("full", 1), {"loss": 0.5, "bits_per_byte": 0.25}, Path("/runs/x"))
    lines.hear([Noted("starting Ray"), VerdictReached(verdict), crowned, TournamentEnded("finished")])
    reasons = [f"llama round 1: {reason}" for reason in verdict.reasons]
    crowned = "llama: full of round 1 is champion, test loss 0.5000 (0.2500 bits/byte): /runs/x"
    assert said(lines) == ["starting Ray", *reasons, crowned]


def test_a_round_shows_its_field_alone(tmp_path: Path) -> None:
    config, _ = fabricate(tmp_path / "run", settled={})
    table = LiveTable(console(), 3)
    table.hear([TRAINING, replace(TRAINING, competitor="own"), replace(TRAINING, lineage="sn9", competitor="own")])
    field = [RosterEntry(recipe=recipe) for recipe in config.competitors if recipe.name != "own"]
    table.hear([RoundBegan(Roster(lineage="llama", round=2, entries=field, reasons=["own was withdrawn."]), rounds=7)])
    assert set(table.entries) == {("llama", "full"), ("sn9", "own")}
    assert said(table)[-1] == "llama round 2: own was withdrawn."
    assert "round 1 of 7" in drawn(table)


def test_the_table_shows_how_far_each_entry_is() -> None:
    table = LiveTable(console(), 3)
    table.hear([replace(TRAINING, tokens=500, seconds=10.0, loss=1.25)])
    text = drawn(table)
    assert all(part in text for part in ("training ████░░░░", "500 / 1,000", "1.250", "50", "10 s"))
    table.hear([replace(TRAINING, state="inspected", fraction=0.2)])
    assert "scoring  ██░░░░░░" in drawn(table)
    table.hear([replace(TRAINING, state="scored", detail="validation loss 0.9")])
    assert "validation loss 0.9" in drawn(table)


def test_a_competitors_words_are_no_markup() -> None:
    table = LiveTable(console(terminal=True), 3)
    table.hear([replace(TRAINING, state="scored", detail=EVIL, competitor=EVIL), Noted(EVIL)])
    assert EVIL in drawn(table)
    lines = Lines(console(), 3)
    lines.hear([replace(TRAINING, state="forfeit", detail=EVIL), Noted(EVIL)])
    assert said(lines) == [f"llama round 1 full: forfeit: {EVIL}", EVIL]


def test_a_terminal_gets_a_table_and_a_log_gets_lines() -> None:
    assert isinstance(make_live(console(terminal=True), 3), LiveTable)
    log = make_live(console(), 3)
    assert type(log) is Lines
    assert log.pause_seconds == 0
    with log.shown():
        log.hear([Noted("x")])
    terminal = make_live(console(terminal=True), 3)
    with terminal.shown():
        terminal.hear([TRAINING, Noted(EVIL)])
    assert any(EVIL in line for line in said(terminal))
