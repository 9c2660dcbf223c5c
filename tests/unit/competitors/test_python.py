"""The user's own function: found, called, and not found."""

import sys
from pathlib import Path

import pytest

from cluster.errors import UserError
from competitors.contract import Brief
from competitors.events import Report
from competitors.python import PythonRecipe, resolve, run

told = list[tuple[Brief, Report]]()


def remembers(brief: Brief, report: Report) -> None:
    told.append((brief, report))


def test_the_function_gets_the_brief_and_a_way_to_report(brief: Brief):
    events = list[object]()
    run(brief, PythonRecipe(name="p", kind="python", entrypoint=f"{__name__}:remembers"), events.append)
    assert events == [{"event": "started"}]
    assert told == [(brief, events.append)]


@pytest.mark.parametrize("entrypoint", ["nowhere:run", f"{__name__}:nothing"])
def test_a_function_that_is_not_there_is_said_before_anything_starts(entrypoint: str):
    with pytest.raises(UserError, match=f"entrypoint {entrypoint} does not import, also not from ."):
        PythonRecipe(name="p", kind="python", entrypoint=entrypoint).check()
    with pytest.raises(UserError):
        resolve(entrypoint, Path("."))


def test_code_beside_the_config_is_found_wherever_the_command_was_called(
    brief: Brief, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    (tmp_path / "beside_the_config.py").write_text("def train(brief, report):\n    report({'event': 'mine'})\n")
    (tmp_path / "json.py").write_text("")  # no library is replaced
    recipe = PythonRecipe(name="p", kind="python", entrypoint="beside_the_config:train").located(tmp_path)
    recipe.check()
    events = list[object]()
    run(brief, recipe, events.append)
    assert events == [{"event": "started"}, {"event": "mine"}]
    assert sys.path.count(str(tmp_path)) == 1
    with pytest.raises(UserError, match=r"json is .*, not .*/json.py: give that another name"):
        PythonRecipe(name="p", kind="python", entrypoint="json:loads").located(tmp_path).check()


def test_two_modules_of_one_name_are_not_taken_for_each_other(tmp_path: Path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same_named_module.py").write_text(f"def f(brief, report): {folder!r}")
    resolve("same_named_module:f", tmp_path / "one")
    with pytest.raises(UserError, match=r"is .*one/same_named_module.py, not .*two/same_named_module.py: give that"):
        resolve("same_named_module:f", tmp_path / "two")


def test_what_a_module_says_as_it_is_imported_is_one_line(tmp_path: Path):
    (tmp_path / "broken_module.py").write_text("def f(:\n")
    with pytest.raises(UserError, match="entrypoint broken_module:f does not import") as caught:
        resolve("broken_module:f", tmp_path)
    assert "\n" not in str(caught.value)
