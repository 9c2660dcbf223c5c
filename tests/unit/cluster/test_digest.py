"""What makes a model another one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cluster.digest import model_sha256, sha256_of


def adapter(folder: Path, **changes: Any) -> Path:
    config = {"r": 8, "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "/here", "peft_version": "1"}
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(changes.pop("weights", b"weights"))
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    return folder


def test_a_file(tmp_path: Path):
    (tmp_path / "it").write_bytes(b"it")
    assert sha256_of(tmp_path / "it") == hashlib.sha256(b"it").hexdigest()


@pytest.mark.parametrize(
    "same",
    [{"base_model_name_or_path": "/there"}, {"target_modules": ["v_proj", "q_proj"]}, {"peft_version": "2"}],
)
def test_where_it_lay_and_in_which_order_a_set_was_written_make_no_other_model(tmp_path: Path, same: dict[str, Any]):
    assert model_sha256(adapter(tmp_path / "one")) == model_sha256(adapter(tmp_path / "two", **same))


@pytest.mark.parametrize("other", [{"r": 4}, {"target_modules": ["q_proj"]}, {"weights": b"others"}])
def test_rank_targets_and_weights_do(tmp_path: Path, other: dict[str, Any]):
    assert model_sha256(adapter(tmp_path / "one")) != model_sha256(adapter(tmp_path / "two", **other))


def test_a_files_name_and_place_count(tmp_path: Path):
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two")
    (two / "adapter_model.safetensors").rename(two / "renamed.safetensors")
    assert model_sha256(one) != model_sha256(two)


def test_a_config_that_is_none_counts_byte_by_byte(tmp_path: Path):
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two")
    for folder, text in ((one, "{"), (two, "{ ")):
        (folder / "config.json").write_text(text)
    assert model_sha256(one) != model_sha256(two)
    (two / "config.json").write_text("{")
    assert model_sha256(one) == model_sha256(two)
