"""Imports go only along the arrows of the design, and the command line stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "cluster": {"cluster"},
    "competitors": {"competitors", "cluster"},
    "evaluation": {"evaluation", "cluster"},
    "orchestrator": {"orchestrator", "competitors", "evaluation", "cluster"},
}


def imported(file: Path) -> set[str]:
    """Full names of all modules a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_along_the_arrows(package: str):
    for file in files(package):
        ours = {name.split(".")[0] for name in imported(file)} & set(ALLOWED)
        assert ours <= ALLOWED[package], f"{file.relative_to(ROOT)} imports {ours - ALLOWED[package]}"


MADE_OF_RAY = ("competitors/sft/gang.py", "competitors/search/tune.py")
"""Kinds that are made of Ray Train or Ray Tune."""


def test_only_tracking_imports_mlflow_and_only_cluster_and_kinds_made_of_it_import_ray():
    for package in ALLOWED:
        for file in files(package):
            roots = {name.split(".")[0] for name in imported(file)}
            name = str(file.relative_to(ROOT))
            assert "mlflow" not in roots or name == "orchestrator/tracking/mlflow_store.py", name
            assert "ray" not in roots or package == "cluster" or name in MADE_OF_RAY, name


def test_the_command_line_loads_nothing_heavy():
    code = (
        "import sys, orchestrator.cli; print([m for m in ('torch','ray','mlflow','transformers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"
