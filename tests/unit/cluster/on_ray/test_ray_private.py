"""Ray's private modules are asked in one file, which loads none of Ray before that."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from ray.air.execution.resources import ResourceRequest
from ray.air.execution.resources.placement_group import PlacementGroupResourceManager
from ray.tune.execution import tune_controller

from cluster.on_ray.ray_private import train_within, tune_within

CLUSTER = Path(__file__).parents[4] / "cluster"


def test_it_and_the_way_to_ray_load_nothing_heavy():
    modules = "cluster.on_ray.ray_private, cluster.on_ray.connect, cluster.in_process"
    code = f"import sys, {modules}; print('ray' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CLUSTER.parent
    )
    assert result.stdout.strip() == "False"


def test_no_other_file_here_knows_a_private_module_of_ray():
    for file in CLUSTER.glob("*.py"):
        private = any(word in file.read_text() for word in ("ray._private", "_internal", "ray.core.generated"))
        assert private == (file.name == "ray_private.py"), file.name


def test_ray_train_and_tune_can_still_be_lent_a_group():
    """Asserts in itself that what it replaces is there; that it works, only real gangs show (tests/integration)."""
    group = SimpleNamespace(bundle_count=2)
    assert train_within(group) is not None
    request = ResourceRequest([{"CPU": 1}])
    with tune_within(group):
        manager = tune_controller.PlacementGroupResourceManager()
        for _ in range(3):
            manager.request_resources(request)
        taken = [manager.acquire_resources(request) for _ in range(3)]
        assert [one and one.index for one in taken] == [0, 1, None]
        manager.free_resources(taken[1])
        assert manager.acquire_resources(request).index == 1
    assert tune_controller.PlacementGroupResourceManager is PlacementGroupResourceManager
