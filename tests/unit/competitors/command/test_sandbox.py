"""What a program can see, and what is kept from it."""

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest

from cluster.errors import UserError
from competitors.contract import Brief
from competitors.entry import compete
from tests.unit.competitors.command.making import PROGRAMS, needs_sandbox, recipe


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
def test_paths_that_lead_over_links_show_no_more(brief: Brief, tmp_path: Path):
    """A run directory and a program's folder that are named by links within what is shown."""
    (tmp_path / "link").symlink_to("runs")
    (tmp_path / "whole").symlink_to(tmp_path)
    paths = {key: getattr(brief, key) for key in ("train_data", "output_dir")}
    told = {key: tmp_path / "link" / path.relative_to(tmp_path / "runs") for key, path in paths.items()}
    entry = recipe(["find", "-L", ".", "-name", "*.parquet"], folder=str(tmp_path / "whole"))
    compete(brief.model_copy(update=told), entry)
    assert {line for line in brief.log_file.read_text().splitlines() if line.startswith("./")} == {
        "./runs/mine/data/train.parquet",
        "./link/mine/data/train.parquet",
    }


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
