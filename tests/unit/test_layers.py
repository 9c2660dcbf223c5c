"""Imports go only along the arrows of the design, between packages and between rooms, and never in a circle."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "cluster": set[str](),
    "competitors": {"cluster"},
    "evaluation": {"cluster"},
    "orchestrator": {"competitors", "evaluation", "cluster"},
}
"""What each package may import besides itself."""
ROOMS = {
    "cluster.bucket": {"cluster"},
    "cluster.on_ray": {"cluster", "cluster.bucket"},
    "orchestrator.field": set[str](),
    "orchestrator.config": {"orchestrator.field"},
    "orchestrator.record": {"orchestrator.field", "orchestrator.config"},
    "orchestrator.planning": {"orchestrator.field", "orchestrator.config"},
    "orchestrator.starting": {"orchestrator.config", "orchestrator.planning"},
    "orchestrator.rounds": {"orchestrator.field", "orchestrator.config", "orchestrator.record"},
    "orchestrator.views": {"orchestrator.field", "orchestrator.config", "orchestrator.record"},
    "orchestrator.tracking": {"orchestrator.field", "orchestrator.config", "orchestrator.record"},
    "competitors.builtin": set[str](),
    "competitors.command": {"competitors"},
    "competitors.sft": {"competitors"},
    "competitors.soup": {"competitors", "competitors.sft"},
    "competitors.search": {"competitors", "competitors.sft"},
    "evaluation.builtin": set[str](),
    "evaluation.data": {"evaluation.builtin"},
    "evaluation.figures": {"evaluation"},
    "evaluation.submissions": set[str](),
}
"""What each room may import of its own package besides itself; a package's name stands for the files at its top."""
MADE_OF_RAY = ("competitors/sft/ray_train.py", "competitors/search/")
"""Kinds that are made of Ray Train or Ray Tune."""
RAYS_OWN = ("ray._private", "ray.core", "_internal")
"""Parts of Ray that it may change without a word."""


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by name."""
    found = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = file
    return found


@cache
def imported(module: str) -> frozenset[str]:
    """Full names of everything that a module imports anywhere in it: lazily, for types, or at its top."""
    names = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules() else str(node.module) for name in inner}
    return frozenset(names)


def room_of(module: str) -> str:
    """The room that a module of ours lies in, or its package."""
    parts = module.split(".")
    two = ".".join(parts[:2])
    return two if (ROOT / parts[0] / (parts[1] if len(parts) > 1 else "")).is_dir() and len(parts) > 1 else parts[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_along_the_arrows(package: str):
    for module in modules():
        if module.split(".")[0] == package:
            ours = {name.split(".")[0] for name in imported(module)} & set(PACKAGES)
            assert ours <= PACKAGES[package] | {package}, f"{module} imports {ours}"


def test_every_room_is_in_the_table():
    assert {room_of(module) for module in modules()} == {*PACKAGES, *ROOMS}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_along_the_arrows(room: str):
    package = room.split(".")[0]
    for module in modules():
        if room_of(module) == room:
            rooms = {room_of(name) for name in imported(module) if name in modules() and name.startswith(package)}
            assert rooms <= ROOMS[room] | {room}, f"{module} imports {rooms - ROOMS[room] - {room}}"


def test_only_the_table_of_observers_and_the_commands_know_who_looks_on():
    for module in modules():
        rooms = {room_of(name) for name in imported(module) if name in modules()}
        looks_on = rooms & {"orchestrator.views", "orchestrator.tracking"} - {room_of(module)}
        assert not looks_on or module in ("orchestrator.observers", "orchestrator.cli"), module


def test_nothing_imports_itself_in_a_circle():
    def reached(module: str) -> set[str]:
        seen, waiting = set[str](), [module]
        while waiting:
            for name in imported(waiting.pop()):
                if name in modules() and name not in seen:
                    seen.add(name)
                    waiting.append(name)
        return seen

    assert not [module for module in modules() if module in reached(module)]


def test_ray_mlflow_and_obstore_stay_where_they_belong():
    for module, file in modules().items():
        name = file.relative_to(ROOT).as_posix()
        roots = {name.split(".")[0] for name in imported(module)}
        assert "mlflow" not in roots or name == "orchestrator/tracking/mlflow_store.py", name
        assert "ray" not in roots or name.startswith(("cluster/on_ray/", *MADE_OF_RAY)), name
        assert "obstore" not in roots or name.startswith("cluster/bucket/"), name
        private = [one for one in imported(module) if one.startswith("ray.") and any(p in one for p in RAYS_OWN)]
        assert not private or name == "cluster/on_ray/ray_private.py", f"{name} imports {private}"


def test_the_command_line_loads_nothing_heavy():
    heavy = ("torch", "ray", "mlflow", "transformers", "obstore")
    code = f"import sys, orchestrator.cli; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"
