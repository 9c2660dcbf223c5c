"""Headers and values of weight files. What an index has to do with them: test_inspection.py."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cluster.errors import Forfeit
from evaluation.submissions import weights
from evaluation.submissions.weights import Tensor, as_stored, model_files, model_tensors, pieces, read_headers

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def files(folder: Path) -> dict[str, Path]:
    return {file.name: file for file in folder.iterdir()}


def test_headers_say_file_dtype_and_shape(tmp_path: Path):
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, file)
    assert model_files(files(tmp_path)) == [file]
    start = 8 + struct.unpack("<Q", file.read_bytes()[:8])[0]
    assert model_tensors(files(tmp_path)) == {
        "a": Tensor(file, "F32", (2, 3), start),
        "b": Tensor(file, "BF16", (4,), start + 24),
    }


def test_a_tensor_that_two_files_hold(tmp_path: Path):
    two = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    for file in two:
        save_file({"a": torch.zeros(2)}, file)
    with pytest.raises(Forfeit, match=r"a is in 1\.safetensors and in 2\.safetensors"):
        read_headers(two)


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0garbage!", b"\xff" * 64])
def test_a_file_that_is_none(tmp_path: Path, content: bytes):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(Forfeit, match=r"model\.safetensors cannot be read: "):
        model_tensors(files(tmp_path))


@pytest.mark.parametrize("dtype", FLOATS)
def test_values_are_what_torch_reads(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "PIECE", 7)
    values = (torch.randn(5, 6) * 100).to(FLOATS[dtype])
    save_file({"a": values, "b": torch.tensor(3.0)}, tmp_path / "model.safetensors")
    tensors = read_headers([tmp_path / "model.safetensors"])
    read = list(pieces(tensors["a"]))
    assert [len(piece) for piece in read] == [7, 7, 7, 7, 2]
    assert np.array_equal(np.concatenate(read).reshape(5, 6), values.float().numpy())
    assert [piece.tolist() for piece in pieces(tensors["b"])] == [[3.0]]


@pytest.mark.parametrize("dtype", FLOATS)
def test_rounding_is_that_of_torch(dtype: str):
    values = torch.cat([torch.randn(1000), torch.tensor([0.0, -0.0, 1e30, -3e38, 1e-40])])
    rounded = as_stored(values.numpy(), dtype)
    assert np.array_equal(rounded, values.to(FLOATS[dtype]).float().numpy())
