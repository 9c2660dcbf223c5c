"""The user's own program: what it gets, what it cannot see, what ends it, and what counts afterwards."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.errors import UserError
from cluster.resources import Resources
from competitors import untrusted
from competitors.command import sandbox, supervision
from competitors.command.recipe import CommandRecipe
from competitors.contract import Allowance, Brief, Submission
from competitors.entry import compete, settle
from competitors.events import read_events

PROGRAMS = Path(__file__).parents[3] / "programs"
needs_sandbox = pytest.mark.skipif(sandbox.trouble() is not None, reason=f"no sandbox here: {sandbox.trouble()}")
BOTH = [pytest.param("bubblewrap", marks=needs_sandbox), "none"]
EITHER = "none" if sandbox.trouble() else "bubblewrap"


def recipe(program: Any, **settings: Any) -> CommandRecipe:
    words = ["python", "hostile.py", program] if isinstance(program, str) else program
    limits = {"memory_gb": 2.0} | settings.pop("resources", {})
    given = {"name": "c", "kind": "command", "run": words, "folder": str(PROGRAMS), "resources": limits}
    return CommandRecipe(**given | settings).located(Path("/"))


@pytest.fixture
def brief(tmp_path: Path) -> Brief:
    """A run directory with other people's work in it, and a seed that looks like a model."""
    run = tmp_path / "runs" / "mine"
    for name in (
        "runs/mine/data/train.parquet",
        "runs/mine/data/held_out/test.parquet",
        "runs/mine/lineages/l/round-001/other/submission/model.safetensors",
        "runs/earlier/data/held_out/test.parquet",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("data")
    seed = tmp_path / "cache" / "snapshot"
    seed.mkdir(parents=True)
    (seed / "config.json").write_text("{}")
    (tmp_path / "cache" / "blob").write_bytes(b"weights")
    (seed / "model.safetensors").symlink_to("../blob")  # as in a Hugging Face cache
    return Brief(
        tournament="t",
        lineage="l",
        round=1,
        competitor="c",
        seed_model=seed,
        seed_sha256="0" * 64,
        seed_continuation=None,
        train_data=run / "data" / "train.parquet",
        max_tokens=32,
        budget=Allowance(tokens=1000, steps=12),
        progress=(0.0, 0.5),
        output_dir=run / "lineages/l/round-001/c/submission",
        random_seed=7,
        resources=Resources(cpus=2, gpus=0),
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STOP_SECONDS", 0.5)
    monkeypatch.setattr(supervision, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(supervision, "DISK_SECONDS", 0.05)


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """After every entry its processes are gone and so are its scratch files."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    before = psutil.Process().children(recursive=True)
    yield
    assert set(psutil.Process().children(recursive=True)) <= set(before)
    assert list((tmp_path / "scratch").iterdir()) == []


def forfeited(submission: Submission, brief: Brief) -> str:
    """Why; nothing of it may be left."""
    assert submission.status == "forfeit"
    assert not brief.output_dir.exists()
    assert not brief.continuation_dir.exists()
    return submission.reason


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


@needs_sandbox
def test_what_the_sandbox_shows(brief: Brief, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Only what the brief names; not the rest of the run directory, even where the program's folder contains it."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    shutil.copy(PROGRAMS / "hostile.py", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = {"environment": {"PORT": server.getsockname()[1], "RATE": 0.5}, "folder": str(tmp_path)}
        assert compete(brief, recipe("looks_around", **settings)).status == "delivered"
        seen = json.loads(brief.log_file.read_text().splitlines()[0])
    assert "home" not in seen["root"]
    assert "root" not in seen["root"] or str(sys.base_prefix).startswith("/root")
    assert seen["run"] == ["data/train.parquet"]
    assert len(seen["processes"]) == 2
    assert seen["working_folder"] == str(tmp_path)
    assert set(seen["beside"]) == {"cache", "hostile.py", "runs", "scratch"}
    assert not seen["connects"]
    assert not seen["namespaces"]
    assert seen["capabilities"].split() == ["CapEff:", "0000000000000000"]
    assert seen["shared_memory"] == 2**30
    assert seen["writes"] == [str(brief.output_dir), "/tmp"]
    told = seen["environment"]
    assert "hunter2" not in told.values()
    assert told["BRIEF_SEED_MODEL"] == str(brief.seed_model)
    assert (told["BRIEF_BUDGET_TOKENS"], told["BRIEF_BUDGET_SECONDS"]) == ("1000", "")
    assert (told["BRIEF_PROGRESS"], told["BRIEF_ROUND"], told["RATE"]) == ("0.0,0.5", "1", "0.5")
    assert (told["OMP_NUM_THREADS"], told["CUDA_VISIBLE_DEVICES"]) == ("2", "")


@needs_sandbox
def test_runs_of_other_tournaments_beside_this_one_are_hidden_too(brief: Brief, tmp_path: Path):
    compete(brief, recipe(["find", str(tmp_path / "runs"), "-name", "*.parquet"], folder=str(tmp_path)))
    assert [line for line in brief.log_file.read_text().splitlines() if line.startswith("/")] == [str(brief.train_data)]


@needs_sandbox
def test_the_network_is_there_when_the_config_says_so(brief: Brief):
    with socket.create_server(("127.0.0.1", 0)) as server:
        compete(brief, recipe("looks_around", environment={"PORT": server.getsockname()[1]}, network=True))
    assert json.loads(brief.log_file.read_text().splitlines()[0])["connects"]


@needs_sandbox
def test_brief_json_in_the_sandbox_names_the_paths_in_the_sandbox(brief: Brief):
    compete(brief, recipe(["sh", "-c", 'cat "$BRIEF"']))
    told, _ = json.JSONDecoder().raw_decode(brief.log_file.read_text())
    assert told["output_dir"] == str(brief.output_dir)
    assert told["budget"] == {"tokens": 1000, "seconds": None, "steps": 12}


def test_no_secret_reaches_a_program_without_a_sandbox_either(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    compete(brief, recipe(["env"], sandbox="none"))
    assert "OMP_NUM_THREADS=2" in brief.log_file.read_text()
    assert "hunter2" not in brief.log_file.read_text()


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
"""What the sandbox ends in another way than we do without one."""


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


@pytest.mark.parametrize("how", BOTH)
def test_a_daemon_does_not_outlive_its_entry(brief: Brief, how: str):
    assert compete(brief, recipe("daemon", sandbox=how)).status == "delivered"
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "987"]]


def test_what_a_program_reports_is_checked_and_bounded(brief: Brief):
    assert compete(brief, recipe("reports_nonsense", sandbox="none")).status == "delivered"
    events = read_events(brief.progress_file)
    assert len(events) < 120
    assert {e.event for e in events} == {"loading", "started", "note", "step", "ended"}
    notes = [e.text for e in events if e.event == "note"]
    assert len(notes) == 100
    assert notes[0].startswith("[2Jgone x")
    assert max(len(note) for note in notes) <= 200
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


@pytest.mark.parametrize("how", BOTH)
def test_a_program_dies_with_its_worker(brief: Brief, how: str, tmp_path: Path):
    """The worker is killed as the kernel or Ray does it: nothing can clean up after it."""
    code = (
        "import sys; from pathlib import Path; from competitors.command.recipe import CommandRecipe;"
        "from competitors.command.run import run;"
        "from competitors.contract import Brief; brief = Brief.read(Path(sys.argv[1]));"
        "run(brief, CommandRecipe.model_validate_json(sys.argv[2]), print)"
    )
    brief.output_dir.mkdir(parents=True)
    brief.write(tmp_path / "brief.json")
    sleeper = recipe(["sh", "-c", "setsid sleep 986 & sleep 986"], sandbox=how)
    environment = os.environ | {"TMPDIR": str(tmp_path / "scratch")}
    arguments = [sys.executable, "-c", code, str(tmp_path / "brief.json"), sleeper.model_dump_json(by_alias=True)]
    worker = subprocess.Popen(arguments, env=environment, cwd=Path(__file__).parents[4])

    def sleepers() -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "986"]]

    wait_for(lambda: len(sleepers()) == 2)
    assert brief.running_file.exists()
    worker.kill()
    worker.wait()
    # What it left is settled elsewhere, once nothing can write to it any more.
    assert settle(brief, "command", "was silent", 0.0).reason == "was silent, and left no valid model"
    assert sleepers() == []
    wait_for(lambda: not list((tmp_path / "scratch").iterdir()))


def wait_for(condition: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_continuation_is_handed_on_only_where_the_config_trusts_it(brief: Brief):
    script = 'cp -rL "$BRIEF_SEED_MODEL"/. "$BRIEF_OUTPUT_DIR"; echo {} > "$BRIEF_CONTINUATION_DIR/continuation.json"'
    assert compete(brief, recipe(["sh", "-c", script], sandbox="none", continuation=True)).has_continuation
    assert not compete(brief, recipe("good", sandbox="none")).has_continuation
    assert not brief.continuation_dir.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"run": "trainn.sh --fast", "sandbox": "none"}, "run: trainn.sh: command not found in "),
        ({"run": "./absent.sh", "sandbox": "none"}, "run: ./absent.sh: there is no such program in "),
        ({"run": "./hostile.py", "sandbox": "none"}, "run: ./hostile.py is not executable"),
        ({"folder": "/absent"}, "folder: /absent: there is no such folder"),
        ({"read": ["/absent"]}, "read: /absent: there is no such file or folder"),
        pytest.param({"read": ["/"]}, "read: / cannot be shown", marks=needs_sandbox),
    ],
)
def test_what_is_not_there_is_said_before_anything_starts(settings: dict[str, Any], message: str):
    with pytest.raises(UserError) as caught:
        recipe("good", **settings).check()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"run": "sh -c 'open"}, "No closing quotation"),
        ({"run": ""}, "names no program"),
        ({"resources": {"workers": 2}}, "a command is one program on one node"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        recipe("good", **settings)


def test_without_bubblewrap_it_is_refused_unless_the_config_says_so(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"sandbox: bubblewrap \(bwrap\) is not installed .* `sandbox: none`"):
        recipe("good").check()
    # Another node may lack what the driver's has.
    submission = compete(brief, recipe("good"))
    assert submission.status == "forfeit"
    assert submission.reason == "sandbox: bubblewrap (bwrap) is not installed on this machine"
    recipe("good", sandbox="none").check()
    assert compete(brief, recipe("good", sandbox="none")).status == "delivered"


def test_a_bubblewrap_that_can_make_no_sandbox_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UserError, match="can make no sandbox on this machine: bwrap: No permissions to create"):
        recipe("good").check()


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


def test_its_summary_is_the_command_line():
    assert recipe(["python", "a b.py"]).summary == "python 'a b.py'"
    assert recipe("good", sandbox="none").summary == "python hostile.py good, without a sandbox"
