"""What a program has started ends with it, and with its worker."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from competitors.contract import Brief
from competitors.entry import compete, settle
from tests.unit.competitors.command.making import BOTH, recipe, wait_for

SLEEP = "import time; time.sleep(987)"  # as hostile.py has it


def sleepers(folder: Path) -> list[psutil.Process]:
    """The living processes that sleep so, and name that folder as their last word."""
    found = psutil.process_iter(["cmdline"])
    return [p for p in found if (p.info["cmdline"] or [])[1:] == ["-c", SLEEP, str(folder)]]


@pytest.mark.parametrize("how", BOTH)
def test_a_daemon_does_not_outlive_its_entry(brief: Brief, how: str):
    assert compete(brief, recipe("daemon", sandbox=how)).status == "delivered"
    assert sleepers(brief.output_dir) == []


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
    words = ["python", "-c", SLEEP, str(tmp_path)]
    sleeper = recipe(["sh", "-c", 'setsid "$@" & exec "$@"', "sh", *words], sandbox=how)
    environment = os.environ | {"TMPDIR": str(tmp_path / "scratch")}
    arguments = [sys.executable, "-c", code, str(tmp_path / "brief.json"), sleeper.model_dump_json(by_alias=True)]
    worker = subprocess.Popen(arguments, env=environment, cwd=Path(__file__).parents[4])

    wait_for(lambda: len(sleepers(tmp_path)) == 2)
    assert brief.running_file.exists()
    worker.kill()
    worker.wait()
    # What it left is settled elsewhere, once nothing can write to it any more.
    assert settle(brief, "command", "was silent", 0.0).reason == "was silent, and left no valid model"
    assert sleepers(tmp_path) == []
    wait_for(lambda: not list((tmp_path / "scratch").iterdir()))
