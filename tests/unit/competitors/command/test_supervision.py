"""What ends a program: its budget, its memory, its processes, its disk."""

import pytest

from competitors import untrusted
from competitors.contract import Allowance, Brief, Submission
from competitors.entry import compete
from tests.unit.competitors.command.making import BOTH, EITHER, needs_sandbox, recipe


def forfeited(submission: Submission, brief: Brief) -> str:
    """Why; nothing of it may be left."""
    assert submission.status == "forfeit"
    assert not brief.output_dir.exists()
    assert not brief.continuation_dir.exists()
    return submission.reason


FORFEITS = {
    "forks": ({"processes": 40}, "started more than 40 processes"),
    "threads": ({"processes": 4}, "started more than 256 threads"),
    "fills_the_disk": ({"disk_gb": 0.02}, "to the disk, more than its 0.02 GB"),
    "one_large_file": ({"disk_gb": 0.02}, "File too large"),
    "deep_folders": ({}, "made folders more than 64 deep"),
    "many_files": ({}, "made more than 1,000 files"),
    "links_out": ({}, "left a symbolic link: model.safetensors; only plain files are accepted"),
    "leaves_a_pipe": ({}, "left a pipe, socket or device: config.json"),
    "names_files_elsewhere": ({}, "names something other than a file beside it: ../../other/model.safetensors"),
    "takes_memory": ({"resources": {"memory_gb": 0.3}}, "ran out of memory: it used"),
    "writes_nothing": ({}, "ended by itself, and left no valid model"),
    "prints": ({}, "exited with code 3: and this is the end"),
    "fails": ({}, "exited with code 1: RuntimeError: a bug in my program"),
    "never_says_that_it_began": ({"startup_seconds": 0.2, "grace_seconds": 0}, "was ended 0 seconds after its budget"),
    "ignores_sigterm": ({"grace_seconds": 0.1}, "seconds after its budget of 0.3 seconds was used up, and left no"),
}


FORFEITS_BY_PROCESS = ("forks", "takes_memory", "ignores_sigterm") if EITHER == "bubblewrap" else ()


@pytest.mark.parametrize(
    ("program", "how"), [*((name, EITHER) for name in FORFEITS), *((n, "none") for n in FORFEITS_BY_PROCESS)]
)
def test_a_hostile_program_forfeits_with_the_reason(
    program: str, how: str, brief: Brief, monkeypatch: pytest.MonkeyPatch
):
    settings, reason = FORFEITS[program]
    if program == "many_files":
        monkeypatch.setattr(untrusted, "MAX_FILES", 1000)
    if "budget" in reason:
        brief = brief.model_copy(update={"budget": Allowance(seconds=0.3)})
    submission = compete(brief, recipe(program, sandbox=how, **settings))
    assert reason in forfeited(submission, brief)
    assert brief.log_file.stat().st_size < 3 * 2**20


@pytest.mark.parametrize("how", BOTH)
def test_whoever_is_out_of_time_hands_in_its_newest_checkpoint(brief: Brief, how: str):
    brief = brief.model_copy(update={"budget": Allowance(seconds=0.3)})
    submission = compete(brief, recipe("ignores_sigterm_with_a_checkpoint", sandbox=how, grace_seconds=0.1))
    assert submission.status == "delivered"
    assert submission.reason == "was ended 0.1 seconds after its budget of 0.3 seconds was used up"
    assert sorted(p.name for p in brief.output_dir.iterdir()) == ["config.json", "model.safetensors"]


@needs_sandbox
def test_a_program_that_reports_its_budget_spent_is_asked_to_end_and_may_save(brief: Brief):
    submission = compete(brief, recipe("saves_when_asked_to_end", grace_seconds=0.1))
    assert submission.status == "delivered"
    assert submission.reason == "was ended 0.1 seconds after its budget of 1000 tokens was used up"


def test_memory_that_processes_share_is_counted_once(brief: Brief):
    """Ten processes that share 60 MB are within 250 MB, though their resident sizes add up to 600."""
    program = (
        "import os, time, shutil; data = bytearray(60 * 2**20)\n"
        "for _ in range(9):\n    if os.fork() == 0: time.sleep(1.5); os._exit(0)\n"
        "time.sleep(1); out = os.environ['BRIEF_OUTPUT_DIR']\n"
        "shutil.copytree(os.environ['BRIEF_SEED_MODEL'], out, dirs_exist_ok=True)"
    )
    settings = {"sandbox": "none", "resources": {"memory_gb": 0.25}}
    assert compete(brief, recipe(["python", "-c", program], **settings)).status == "delivered"
