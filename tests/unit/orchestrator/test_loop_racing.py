"""The loop with racing, without Ray: who is stopped, and going on in the middle of a race."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterTrouble, Forfeit
from cluster.workers import WorkerDied
from competitors.contract import Brief
from competitors.events import reporter
from orchestrator.rounds import racing
from tests.faked import FakedWorkers, faked_config, hand_in, play


def test_a_race_stops_the_worst_whether_it_listens_or_not(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(racing, "STOP_SECONDS", 0.2)
    scored: list[str] = []

    def checkpoint(brief: Brief, after: int) -> None:
        """At the rung, once so many others have been scored there."""
        reporter(brief.progress_file)({"event": "started"})
        while len(scored) < after:
            time.sleep(0.01)
        folder = brief.output_dir / "checkpoint-1"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"")
        reporter(brief.progress_file)({"event": "checkpoint", "fraction": 0.5, "folder": folder.name})
        while len(scored) <= after:
            time.sleep(0.01)

    def well(brief: Brief) -> None:
        checkpoint(brief, 0)
        hand_in(brief)

    def badly(brief: Brief) -> None:
        checkpoint(brief, 1)
        while not brief.stop_file.exists():
            time.sleep(0.01)
        raise Forfeit(brief.stop_file.read_text())

    def deaf(brief: Brief) -> None:
        checkpoint(brief, 2)
        while True:
            time.sleep(0.01)

    def dies(brief: Brief) -> None:
        """Before it looks whether it should stop. Another try would be past the rung."""
        checkpoint(brief, 3)
        while not brief.stop_file.exists():
            time.sleep(0.01)
        raise WorkerDied("was ended by SIGKILL")

    def scores(name: str, args: tuple[Any, ...]) -> None:
        if name == "score_checkpoint":
            scored.append(args[0].name)

    workers = FakedWorkers(
        loss_of=lambda name, number: {"a": 1.0, "b": 2.0, "c": 3.0, "d": 3.5}.get(name, 4.0),
        acts={"a": well, "b": badly, "c": deaf, "d": dies},
        fault=scores,
    )
    config = faked_config(inputs, rounds=1, racing={"at": [0.5], "keep": 0.3, "rows": 30}, competitors=[
        {"name": name, "kind": "python", "entrypoint": "tests.recipes:writes_nothing"} for name in "abcd"
    ])  # fmt: skip
    a, b, c, d = play(config, tmp_path / "run", workers).lineages[0].rounds[0].entries
    assert scored == ["a@1", "b@1", "c@1", "d@1"]
    assert a.state == "scored"
    for entry in (b, c, d):
        assert entry.state == "forfeit"
        assert entry.reason.startswith("stopped by racing at 50% of its budget: ")
        assert "on at most 30 validation rows, place " in entry.reason


def test_a_race_that_was_stopped_goes_on_with_how_everybody_stood(inputs: Path, tmp_path: Path):
    """b is worse than a, who had ended before the driver was stopped: alone at its rung it would go on."""
    scored: list[str] = []

    def at_the_rung(brief: Brief) -> None:
        reporter(brief.progress_file)({"event": "started"})
        folder = brief.output_dir / "checkpoint-1"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"")
        reporter(brief.progress_file)({"event": "checkpoint", "fraction": 0.5, "folder": folder.name})
        while f"{brief.competitor}@1" not in scored:
            time.sleep(0.01)

    def well(brief: Brief) -> None:
        at_the_rung(brief)
        hand_in(brief)

    def is_lost(brief: Brief) -> None:
        while not (brief.output_dir.parents[1] / "a/submission.json").exists():
            time.sleep(0.01)
        raise WorkerDied("the machine is gone", node_lost=True)

    def badly(brief: Brief) -> None:
        at_the_rung(brief)
        deadline = time.monotonic() + 5
        while not brief.stop_file.exists():
            if time.monotonic() > deadline:
                return hand_in(brief)
            time.sleep(0.01)
        raise Forfeit(brief.stop_file.read_text())

    def fault(name: str, args: tuple[Any, ...]) -> None:
        if name == "score_checkpoint":
            scored.append(args[0].name)

    def workers(b: Callable[[Brief], None]) -> FakedWorkers:
        return FakedWorkers(lambda name, number: {"a": 1.0, "b": 2.0}.get(name, 4.0), {"a": well, "b": b}, fault)

    config = faked_config(inputs, rounds=1, racing={"at": [0.5], "keep": 0.5, "rows": 30}, competitors=[
        {"name": name, "kind": "python", "entrypoint": "tests.recipes:writes_nothing"} for name in "ab"
    ])  # fmt: skip
    with pytest.raises(ClusterTrouble):
        play(config, tmp_path / "run", workers(is_lost))
    assert scored == ["a@1"]
    a, b = play(config, tmp_path / "run", workers(badly)).lineages[0].rounds[0].entries
    assert (a.state, b.state) == ("scored", "forfeit")
    assert b.reason.startswith("stopped by racing at 50% of its budget: ")
    assert b.reason.endswith("place 2 of the 2 that got there")


@pytest.mark.parametrize("racing", [{"at": [0.5]}, None])
def test_who_races_starts_anew_with_another_driver(inputs: Path, tmp_path: Path, racing: Any):
    attempts: list[int] = []

    def ends_the_driver(brief: Brief) -> None:
        raise WorkerDied("the machine is gone", node_lost=True)

    def tells(brief: Brief) -> None:
        attempts.append(brief.attempt)
        hand_in(brief)

    field = [{"name": "a", "kind": "sft", "learning_rate": 1e-3}]
    config = faked_config(inputs, rounds=1, competitors=field, racing=racing)
    with pytest.raises(ClusterTrouble):
        play(config, tmp_path / "run", FakedWorkers(acts={"a": ends_the_driver}))
    brief = Brief.read(tmp_path / "run/lineages/l/round-001/a/brief.json")
    play(config, tmp_path / "run", FakedWorkers(acts={"a": tells}))
    assert attempts == [1 if racing else brief.attempt + 1]
