"""A command in a config: what is refused before anything starts."""

from typing import Any

import pytest

from cluster.errors import UserError
from tests.unit.competitors.command.making import needs_sandbox, recipe


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


def test_its_summary_is_the_command_line():
    assert recipe(["python", "a b.py"]).summary == "python 'a b.py'"
    assert recipe("good", sandbox="none").summary == "python hostile.py good, without a sandbox"
