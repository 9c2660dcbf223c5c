"""Figures for Prometheus, by way of Ray: each node exports what programs there say, with `ray_` before the name.

Few labels, so that a tournament of a thousand entries makes a dozen series. `cluster/grafana.json` shows them all.
"""

import sys
from functools import cache
from typing import Any

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "tournament_entries": ("Entries of the round that runs, by state.", ("tournament", "lineage", "state")),
    "tournament_round": ("The round that runs.", ("tournament", "lineage")),
    "tournament_rounds": ("Rounds that there are to be.", ("tournament", "lineage")),
    "tournament_training_tokens": ("Trained by the round's entries so far.", ("tournament", "lineage")),
    "tournament_validation_loss": ("The champion's, nats per completion token.", ("tournament", "lineage")),
    "tournament_test_loss": ("The champion's, nats per completion token.", ("tournament", "lineage")),
    "tournament_gpus": ("Busy, held by an idle process, or asked for and not placed.", ("use",)),
}
"""Description and labels of each."""


def show(name: str, value: float, **labels: str) -> None:
    """Have Ray export a figure; where this process is not connected to Ray it goes nowhere."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        _gauge(name).set(value, labels)


@cache
def _gauge(name: str) -> Any:
    from ray.util.metrics import Gauge

    description, labels = GAUGES[name]
    return Gauge(name, description, tag_keys=labels)
