"""What nodes a cluster has and may get, from what Ray and an autoscaler say."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.on_ray import nodes
from cluster.on_ray.nodes import Outlook, largest_machine, living_nodes, outlook, possible_nodes, refusals
from cluster.placement import Node
from cluster.resources import Shape

ONE, LARGE = Shape("trainer", 1, 1), Shape("trainer", 1, 16)
NODES = [
    {"NodeID": "head", "Alive": True, "Resources": {"memory": 8.0, "node:x": 1.0}, "Labels": {}},
    {"NodeID": "a", "Alive": True, "Resources": {"CPU": 8.0, "GPU": 8.0}, "Labels": {"ray.io/node-group": "gpus"}},
    {"NodeID": "b", "Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}, "Labels": {"ray.io/node-group": "gpus"}},
]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What Ray says, to be changed: it reports no node types, has no autoscaler and was not started by `ray up`."""
    said: dict[str, Any] = {"types": [], "not placeable": None}
    monkeypatch.setattr(nodes.ray, "nodes", lambda: NODES)
    monkeypatch.setattr(nodes, "reported_node_types", lambda: said["types"])
    monkeypatch.setattr(nodes, "not_placeable", lambda: said["not placeable"])
    monkeypatch.setattr(nodes, "BOOTSTRAP_FILE", tmp_path / "bootstrap.yaml")
    return said


def test_nodes_that_may_come_are_those_of_the_autoscalers_types_that_are_not_there(said: dict[str, Any]):
    assert (
        living_nodes()
        == possible_nodes()
        == {
            "head": Node({"memory": 8.0}),
            "a": Node({"CPU": 8.0, "GPU": 8.0}, {"ray.io/node-group": "gpus"}),
        }
    )
    said["types"] = [("gpus", {"CPU": 8, "GPU": 8}, 3), ("cpus", {"CPU": 4, "disk": 1}, 1), ("never", {"CPU": 1}, 0)]
    assert possible_nodes().keys() - living_nodes().keys() == {"gpus 1", "gpus 2", "cpus 0"}
    assert possible_nodes()["cpus 0"] == Node({"CPU": 4})
    said["types"] = [("endless", {"CPU": 1}, -1)]
    assert len(possible_nodes()) == 2 + nodes.MANY


def test_on_a_head_of_ray_up_the_types_are_those_of_its_config(said: dict[str, Any]):
    kinds = {
        "head": {"resources": {"CPU": 0}},
        "spot": {"resources": {"CPU": 8, "GPU": 8}, "max_workers": 5, "labels": {"ray.io/market-type": "spot"}},
        "demand": {"resources": {"CPU": 8, "GPU": 8}},
    }
    config = {"max_workers": 3, "head_node_type": "head", "available_node_types": kinds}
    nodes.BOOTSTRAP_FILE.write_text(json.dumps(config))
    assert len(possible_nodes()) == 2 + 3 + 3
    assert not refusals([replace(ONE, labels=(("ray.io/market-type", "spot"),))])
    assert refusals([replace(ONE, labels=(("ray.io/market-type", "on-demand"),))])
    # The first autoscaler's nodes do not name their type to Ray, and yet machines come and go.
    assert said["not placeable"] is None
    assert outlook([]).is_autoscaled


def test_what_no_node_could_hold_is_refused_but_not_where_there_may_be_others(said: dict[str, Any]):
    assert refusals([ONE]) == {}
    (words,) = refusals([ONE, LARGE]).values()
    assert words.startswith("asks for 1 CPU, 16 GPU, which this cluster can never hold: it has ")
    said["types"] = [("gpus", {"CPU": 8, "GPU": 8}, 3)]
    assert refusals([LARGE])
    said["types"], said["not placeable"] = [], set()  # an autoscaler that does not say what it may start
    assert refusals([LARGE]) == {}


def test_the_outlook_of_those_who_wait(said: dict[str, Any]):
    assert outlook([ONE, LARGE]) == Outlook(living_nodes(), refusals([LARGE]), set(), is_autoscaled=False)
    said["not placeable"] = {"a group"}
    assert outlook([ONE, LARGE]) == Outlook(living_nodes(), {}, {"a group"}, is_autoscaled=True)
    said["types"] = [("gpus", {"CPU": 8, "GPU": 8}, 3)]
    assert [*outlook([ONE, LARGE]).refused] == [LARGE]


def test_the_largest_machine_may_be_still_to_come(said: dict[str, Any]):
    """As on a cluster that grows from a head alone, for which `auto` makes a field, and a plan counts GPU hours."""
    assert (largest_machine().cpus, largest_machine().gpus) == (8, 8)
    said["types"] = [("huge", {"CPU": 800, "GPU": 80}, 3)]
    assert (largest_machine().cpus, largest_machine().gpus) == (800, 80)
