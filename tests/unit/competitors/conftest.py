"""A tiny seed, a few rows and a brief over them, for every kind."""

from pathlib import Path

import pytest

from cluster.resources import Resources
from competitors.contract import Allowance, Brief
from tests.tiny import tiny_model
from tests.unit.competitors.making import rows_file


@pytest.fixture(scope="session")
def seed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("seed"))


@pytest.fixture(scope="session")
def train_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows_file(tmp_path_factory.mktemp("data") / "train.parquet")


@pytest.fixture
def brief(tmp_path: Path, seed_model: Path, train_data: Path) -> Brief:
    out = tmp_path / "entry" / "submission"
    out.mkdir(parents=True)
    return Brief(
        tournament="t", lineage="l", round=1, competitor="a", seed_model=seed_model, seed_sha256="0",
        seed_continuation=None, train_data=train_data, max_tokens=64, budget=Allowance(steps=10), progress=(0.0, 0.5),
        output_dir=out, random_seed=7, resources=Resources(gpus=0),
    )  # fmt: skip
