"""A program from its brief to its submission, and whose failure it is when there is none."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterTrouble
from competitors.command import run
from competitors.contract import Brief
from competitors.entry import compete
from competitors.events import read_events
from tests.unit.competitors.command.making import BOTH, EITHER, recipe


@pytest.mark.parametrize("how", BOTH)
def test_a_program_hands_in_what_it_wrote_and_its_reports_are_passed_on(brief: Brief, how: str):
    submission = compete(brief, recipe("good", sandbox=how))
    assert (submission.status, submission.reason, submission.form) == ("delivered", "ended by itself", "full")
    assert (submission.train_tokens, submission.train_steps) == (30, 3)
    assert (brief.output_dir / "model.safetensors").read_bytes() == b"weights"
    events = read_events(brief.progress_file)
    assert [e.event for e in events] == ["loading", "started", "step", "ended"]
    assert events[2].loss == 1.5
    assert events[2].memory_megabytes is not None
    assert not submission.has_continuation


def test_what_a_program_reports_is_checked_and_bounded(brief: Brief):
    assert compete(brief, recipe("reports_nonsense", sandbox="none")).status == "delivered"
    events = read_events(brief.progress_file)
    assert len(events) < 120
    assert {e.event for e in events} == {"loading", "started", "note", "step", "ended"}
    notes = [e.text for e in events if e.event == "note"]
    # What comes first is left open: how much of the reports is there when they are first read is not ours to say.
    complaints = [note for note in notes if str(note).startswith("report: ")]
    theirs = [note for note in notes if note not in complaints]
    assert complaints == [
        "report: tokens is 'many', no count: left out",
        "report: step is -4, no count: left out",
        "report: loss is nan, no number that it can be: left out",
        "report: learning_rate is inf, no number that it can be: left out",
        "report: a line is no JSON object: left out",
        "report: event a list is not known: left out",
    ]
    assert len(theirs) == 100
    assert str(theirs[0]).startswith("[2Jgone x")
    assert max(len(str(note)) for note in notes) <= 300
    for step in (e for e in events if e.event == "step"):
        assert step.tokens in (5, 30)
        assert step.seconds is not None
        assert step.seconds < 100
        assert step.learning_rate is None


def test_the_beginning_and_the_end_of_a_long_log_are_kept(brief: Brief):
    compete(brief, recipe("prints", sandbox="none"))
    log = brief.log_file.read_bytes()
    assert log.startswith(b"x" * 2**20 + b"\n[... ")
    assert b"bytes left out ...]" in log
    assert log.endswith(b"and this is the end\n")


def test_a_continuation_is_handed_on_only_where_the_config_trusts_it(brief: Brief):
    script = 'cp -rL "$BRIEF_SEED_MODEL"/. "$BRIEF_OUTPUT_DIR"; echo {} > "$BRIEF_CONTINUATION_DIR/continuation.json"'
    assert compete(brief, recipe(["sh", "-c", script], sandbox="none", continuation=True)).has_continuation
    assert not compete(brief, recipe("good", sandbox="none")).has_continuation
    assert not brief.continuation_dir.exists()


def test_on_a_full_disk_a_failed_program_is_the_machines_trouble(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage

    def full(path: Path) -> Any:
        return usage(path)._replace(free=2**20 - 1) if Path(path) == brief.output_dir else usage(path)

    bounds = run._bounds

    def then_full(*arguments: Any) -> Any:
        made = bounds(*arguments)
        monkeypatch.setattr(shutil, "disk_usage", full)
        return made

    monkeypatch.setattr(run, "_bounds", then_full)
    with pytest.raises(ClusterTrouble, match=f"c: the disk of {brief.output_dir} is full"):
        compete(brief, recipe("fails", sandbox="none"))


def test_a_failed_program_whose_data_are_gone_is_the_machines_trouble(brief: Brief):
    script = ["sh", "-c", f"rm {brief.train_data}; exit 3"]  # as if somebody else did
    with pytest.raises(ClusterTrouble, match=f"{brief.train_data} is not there"):
        compete(brief, recipe(script, sandbox="none"))


def test_the_seeds_own_files_keep_their_permissions_where_a_program_links_them(brief: Brief):
    blob = brief.seed_model.parent / "blob"
    blob.chmod(0o600)
    script = (
        f'cp "$BRIEF_SEED_MODEL"/config.json "$BRIEF_OUTPUT_DIR"; chmod 600 "$BRIEF_OUTPUT_DIR"/config.json;'
        f' ln {blob} "$BRIEF_OUTPUT_DIR"/model.safetensors'
    )
    assert compete(brief, recipe(["sh", "-c", script], sandbox="none")).status == "delivered"
    assert blob.stat().st_mode & 0o777 == 0o600
    for file in brief.output_dir.iterdir():
        assert file.stat().st_mode & 0o777 == 0o644
        assert not file.samefile(blob)


def test_another_try_finds_what_the_first_has_saved_and_which_it_is(brief: Brief):
    (brief.output_dir / "checkpoint-1").mkdir(parents=True)
    (brief.output_dir / "checkpoint-1" / "state").write_text("so far")
    script = 'cat "$BRIEF_OUTPUT_DIR"/checkpoint-1/state; echo " in try $BRIEF_ATTEMPT"; exit 1'
    submission = compete(brief.model_copy(update={"attempt": 2}), recipe(["sh", "-c", script], sandbox=EITHER))
    assert submission.reason == "exited with code 1: so far in try 2"
