"""Joining a cluster, or starting a Ray of one's own, without Ray."""

from typing import Any

import pytest
import ray

from cluster.errors import ClusterTrouble, UserError
from cluster.on_ray import connect


@pytest.mark.parametrize(("address", "kind"), [("local", ClusterTrouble), ("head:6379", UserError)])
def test_a_ray_that_does_not_come_up_is_one_line(monkeypatch: pytest.MonkeyPatch, address: str, kind: type[Exception]):
    def init(**_: Any) -> None:
        raise Exception("The current node timed out during startup.\nThis could happen because")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(connect, "require_answer", lambda address: None)
    with pytest.raises(kind, match="The current node timed out during startup") as caught:
        with connect.connected(address):
            pass
    assert "\n" not in str(caught.value)
