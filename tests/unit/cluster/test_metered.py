"""What calls have held, counted."""

import asyncio
from typing import Any

import pytest

from cluster import metered
from cluster.errors import ClusterTrouble
from cluster.in_process import InProcessWorkers
from cluster.metered import ACCOUNT, Metered, added
from cluster.resources import Held, Shape
from tests.worker_contract import (  # noqa: F401 - collected here
    add,
    fail,
    test_a_call_that_is_cancelled_is_ended_and_its_place_is_free,
    test_a_result_comes_back_and_who_waits_is_told_of_the_start,
    test_an_error_of_who_waits_leaves_the_place_free,
    test_our_errors_come_through_and_others_are_said_in_a_line,
)


@pytest.fixture
def workers() -> Any:
    made = Metered(InProcessWorkers(trainers=2, has_gpus=True, gpus=2))
    yield made
    made.close()


def test_every_call_counts_for_its_account_whatever_becomes_of_it(workers: Metered, monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(metered.time, "monotonic", lambda: now)

    def later(held: Held) -> None:
        nonlocal now
        now += 10

    async def lineage(name: str, shape: Shape, function: Any, *args: Any) -> None:
        ACCOUNT.set(name)

        def began(held: Held) -> None:
            assert workers.seconds(ahead=5)[name] == {kind: 5 * amount for kind, amount in held.items()}
            later(held)

        await workers.call(shape, function, *args, placed=began)

    async def scenario() -> None:
        await lineage("", Shape("evaluator", 0, 0.5), add, 1, 2)
        await asyncio.create_task(lineage("l", Shape("trainer", 3, 0), add, 1, 2))
        with pytest.raises(ClusterTrouble):
            await asyncio.create_task(lineage("m", Shape("trainer", 3, 2), fail, "bug"))

    asyncio.run(scenario())
    assert workers.seconds() == {"": {"GPU": 5}, "l": {"CPU": 30}, "m": {"GPU": 20}}
    assert workers.seconds(ahead=100) == workers.seconds()  # nothing runs


def test_accounts_add_up():
    assert added({"l": {"H100": 1.5}}, {"l": {"H100": 1, "L4": 2}, "m": {}}) == {"l": {"H100": 2.5, "L4": 2}, "m": {}}
