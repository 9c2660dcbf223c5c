"""A hunting program beside a real Ray whose dashboard takes jobs from anybody: it gets at no held-out row."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.on_ray.ray_workers import RayWorkers
from evaluation.data.splits import read_split
from orchestrator.config.loading import load_config
from orchestrator.driver import WORKER_ENVIRONMENT
from orchestrator.planning.preparation import make_data
from tests.ray_nodes import free_ports
from tests.tournaments import make_inputs, run, write_tournament
from tests.unit.competitors.command.making import PROGRAMS, needs_sandbox


@pytest.mark.slow
@needs_sandbox
def test_a_hunting_entry_gets_nothing_from_ray_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import ray

    shutil.copy(PROGRAMS / "hunting.py", tmp_path)
    config = write_tournament(make_inputs(tmp_path), tmp_path, [{"name": "control", "kind": "unchanged"}], rounds=1)
    make_data(load_config(config), config, tmp_path / "first")
    marker = read_split(tmp_path / "first/held_out/test.parquet")[0].prompt
    shutil.rmtree(tmp_path / "first")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("HF_TOKEN", marker)
    dashboard = int(free_ports(1)[0])
    context = ray.init("local", num_cpus=2, include_dashboard=True, dashboard_port=dashboard, log_to_driver=False)
    workers = RayWorkers(WORKER_ENVIRONMENT)
    try:
        in_the_object_store = ray.put([f"{marker}{number}" for number in range(100_000)])
        ports = f"{dashboard},{context.address_info['gcs_address'].rpartition(':')[2]}"
        told = {"REVERSED": marker[::-1], "PORTS": ports, "HELD_OUT": str(tmp_path / "run/data/held_out/test.parquet")}
        hunter = {"kind": "command", "run": "python hunting.py", "resources": {"memory_gb": 2.0}}
        raw = yaml.safe_load(config.read_text())
        raw["competitors"] = [
            hunter | {"name": "kept", "environment": told},
            hunter | {"name": "free", "environment": told | {"ROOTS": "/nowhere"}, "sandbox": "none"},
        ]
        config.write_text(yaml.safe_dump(raw))
        run(config, tmp_path / "run", workers)
        del in_the_object_store
    finally:
        workers.close()
        ray.shutdown()
    assert found_by("kept", tmp_path / "run") == []
    assert any("runs my jobs" in place for place in found_by("free", tmp_path / "run"))


def found_by(name: str, run_dir: Path) -> Any:
    """What an entry has found, and where."""
    return json.loads((run_dir / "lineages/one/round-001" / name / "log.txt").read_text().splitlines()[-1])
