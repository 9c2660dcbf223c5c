"""leaderboard.json and report.html follow the record while a tournament runs."""

from pathlib import Path

import pytest

from cluster.errors import BrokenRecord
from orchestrator.record.events import Noted, Observer, TournamentEnded
from orchestrator.record.spent import Spent
from orchestrator.views import pages
from orchestrator.views.leaderboard import Leaderboard
from orchestrator.views.pages import Pages, draw
from tests.fabricate import fabricate, read


def test_both_are_drawn_and_say_how_it_ended(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", rounds=1)
    observer: Observer = Pages(run)
    observer.hear([Noted("x")])
    assert Leaderboard.read(run.leaderboard_file).state == "running"
    observer.hear([Noted("x"), TournamentEnded("stopped")])
    assert Leaderboard.read(run.leaderboard_file).state == "stopped"
    assert '<span class="chip stopped">' in run.report_file.read_text()


def test_the_report_is_drawn_again_only_for_news(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", settled={"llama": 1})
    draw(read(run), "running")
    first = run.report_file.stat().st_ino
    draw(read(run), "running")
    assert run.report_file.stat().st_ino == first
    run.report_file.unlink()
    draw(read(run), "running")
    assert run.report_file.is_file()
    fabricate(run.root, settled={"llama": 2})
    second = run.report_file.stat().st_ino
    draw(read(run), "running")
    assert run.report_file.stat().st_ino != second


def test_costs_and_curves_are_drawn_again_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = fabricate(tmp_path / "run", settled={"llama": 1})

    def spend(seconds: float) -> None:
        run.write(Spent(seconds={"llama": {"CPU": seconds}}, prices={"CPU": 1.0}), run.spent_file)
        draw(read(run), "running")

    spend(3600.0)
    first = run.report_file.stat().st_ino
    spend(7200.0)
    assert run.report_file.stat().st_ino == first
    assert Leaderboard.read(run.leaderboard_file).cost == 2.0
    monkeypatch.setattr(pages, "REDRAW_SECONDS", 0.0)
    draw(read(run), "running")
    assert run.report_file.stat().st_ino != first
    last = run.report_file.stat().st_ino
    draw(read(run), "stopped")
    second = run.report_file.stat().st_ino
    assert second != last
    draw(read(run), "stopped")
    assert run.report_file.stat().st_ino == second, "nothing moves any more"


def test_a_report_that_could_not_be_written_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = fabricate(tmp_path / "run", settled={"llama": 1})
    draw(read(run), "running")
    fabricate(run.root, settled={"llama": 2})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pages, "write_report", full)
        with pytest.raises(OSError):
            draw(read(run), "running")
    before = run.report_file.stat().st_ino
    draw(read(run), "running")
    assert run.report_file.stat().st_ino != before


def test_a_torn_record_is_named(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", rounds=1)
    file = run.round("llama", 1) / "verdict.json"
    file.write_text("{")
    with pytest.raises(BrokenRecord, match=r"verdict\.json"):
        Pages(run).hear([])
