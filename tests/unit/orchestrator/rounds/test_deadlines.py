"""Deadlines kept from outside, and reading reports as they come."""

from pathlib import Path

from cluster.resources import Resources
from competitors.contract import Allowance, Brief
from competitors.events import reporter
from orchestrator.config.sections import Limits
from orchestrator.record.events import EntryChanged, Noted
from orchestrator.rounds.deadlines import Watch, overdue

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


def watched(folder: Path) -> tuple[Watch, list[object]]:
    folder.mkdir(parents=True, exist_ok=True)
    brief = Brief(
        tournament="t", lineage="l", round=2, competitor="a", seed_model=folder, seed_sha256="", seed_continuation=None,
        train_data=folder, max_tokens=8, budget=Allowance(steps=9), progress=(0, 1), output_dir=folder / "submission",
        random_seed=0, resources=Resources(),
    )  # fmt: skip
    heard: list[object] = []
    now = EntryChanged("l", 2, "a", "python", brief.budget, "training")
    return Watch(brief, LIMITS, now, heard.append), heard


def test_reports_become_what_the_entry_is_doing_now(tmp_path: Path):
    watch, heard = watched(tmp_path)
    report = reporter(watch.brief.progress_file)
    report({"event": "started"})
    report({"event": "step", "tokens": 12, "step": 1, "loss": 2.5, "seconds": 0.5})
    report({"event": "note", "text": "a\x1b[31mb"})
    watch.read()
    assert (watch.now.tokens, watch.now.step, watch.now.loss, watch.now.seconds) == (12, 1, 2.5, 0.5)
    assert heard == [Noted("l round 2 a: a [31mb"), watch.now]
    assert watch.started is not None
    report({"event": "checkpoint", "fraction": 0.5, "folder": "checkpoint-1"})
    watch.read()
    assert [(event.fraction, event.folder) for event in watch.take_checkpoints()] == [(0.5, "checkpoint-1")]
    assert watch.take_checkpoints() == []


def test_wrong_reports_are_left_out_and_said_in_the_entrys_log(tmp_path: Path):
    watch, heard = watched(tmp_path)
    report = reporter(watch.brief.progress_file)
    report({"event": "step", "tokens": None, "loss": "low"})
    report({"event": "step", "tokens": "12", "step": 3})
    report({"event": "dance"})
    watch.read()
    assert (watch.now.tokens, watch.now.step, watch.now.loss) == (0, 3, None)
    said = watch.brief.log_file.read_text()
    assert "tokens" in said
    assert "dance" in said
    assert any(isinstance(event, Noted) and "log.txt" in event.text for event in heard)


def test_a_log_that_is_none_any_more_ends_nothing(tmp_path: Path):
    watch, heard = watched(tmp_path)
    watch.brief.log_file.unlink(missing_ok=True)
    watch.brief.log_file.mkdir()
    reporter(watch.brief.progress_file)({"event": "dance"})
    watch.read()
    assert any(isinstance(event, Noted) and "dance" in event.text for event in heard)


def test_an_entry_that_waits_for_its_place_is_not_overdue(tmp_path: Path):
    watch, _ = watched(tmp_path)
    assert watch.overdue() is None
    watch.is_placed()
    assert watch.overdue() is None
