"""What a machine says that it lacks."""

from pathlib import Path

import pytest

from cluster.on_ray import fitness
from cluster.on_ray.fitness import accelerator_of, lacking, versions


def test_this_machine_lacks_nothing(tmp_path: Path):
    assert lacking(versions(), tmp_path) == []
    assert lacking({"trl": None}, None) == []  # nor has the driver


def test_what_is_missing_or_another_version_or_not_shared_is_said(tmp_path: Path):
    wanted = versions() | {"trl": "0.0.1"}
    proof = tmp_path / "run" / ".lock"
    assert lacking(wanted, proof) == [
        f"trl 0.0.1 (it has {versions()['trl']})",
        f"the folder {tmp_path / 'run'}, which all nodes have to share",
    ]


@pytest.mark.parametrize(("build", "lacks"), [("2.13.0+cpu", True), ("2.13.0", False), ("2.13.0+cu130", False)])
def test_an_image_without_cuda_on_a_node_with_a_gpu_is_said(monkeypatch: pytest.MonkeyPatch, build: str, lacks: bool):
    monkeypatch.setattr(fitness, "version", lambda name: build if name == "torch" else "1")
    monkeypatch.setattr(fitness, "_sees_gpus", lambda: True)
    wanted = {"torch": "2.13.0"}
    assert lacking(wanted, None, "L40S") == (["a torch for its L40S (it has 2.13.0+cpu)"] if lacks else [])
    assert lacking(wanted, None) == []


def test_a_gpu_that_torch_does_not_see_is_said(monkeypatch: pytest.MonkeyPatch):
    """As without a driver, or in a container without NVIDIA's runtime: it would train on the CPU, at a GPU's price."""
    monkeypatch.setattr(fitness, "version", lambda name: "2.13.0+cu130")
    monkeypatch.setattr(fitness, "SEES_GPUS", "import sys; sys.exit(7)")
    (lack,) = lacking({"torch": "2.13.0"}, None, "L40S")
    assert lack == "a way to its L40S: torch sees no GPU (NVIDIA's driver, the container's runtime?)"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    shows = "import os, sys; sys.exit(7 * ('CUDA_VISIBLE_DEVICES' in os.environ))"
    for code in (shows, "import sys; sys.exit(1)", "import time; time.sleep(9)"):  # no answer says nothing against it
        monkeypatch.setattr(fitness, "SEES_GPUS", code)
        monkeypatch.setattr(fitness, "LOOK_SECONDS", 0.5 if "sleep" in code else 60.0)
        assert lacking({"torch": "2.13.0"}, None, "L40S") == []


@pytest.mark.parametrize(
    ("resources", "labels", "kind"),
    [
        ({"CPU": 4.0, "accelerator_type:L4": 1.0, "GPU": 2.0}, {}, "L4"),
        ({"GPU": 2.0}, {"ray.io/accelerator-type": "L4"}, "L4"),
        ({"GPU": 2.0}, {}, None),
        ({"CPU": 4.0}, {"ray.io/accelerator-type": "L4"}, None),
    ],
)
def test_which_gpu_a_node_is_said_to_have(resources: dict[str, float], labels: dict[str, str], kind: str | None):
    assert accelerator_of({"Resources": resources, "Labels": labels}) == kind


def test_a_store_that_does_not_let_the_machine_in_is_said(tmp_path: Path):
    (tmp_path / "store").mkdir()
    assert lacking({}, f"file://{tmp_path}/store") == []
    (lack,) = lacking({}, f"file://{tmp_path}/nothing")
    assert lack.startswith(f"a way into the storage: storage: file://{tmp_path}/nothing: ")
