"""A tiny seed, a few rows and a brief over them, for every kind."""

from pathlib import Path

import pytest

from competitors.contract import Brief
from tests.tiny import tiny_model
from tests.unit.competitors.making import brief_in, rows_file


@pytest.fixture(scope="session")
def seed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("seed"))


@pytest.fixture(scope="session")
def train_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows_file(tmp_path_factory.mktemp("data") / "train.parquet")


@pytest.fixture
def brief(tmp_path: Path, seed_model: Path, train_data: Path) -> Brief:
    return brief_in(tmp_path, seed_model, train_data)
