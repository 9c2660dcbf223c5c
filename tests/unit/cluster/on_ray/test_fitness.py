"""What a machine says that it lacks."""

from pathlib import Path

import pytest

from cluster.on_ray import fitness
from cluster.on_ray.fitness import lacking, versions


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
    wanted = {"torch": "2.13.0"}
    assert lacking(wanted, None, "L40S") == (["a torch for its L40S (it has 2.13.0+cpu)"] if lacks else [])
    assert lacking(wanted, None) == []


def test_a_store_that_does_not_let_the_machine_in_is_said(tmp_path: Path):
    (tmp_path / "store").mkdir()
    assert lacking({}, f"file://{tmp_path}/store") == []
    (lack,) = lacking({}, f"file://{tmp_path}/nothing")
    assert lack.startswith(f"a way into the storage: storage: file://{tmp_path}/nothing: ")
