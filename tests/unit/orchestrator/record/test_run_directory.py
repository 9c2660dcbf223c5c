"""The run directory: whose it is, who holds it, and what is said when a file of it cannot be read."""

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import BrokenRecord, UserError
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.record.records import ModelFolder
from orchestrator.record.run_directory import RunDirectory, read_json
from tests.unit.orchestrator.field.test_next_round import config


def test_paths_follow_from_lineage_round_and_competitor(tmp_path: Path):
    run = RunDirectory(tmp_path)
    assert run.entry("l", 3, "a") == tmp_path / "lineages/l/round-003/a"
    assert run.scores("l", BASE) == tmp_path / "lineages/l/round-000"
    assert run.scores("l", ModelRef("a", 3)) == run.entry("l", 3, "a")


def test_paths_in_records_move_with_the_run(tmp_path: Path):
    run = RunDirectory(tmp_path / "here")
    folder = run.round("l", 1)
    made = ModelFolder(model=ModelRef("a", 1), path=folder / "seed", sha256="0", continuation=Path("/elsewhere/c"))
    run.write(made, folder / "seed.json")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = RunDirectory(tmp_path / "there")
    read = moved.read(ModelFolder, moved.round("l", 1) / "seed.json")
    assert read is not None
    assert (read.path, read.continuation) == (moved.round("l", 1) / "seed", Path("/elsewhere/c"))


def test_a_folder_that_is_something_else_is_refused_and_a_failed_preparation_is_not(tmp_path: Path):
    run = RunDirectory(tmp_path)
    (tmp_path / ".environment.json.1a2b3c4d.tmp").write_text("{")
    (tmp_path / "data").mkdir()
    (tmp_path / "environment.json").write_text("{}")
    run.check(config())
    run.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["environment.json"]
    (tmp_path / "thesis.docx").write_text("")
    with pytest.raises(UserError, match="is not empty and no run directory"):
        run.check(config())


def test_what_a_killed_program_was_writing_is_swept_wherever_it_lies(tmp_path: Path):
    run = RunDirectory(tmp_path)
    half = run.round("l", 1) / ".seed.0a1b2c3d.tmp"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_text("half")
    theirs = run.entry("l", 1, "a") / "submission" / "notes.tmp"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("")
    run.sweep()
    assert not half.exists()
    assert theirs.exists()


def test_another_config_is_refused_with_the_differences(tmp_path: Path):
    run = RunDirectory(tmp_path)
    run.adopt(config())
    run.check(config())
    run.check(config(tracking={"uri": "http://elsewhere"}))
    with pytest.raises(UserError, match=r"belongs to another config: rounds: 5 is 4 there"):
        run.check(config(rounds=5))


def test_two_drivers_cannot_hold_it(tmp_path: Path):
    run = RunDirectory(tmp_path / "run")
    assert not run.is_running
    with run.locked():
        assert run.is_running
        with pytest.raises(UserError, match="another driver is running"), RunDirectory(tmp_path / "run").locked():
            pass
    assert not run.is_running


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "is damaged"),
        ("", "is damaged, or another version wrote it"),
        ("name: t\nfuture: 1\n", 'unknown key "future"'),
        ("\x00", "is damaged"),
    ],
)
def test_a_config_that_cannot_be_read_is_one_line(tmp_path: Path, text: str, said: str):
    run = RunDirectory(tmp_path)
    run.config_file.write_text(text)
    with pytest.raises(BrokenRecord) as error:
        _ = run.config
    assert said in str(error.value)
    assert str(run.config_file) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_run_directory_is_said(tmp_path: Path):
    with pytest.raises(UserError, match="there is no such folder"):
        _ = RunDirectory(tmp_path / "nowhere").config


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_plain_json_that_is_torn_names_the_file(tmp_path: Path, text: str):
    path = tmp_path / "environment.json"
    assert read_json(path) is None
    path.write_text(text)
    with pytest.raises(BrokenRecord, match=r"environment\.json: is cut off or damaged"):
        read_json(path)


def test_nothing_but_the_store_renames_links_or_locks():
    """Everything that an object store could not do as a file system does stands in one file."""
    import ast

    root = Path(__file__).parents[4]
    allowed = {"cluster/store.py"}
    found: list[Any] = []
    for package in ("cluster", "competitors", "evaluation", "orchestrator"):
        for file in (root / package).rglob("*.py"):
            name = file.relative_to(root).as_posix()
            tree = ast.parse(file.read_text())
            for node in ast.walk(tree):
                call = node.func if isinstance(node, ast.Call) else None
                if isinstance(call, ast.Attribute):
                    owner = call.value.id if isinstance(call.value, ast.Name) else ""
                    forbidden = call.attr in ("rename", "flock", "hardlink_to", "symlink_to") or (
                        owner in ("os", "shutil") and call.attr in ("replace", "link", "symlink", "move")
                    )
                    if forbidden and name not in allowed:
                        found.append((name, node.lineno, call.attr))
    assert not found
