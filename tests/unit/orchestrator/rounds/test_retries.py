"""Whose trouble a lost training is in the end."""

import pytest

from cluster.errors import ClusterTrouble
from cluster.workers import DeadlinePassed, WorkerDied
from orchestrator.rounds.retries import ATTEMPTS, after_losing


@pytest.mark.parametrize(
    ("trouble", "in_the_end"),
    [
        (WorkerDied("was killed"), "settle"),
        (WorkerDied("was killed", out_of_memory=True), "settle"),
        (WorkerDied("its node died", node_lost=True), "stop"),
        (ClusterTrouble("no process is to be had"), "stop"),
        (DeadlinePassed("was late"), "stop"),
    ],
)
def test_what_is_lost_is_tried_again_and_then_settled_or_stops_all(trouble: ClusterTrouble, in_the_end: str):
    assert [after_losing(trouble, attempt) for attempt in range(1, ATTEMPTS + 1)] == [
        *["try again"] * (ATTEMPTS - 1),
        in_the_end,
    ]
