"""The user's own function: found, called, and not found."""

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
    with pytest.raises(UserError, match=f"entrypoint {entrypoint} does not import"):
        PythonRecipe(name="p", kind="python", entrypoint=entrypoint).check()
    with pytest.raises(UserError):
        resolve(entrypoint)
