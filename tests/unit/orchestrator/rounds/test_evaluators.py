"""Trying again elsewhere, and whose trouble it is that an evaluator fails on a submission."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterTrouble, Forfeit
from cluster.workers import WorkerDied
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.evaluators import ATTEMPTS, ATTEMPTS_ON_A_SUBMISSION, Evaluators
from tests.faked import FakedWorkers, faked_config


def looks_at(path: Path) -> str:
    """What an evaluator is asked to do."""
    return path.name


Fault = Callable[[str, tuple[Any, ...]], None]


def called(tmp_path: Path, fault: Fault, on_submission: bool) -> tuple[str | BaseException, list[str]]:
    """What comes of one call, and which calls it took."""
    config, run, workers = faked_config(tmp_path), RunDirectory(tmp_path / "run"), FakedWorkers(fault=fault)

    async def call() -> str:
        evaluators = Evaluators(config, run, workers)
        seed = evaluators.job("its seed", tmp_path / "base", tmp_path / "base", tmp_path / "seed-check")
        if on_submission:
            return await evaluators.call_on_submission(seed, looks_at, tmp_path / "x")
        return await evaluators.call(looks_at, tmp_path / "x")

    try:
        return asyncio.run(call()), workers.calls
    except (Forfeit, ClusterTrouble) as error:
        return error, workers.calls


def dies(*names: str, error: Exception | None = None) -> Fault:
    def fault(name: str, args: tuple[Any, ...]) -> None:
        if name in names:
            raise error or WorkerDied("its process died")

    return fault


def test_trouble_is_tried_again_and_then_said(tmp_path: Path):
    result, calls = called(tmp_path, dies("looks_at"), on_submission=False)
    assert isinstance(result, ClusterTrouble)
    assert f"its process died (looks_at, tried {ATTEMPTS} times)" in str(result)
    assert calls == ["looks_at"] * ATTEMPTS


def test_a_submissions_own_fault_is_said_at_once(tmp_path: Path):
    result, calls = called(tmp_path, dies("looks_at", error=Forfeit("is not finite")), on_submission=True)
    assert (type(result), str(result), calls) == (Forfeit, "is not finite", ["looks_at"])


def test_what_fails_on_it_and_not_on_its_seed_is_its_own_fault(tmp_path: Path):
    result, calls = called(tmp_path, dies("looks_at"), on_submission=True)
    assert isinstance(result, Forfeit)
    assert "fails on it, and not on its seed: its process died" in str(result)
    assert calls == ["looks_at"] * ATTEMPTS_ON_A_SUBMISSION + ["score_model"]
    assert not (tmp_path / "seed-check").exists()


@pytest.mark.parametrize("error", [None, Forfeit("its loss is not finite")])
def test_what_fails_on_the_seed_too_is_the_clusters(tmp_path: Path, error: Exception | None):
    def fault(name: str, args: tuple[Any, ...]) -> None:
        if name == "score_model" and error is not None:
            raise error
        raise WorkerDied("its process died")

    result, calls = called(tmp_path, fault, on_submission=True)
    assert isinstance(result, ClusterTrouble)
    assert calls[:ATTEMPTS_ON_A_SUBMISSION] == ["looks_at"] * ATTEMPTS_ON_A_SUBMISSION
    assert set(calls[ATTEMPTS_ON_A_SUBMISSION:]) == {"score_model"}


def test_a_full_disk_is_nobodys_fault_and_no_seed_is_scored(tmp_path: Path):
    full = OSError(28, "No space left on device")
    result, calls = called(tmp_path, dies("looks_at", error=full), on_submission=True)
    assert isinstance(result, ClusterTrouble)
    assert "score_model" not in calls
