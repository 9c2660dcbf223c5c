"""Work for the evaluators: how many at a time, how often, and whose trouble it is."""

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterTrouble, Forfeit, UserError
from cluster.resources import Resources
from competitors.contract import Allowance, Brief
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.evaluators import ATTEMPTS, ATTEMPTS_ON_A_SUBMISSION, Evaluators
from tests.faked import FakedWorkers, faked_config


def asked(submission: str) -> str:
    """What an evaluator is asked to do with a submission."""
    return submission


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


def evaluators(inputs: Path, folder: Path, workers: FakedWorkers, **settings: Any) -> Evaluators:
    return Evaluators(faked_config(inputs, **settings), RunDirectory(folder), workers)


def on_a_submission(inputs: Path, folder: Path, workers: FakedWorkers) -> str:
    found = evaluators(inputs, folder, workers)
    seed = found.job("its seed", inputs / "base", inputs / "base", folder / "seed-check")
    return asyncio.run(found.call_on_submission(seed, asked, "b"))


def fails(error: BaseException, *names: str) -> Callable[[str, tuple[Any, ...]], None]:
    def fault(name: str, args: tuple[Any, ...]) -> None:
        if name in names:
            raise error

    return fault


@pytest.mark.parametrize(
    ("form", "wanted"), [("full", ("submission", None, "seed")), ("adapter", ("seed", "submission", None))]
)
def test_what_is_handed_in_is_scored_on_its_seed(inputs: Path, tmp_path: Path, form: Any, wanted: Any):
    """By the one job with which it is scored, and proves itself."""
    brief = Brief(
        tournament="t", lineage="l", round=2, competitor="a", seed_model=tmp_path / "seed", seed_sha256="",
        seed_continuation=None, train_data=tmp_path, max_tokens=8, budget=Allowance(steps=9), progress=(0, 1),
        output_dir=tmp_path / "submission", random_seed=0, resources=Resources(),
    )  # fmt: skip
    job = evaluators(inputs, tmp_path / "run", FakedWorkers()).job_of(brief, form, tmp_path / "base")
    assert tuple(path and path.name for path in (job.model, job.adapter, job.seed)) == wanted
    assert (job.name, job.tokenizer, job.out) == ("a@2", tmp_path / "base", tmp_path)
    assert job.splits == ("validation",)


def test_evaluators_that_hold_nothing_are_still_so_many_at_a_time(inputs: Path, tmp_path: Path):
    class Counting(FakedWorkers):
        now = most = 0

        async def call(self, *args: Any, **kwargs: Any) -> Any:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.01)
            self.now -= 1

    async def scenario(evaluation: dict[str, Any]) -> int:
        workers = Counting()
        found = evaluators(inputs, tmp_path, workers, evaluation=evaluation)
        await asyncio.gather(*(found.call(asked, "b") for _ in range(9)))
        return workers.most

    nothing = {"gpus": 0, "cpus": 0}
    assert asyncio.run(scenario({"resources": nothing, "at_once": 2})) == 2
    assert asyncio.run(scenario({"resources": nothing | {"cpus": 1}, "at_once": 2})) == 9  # those the workers limit


def test_trouble_is_tried_again_and_what_is_somebodys_own_is_not(inputs: Path, tmp_path: Path):
    for error, times in ((ClusterTrouble("gone"), ATTEMPTS), (Forfeit("no model"), 1), (UserError("no rows"), 1)):
        workers = FakedWorkers(fault=fails(error, "asked"))
        with pytest.raises(type(error)):
            asyncio.run(evaluators(inputs, tmp_path, workers).call(asked, "b"))
        assert workers.calls == ["asked"] * times


def test_whose_trouble_it_is_the_seed_tells(inputs: Path, tmp_path: Path):
    workers = FakedWorkers(fault=fails(RuntimeError("odd"), "asked"))
    with pytest.raises(Forfeit, match=r"fails on it, and not on its seed: .*odd"):
        on_a_submission(inputs, tmp_path, workers)
    assert workers.calls == ["asked"] * ATTEMPTS_ON_A_SUBMISSION + ["score_model"]
    assert not (tmp_path / "seed-check").exists()
    with pytest.raises(ClusterTrouble, match="odd"):
        on_a_submission(inputs, tmp_path, FakedWorkers(fault=fails(RuntimeError("odd"), "asked", "score_model")))


def test_storage_that_fails_is_not_asked_about(inputs: Path, tmp_path: Path):
    """A seed that can be scored needs little room; a model that is to be merged needs more."""
    workers = FakedWorkers(fault=fails(OSError(errno.ENOSPC, "No space left on device"), "asked"))
    with pytest.raises(ClusterTrouble, match="No space left"):
        on_a_submission(inputs, tmp_path, workers)
    assert "score_model" not in workers.calls
