"""What a machine says that it lacks."""

from pathlib import Path

from cluster.fitness import lacking, versions


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
