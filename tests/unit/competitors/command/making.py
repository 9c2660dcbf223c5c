"""What tests of programs make."""

import time
from pathlib import Path
from typing import Any

import pytest

from competitors.command import sandbox
from competitors.command.recipe import CommandRecipe

PROGRAMS = Path(__file__).parents[3] / "programs"
TROUBLE = sandbox.trouble()
needs_sandbox = pytest.mark.skipif(TROUBLE is not None, reason=f"no sandbox here: {TROUBLE}")
BOTH = [pytest.param("bubblewrap", marks=needs_sandbox), "none"]
EITHER = "none" if TROUBLE else "bubblewrap"


def recipe(program: Any, **settings: Any) -> CommandRecipe:
    """One of hostile.py's programs by its name, or words of a command line."""
    words = ["python", "hostile.py", program] if isinstance(program, str) else program
    limits = {"memory_gb": 2.0} | settings.pop("resources", {})
    given = {"name": "c", "kind": "command", "run": words, "folder": str(PROGRAMS), "resources": limits}
    return CommandRecipe(**given | settings).located(Path("/"))


def wait_for(condition: Any, seconds: float = 30) -> None:
    """Until it is so, or too late."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
