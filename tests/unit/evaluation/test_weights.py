"""Headers and values of weight files. What an index has to do with them: test_inspection.py."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cluster.errors import Forfeit
from evaluation.weights import Tensor, check_values, model_files, model_tensors, read_headers


def test_headers_say_file_dtype_and_shape(tmp_path: Path):
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    assert model_files(tmp_path) == [tmp_path / "model.safetensors"]
    assert model_tensors(tmp_path) == {
        "a": Tensor("model.safetensors", "F32", [2, 3]),
        "b": Tensor("model.safetensors", "BF16", [4]),
    }


def test_a_tensor_that_two_files_hold(tmp_path: Path):
    files = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    for file in files:
        save_file({"a": torch.zeros(2)}, file)
    with pytest.raises(Forfeit, match=r"a is in 1\.safetensors and in 2\.safetensors"):
        read_headers(files)


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0garbage!", b"\xff" * 64])
def test_a_file_that_is_none(tmp_path: Path, content: bytes):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(Forfeit, match=r"model\.safetensors cannot be read: "):
        model_tensors(tmp_path)


def test_every_value_is_looked_at(tmp_path: Path):
    values = torch.zeros(1000)
    file = tmp_path / "model.safetensors"
    save_file({"a": values, "n": torch.ones(2, dtype=torch.int64)}, file)
    check_values([file])
    values[-1] = torch.inf
    save_file({"a": values}, file)
    with pytest.raises(Forfeit, match="a holds values that are not finite"):
        check_values([file])
