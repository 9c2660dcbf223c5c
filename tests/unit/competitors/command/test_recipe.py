"""A command in a config: what is refused before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from competitors.command import masks
from tests.unit.competitors.command.making import PROGRAMS, recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"run": "python3 nofile.py --fast", "sandbox": "none"}, "run: nofile.py: there is no such file in "),
        ({"run": "trainn.sh --fast", "sandbox": "none"}, "run: trainn.sh: command not found in "),
        ({"run": "./absent.sh", "sandbox": "none"}, "run: ./absent.sh: there is no such program in "),
        ({"run": "./hostile.py", "sandbox": "none"}, "run: ./hostile.py is not executable"),
        ({"folder": "/absent"}, "folder: /absent: there is no such folder"),
        ({"read": ["/absent"]}, "read: /absent: there is no such file or folder"),
        ({"read": ["/"]}, "read: / cannot be shown"),
        ({"read": ["/proc/1"]}, "read: /proc/1 cannot be shown"),
        ({"read": ["/dev/shm"]}, "read: /dev/shm cannot be shown"),
        ({"hide": [str(PROGRAMS)]}, f"folder: {PROGRAMS} cannot be shown to a program: it may hold held-out rows"),
        (
            {"read": ["/usr/bin"], "hide": ["/usr"]},
            "read: /usr/bin cannot be shown to a program: /usr, in which it lies,",
        ),
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


def test_its_summary_is_the_command_line():
    assert recipe(["python", "a b.py"]).summary == "python 'a b.py'"
    assert recipe("good", sandbox="none").summary == "python hostile.py good, without a sandbox"


def test_more_data_than_can_be_hidden_one_by_one_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(masks, "MOST", 2)
    files = [tmp_path / f"{number}.jsonl" for number in range(3)]
    for file in files:
        file.touch()
    made = recipe("good", folder=str(tmp_path), run=["true"]).kept_from(files)
    assert str(made.refusal()).startswith(
        f"folder: 3 files below {tmp_path} hold data, too many to hide one by one (2)"
    )
    assert made.model_copy(update={"hide": [tmp_path / "absent"]}).refusal() is None
