"""An entry that is called off while its worker is still being ended."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.resources import Held, Shape
from cluster.workers import nothing
from orchestrator.config.sections import Limits
from orchestrator.field.model_ref import BASE
from orchestrator.field.next_round import first_roster, with_budget
from orchestrator.record.records import ModelFolder
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.competition import brief_for
from orchestrator.rounds.context import Context
from orchestrator.rounds.entry import Entry
from orchestrator.rounds.evaluators import Evaluators
from tests.faked import faked_config


class SlowToEnd:
    """Workers whose calls never end by themselves, and take a moment to end when they are cancelled."""

    has_gpus = False

    def __init__(self) -> None:
        self.ending = asyncio.Event()
        self.called: list[str] = []

    def refuse_impossible(self, shape: Shape, what: str) -> None:
        pass

    async def call(
        self,
        shape: Shape,
        function: Callable[..., Any],
        *args: Any,
        placed: Callable[[Held], None] = nothing,
        **more: Any,
    ) -> Any:
        self.called.append(function.__name__)
        placed(shape.held())
        try:
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            await asyncio.sleep(0.2)

    def close(self) -> None:
        pass


def entry(inputs: Path, folder: Path, workers: SlowToEnd, limits: Limits) -> Entry:
    config, run = faked_config(inputs, limits=limits.model_dump()), RunDirectory(folder)
    context = Context(config, run, inputs, workers, Evaluators(config, run, workers), lambda event: None)
    base = ModelFolder(model=BASE, path=inputs / "base", sha256="")
    roster = with_budget(first_roster("l", config.competitors, []), config.budget.allowance)
    brief = brief_for(context, roster, roster.entries[0], base, 2)
    return Entry(context, brief, config.competitors[0], base, base)


@pytest.mark.parametrize(
    "startup_minutes", [0.0001, 30.0], ids=["while it is ended for its deadline", "while it trains"]
)
def test_an_entry_that_is_called_off_goes_no_further(tmp_path: Path, startup_minutes: float):
    async def run() -> SlowToEnd:
        workers = SlowToEnd()
        one = entry(tmp_path, tmp_path / "run", workers, Limits(startup_minutes=startup_minutes))
        task = asyncio.create_task(one.run())
        if startup_minutes < 1:
            await workers.ending.wait()  # it is late, and its process is being ended
        else:
            await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        return workers

    assert asyncio.run(run()).called == ["compete"]
