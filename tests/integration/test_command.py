"""Hostile programs of kind `command` in a real round: they forfeit, and nobody else notices."""

from pathlib import Path
from typing import Any

import psutil
import pytest

from competitors.command import sandbox
from tests.tournaments import run, sft

PROGRAMS = Path(__file__).parents[1] / "programs"


def program(name: str, of: Path, **settings: Any) -> dict[str, Any]:
    """A competitor from programs/hostile.py; its processes name `of`."""
    command = ["python", "hostile.py", name, str(of)]
    limits = {"memory_gb": 0.4}
    section = {"name": name.replace("_", "-"), "kind": "command", "run": command, "folder": str(PROGRAMS)}
    return section | {"resources": limits, "grace_seconds": 0.5} | settings


@pytest.mark.slow
@pytest.mark.skipif(sandbox.trouble() is not None, reason=f"no sandbox here: {sandbox.trouble()}")
def test_hostile_programs_forfeit_and_the_round_goes_on(write_config: Any, tmp_path: Path):
    config = write_config(
        [
            sft("recipe"),
            program("good", tmp_path),
            program("forks", tmp_path, processes=40),
            program("links_out", tmp_path),
            program("ignores_sigterm_with_a_checkpoint", tmp_path),
        ],
        rounds=1,
        budget={"steps": 12, "minutes": 0.05},
    )
    board = run(config, tmp_path / "run")
    row = board.lineages[0].rounds[1]
    found = {entry.competitor: entry for entry in row.entries}
    assert {name for name, entry in found.items() if entry.status == "scored"} == {
        "recipe",
        "good",
        "ignores-sigterm-with-a-checkpoint",
    }
    assert row.winner == "recipe"
    base = board.lineages[0].rounds[0].validation_loss
    assert found["good"].validation_loss == pytest.approx(base, rel=1e-5)
    assert (found["good"].train_tokens, found["good"].kind) == (30, "command")
    reasons = {name: entry.reason for name, entry in found.items() if entry.status == "forfeit"}
    for name, reason in {
        "forks": "started more than 40 processes",
        "links-out": "left a symbolic link",
    }.items():
        assert reason in reasons.pop(name)
    assert not reasons
    entries = tmp_path / "run" / "lineages" / "one" / "round-001"
    assert all((entries / name / "log.txt").stat().st_size < 3 * 2**20 for name in found)
    assert not [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[-1] == str(tmp_path)]
