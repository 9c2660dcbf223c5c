"""How things are said to a person."""

import io
from pathlib import Path

from rich.console import Console

from cluster.text import discreet
from orchestrator.views.words import bar, duration, is_missing, print_line, signed


def test_durations():
    assert [duration(seconds) for seconds in (0, 59.4, 59.6, 3599, 3600, 90061)] == [
        "0 s", "59 s", "1 min 00 s", "59 min 59 s", "1 h 00 min", "25 h 01 min",
    ]  # fmt: skip


def test_bars_stay_within_their_width():
    assert [bar(share, 4) for share in (-1, 0, 0.5, 1, 7)] == ["░░░░", "░░░░", "██░░", "████", "████"]


def test_gains_have_a_sign():
    assert [signed(value) for value in (0.5, -0.5)] == ["+0.5000", "−0.5000"]


def test_a_password_is_not_passed_on():
    assert discreet("uri: postgresql://bob:pa55@host/db") == "uri: postgresql://…@host/db"
    assert discreet("hf://org/name@train") == "hf://org/name@train"


def test_a_line_is_no_markup():
    stream = io.StringIO()
    print_line(Console(file=stream, width=20), "[bold]x[/bold] :smile: " + "y" * 40)
    assert stream.getvalue() == "[bold]x[/bold] :smile: " + "y" * 40 + "\n"


def test_what_is_missing_is_named():
    assert str(is_missing(Path("/a/b.json"))).startswith("/a/b.json: is missing")
