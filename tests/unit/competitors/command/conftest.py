"""A run directory for a program, quick looks at it, and that nothing of it is left."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.resources import Resources
from competitors.command import supervision
from competitors.contract import Allowance, Brief


@pytest.fixture
def brief(tmp_path: Path) -> Brief:
    """A run directory with other people's work in it, and a seed that looks like a model."""
    run = tmp_path / "runs" / "mine"
    for name in (
        "runs/mine/data/train.parquet",
        "runs/mine/data/held_out/test.parquet",
        "runs/mine/lineages/l/round-001/other/submission/model.safetensors",
        "runs/earlier/data/held_out/test.parquet",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("data")
    seed = tmp_path / "cache" / "snapshot"
    seed.mkdir(parents=True)
    (seed / "config.json").write_text("{}")
    (tmp_path / "cache" / "blob").write_bytes(b"weights")
    (seed / "model.safetensors").symlink_to("../blob")  # as in a Hugging Face cache
    return Brief(
        tournament="t",
        lineage="l",
        round=1,
        competitor="c",
        seed_model=seed,
        seed_sha256="0" * 64,
        seed_continuation=None,
        train_data=run / "data" / "train.parquet",
        max_tokens=32,
        budget=Allowance(tokens=1000, steps=12),
        progress=(0.0, 0.5),
        output_dir=run / "lineages/l/round-001/c/submission",
        random_seed=7,
        resources=Resources(cpus=2, gpus=0),
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STOP_SECONDS", 0.5)
    monkeypatch.setattr(supervision, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(supervision, "DISK_SECONDS", 0.05)


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """After every entry its processes are gone and so are its scratch files."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    before = psutil.Process().children(recursive=True)
    yield
    assert set(psutil.Process().children(recursive=True)) <= set(before)
    assert list((tmp_path / "scratch").iterdir()) == []
