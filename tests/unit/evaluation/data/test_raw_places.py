"""Where raw rows lie besides the run directory."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from evaluation.data import raw_places as module
from evaluation.data.raw_places import raw_places


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of a data set and of a model, with a token."""
    home = tmp_path / "hf"
    for name in ("hub/datasets--o--n", "hub/models--o--n", "datasets/o___n", "xet"):
        (home / name).mkdir(parents=True)
    (home / "token").touch()
    for name, place in {"HF_HOME": "", "HF_HUB_CACHE": "hub", "HF_XET_CACHE": "xet", "HF_TOKEN_PATH": "token"}.items():
        monkeypatch.setattr(constants, name, str(home / place))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    return home


def test_files_their_history_and_the_caches(tmp_path: Path, caches: Path):
    (tmp_path / "p" / "data").mkdir(parents=True)
    (tmp_path / "p" / ".git").mkdir()
    for name in ("a.jsonl", "b.jsonl", "c.txt"):
        (tmp_path / "p" / "data" / name).touch()
    places = {str(path.relative_to(tmp_path)) for path in raw_places(["data/*.jsonl", "hf://o/n"], tmp_path / "p")}
    assert places == {
        *("p/data/a.jsonl", "p/data/b.jsonl", "p/.git"),
        *("hf/datasets", "hf/hub/datasets--o--n", "hf/xet", "hf/token"),
    }


def test_rows_that_are_made_by_our_own_code_lie_in_it(tmp_path: Path):
    assert Path(module.__file__).parents[1] / "builtin" in raw_places("builtin:quickstart", tmp_path)


def test_data_that_are_gone_hide_nothing(tmp_path: Path, caches: Path):
    assert all(path.is_relative_to(caches) for path in raw_places("data/*.jsonl", tmp_path))
