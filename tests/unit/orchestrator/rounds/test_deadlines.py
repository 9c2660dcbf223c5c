"""Deadlines kept from outside, and reading reports as they come."""

from pathlib import Path

from competitors.contract import reporter
from orchestrator.config import Limits
from orchestrator.rounds.deadlines import Tail, overdue

LIMITS = Limits(startup_minutes=1, grace_minutes=0.5, silence_minutes=2)


def test_loading_has_its_own_limit():
    assert overdue(59, 0, None, 0, 10, LIMITS) is None
    assert "not begun training" in (overdue(61, 0, None, 60, 10, LIMITS) or "")


def test_the_deadline_counts_from_the_first_step():
    assert overdue(139, 0, 100, 138, 10, LIMITS) is None
    assert "past its 10-second budget" in (overdue(141, 0, 100, 140, 10, LIMITS) or "")


def test_silence_ends_an_entry_that_has_no_minutes():
    assert overdue(1000, 0, 1, 900, None, LIMITS) is None
    assert "not reported for 2 minutes" in (overdue(1021, 0, 1, 900, None, LIMITS) or "")


def test_tail_gives_each_whole_line_once_and_passes_over_junk(tmp_path: Path):
    path = tmp_path / "progress.jsonl"
    tail = Tail(path)
    assert tail.events() == []
    reporter(path)({"event": "loading"})
    with path.open("a") as stream:
        stream.write('not json\n[1]\n{"event": "st')
    assert [e["event"] for e in tail.events()] == ["loading"]
    with path.open("a") as stream:
        stream.write('ep"}\n')
    assert [e["event"] for e in tail.events()] == ["step"]
    assert tail.events() == []
    assert Tail(path, from_end=True).events() == []
