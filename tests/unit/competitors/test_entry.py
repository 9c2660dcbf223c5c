"""Whose failure it is: a competitor's is a forfeit in words, the machine's is to be tried again."""

import errno
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterTrouble, Forfeit
from competitors import running
from competitors.contract import Brief
from competitors.entry import compete, forfeit, settle
from competitors.events import Report, read_events, reporter
from competitors.kinds import RUN
from competitors.python import PythonRecipe
from competitors.unchanged import UnchangedRecipe

UNCHANGED = UnchangedRecipe(name="a", kind="unchanged")


def own(function: str) -> PythonRecipe:
    return PythonRecipe(name="a", kind="python", entrypoint=f"{__name__}:{function}")


def opens_a_file_of_its_own(brief: Brief, report: Report) -> None:
    Path("/nowhere/my-own.json").read_text()


def talks(brief: Brief, report: Report) -> None:
    raise ValueError("[/bold]\x1b[31mred " + "x" * 11_000_000 + "\nsecond line")


def hands_in_the_seed(brief: Brief, report: Report) -> None:
    report({"event": "step", "step": brief.attempt, "tokens": 10, "seconds": 1.5})
    report({"event": "step", "tokens": None, "step": "many"})
    shutil.copytree(brief.seed_model, brief.output_dir, dirs_exist_ok=True)


def raising(monkeypatch: pytest.MonkeyPatch, error: Callable[[Brief], BaseException]) -> None:
    def run(brief: Brief, recipe: Any, report: Report) -> None:
        raise error(brief)

    monkeypatch.setitem(RUN, "unchanged", run)


class SafetensorError(Exception):
    """As safetensors passes the system's words on."""


FULL = "Error while serializing: I/O error: No space left on device (os error 28)"


def wrapped(brief: Brief) -> BaseException:
    error = RuntimeError("could not save")
    error.__cause__ = OSError(errno.EIO, os.strerror(errno.EIO))
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            lambda brief: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/x"),
            "a: No space left on device: /run/x",
        ),
        (lambda brief: SafetensorError(FULL), f"a: {FULL}"),
        (wrapped, "a: Input/output error"),
        (lambda brief: OSError(errno.ESTALE, os.strerror(errno.ESTALE)), "a: Stale file handle"),
    ],
)
def test_a_disk_that_fails_is_no_competitors_failure(
    brief: Brief, monkeypatch: pytest.MonkeyPatch, error: Callable[[Brief], BaseException], words: str
):
    raising(monkeypatch, error)
    with pytest.raises(ClusterTrouble) as raised:
        compete(brief, UNCHANGED)
    assert str(raised.value) == words


@pytest.mark.parametrize("gone", ["seed_model", "train_data"])
def test_a_seed_or_data_that_are_not_there_are_no_competitors_failure(brief: Brief, tmp_path: Path, gone: str):
    missing = brief.model_copy(update={gone: tmp_path / "absent"})
    with pytest.raises(ClusterTrouble, match=r"^a: /.*absent.* is not there$"):
        compete(missing, own("opens_a_file_of_its_own"))


def test_what_happens_to_the_log_or_the_folder_is_the_machines_too(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    def full(*arguments: Any, **settings: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("competitors.entry.captured_output", full)
    with pytest.raises(ClusterTrouble, match="No space left on device"):
        compete(brief, UNCHANGED)


def test_a_missing_file_of_ones_own_is_a_forfeit(brief: Brief):
    submission = compete(brief, own("opens_a_file_of_its_own"))
    assert submission.status == "forfeit"
    assert submission.reason.startswith("raised FileNotFoundError: ")
    assert "/nowhere/my-own.json" in submission.reason
    assert "Traceback" in brief.log_file.read_text()


def test_what_a_forfeit_says_of_a_disk_is_still_a_forfeit(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    """A program's own last line may say anything."""
    raising(monkeypatch, lambda brief: Forfeit("exited with code 1: No space left on device"))
    assert compete(brief, UNCHANGED).status == "forfeit"


def test_trouble_that_a_kind_names_itself_is_passed_on(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    raising(monkeypatch, lambda brief: ClusterTrouble("not placed"))
    with pytest.raises(ClusterTrouble, match=r"^not placed$"):
        compete(brief, UNCHANGED)


def test_a_reason_is_one_short_plain_line(brief: Brief):
    reason = compete(brief, own("talks")).reason
    assert reason.startswith("raised ValueError: (/bold) (31mred xxx")
    assert len(reason) == 300
    assert reason.isprintable()
    assert forfeit(brief, "python", "two\nlines \x1b[0m", 0.0).reason == "two lines (0m"
    assert settle(brief, "python", "ended\x07 early", 0.0).reason == "ended early, and left no valid model"


def test_a_submission_says_what_it_cost_by_what_was_well_reported(brief: Brief):
    submission = compete(brief, own("hands_in_the_seed"))
    assert (submission.status, submission.form, submission.reason) == ("delivered", "full", "used its budget")
    assert (submission.train_tokens, submission.train_steps, submission.train_seconds) == (10, 1, 1.5)
    assert submission.device_seconds == pytest.approx(submission.wall_seconds)
    assert [event.event for event in read_events(brief.progress_file)] == ["loading", "started", "step", "step"]


def test_what_cannot_be_looked_at_when_it_is_settled_is_the_machines_or_its_own(
    brief: Brief, monkeypatch: pytest.MonkeyPatch
):
    compete(brief, UNCHANGED)

    def digest(folder: Path) -> str:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("competitors.entry.model_sha256", digest)
    code = errno.EIO
    with pytest.raises(ClusterTrouble, match="Input/output error"):
        settle(brief, "unchanged", "was silent", 0.0)
    code = errno.EACCES
    assert (
        settle(brief, "unchanged", "was silent", 0.0).reason == "raised PermissionError: (Errno 13) Permission denied"
    )


def test_another_try_of_the_users_own_code_finds_what_the_first_has_saved(brief: Brief):
    (brief.output_dir / "checkpoint-1").mkdir()
    brief.stop_file.write_text("stopped")
    brief.scratch_dir.mkdir()
    submission = compete(brief.model_copy(update={"attempt": 2}), own("keeps_its_checkpoint"))
    assert submission.status == "delivered"
    assert not brief.stop_file.exists()


def keeps_its_checkpoint(brief: Brief, report: Report) -> None:
    assert (brief.output_dir / "checkpoint-1").is_dir()
    assert not brief.stop_file.exists()
    assert not brief.scratch_dir.exists()
    hands_in_the_seed(brief, report)


@pytest.mark.parametrize("left", ["submission/half.json", "submission/checkpoint-9/config.json", "scratch/trials/best"])
def test_another_try_of_what_starts_over_finds_nothing_of_the_first(
    brief: Brief, monkeypatch: pytest.MonkeyPatch, left: str
):
    path = brief.output_dir.parent / left
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    found = list[bool]()
    monkeypatch.setitem(RUN, "unchanged", lambda brief, recipe, report: found.append(path.exists()))
    compete(brief.model_copy(update={"attempt": 2}), UNCHANGED)
    assert found == [False]


def test_another_try_waits_for_the_processes_of_the_first(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(running, "ENDING_SECONDS", 0.2)
    running.mark(brief.running_file)
    again = brief.model_copy(update={"attempt": 2})
    with pytest.raises(ClusterTrouble, match="processes of an earlier try have not ended"):
        compete(again, UNCHANGED)
    # Of a machine that is gone nothing writes any more, and nobody removes the file.
    brief.running_file.write_text(f"{socket.gethostname()} pid:[1]")
    assert compete(again, UNCHANGED).status == "delivered"
    assert not brief.running_file.exists()


def test_reports_go_on_after_those_of_the_first_try(brief: Brief):
    reporter(brief.progress_file)({"event": "step", "step": 7, "tokens": 70})
    compete(brief.model_copy(update={"attempt": 2}), own("hands_in_the_seed"))
    assert [event.step for event in read_events(brief.progress_file)] == [7, None, None, 2, None]


def test_tokens_after_what_another_try_went_on_from_are_lost_and_those_before_are_not(brief: Brief):
    report = reporter(brief.progress_file)
    for event, tokens in (("started", 0), ("step", 70), ("started", 40), ("step", 50), ("started", 50), ("ended", 90)):
        report({"event": event, "tokens": tokens})
    submission = forfeit(brief, "sft", "", 0.0)
    assert (submission.train_tokens, submission.lost_tokens) == (90, 30)
