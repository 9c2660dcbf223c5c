"""A submission's fault is a Forfeit in one plain line; the machine's passes as it was raised."""

import errno
import re
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from cluster.errors import Forfeit
from evaluation.submissions.faults import of_submission


@pytest.mark.parametrize(
    "error",
    [
        re.error("bad pattern"),
        AssertionError("padding"),
        RecursionError("too deep"),
        SafetensorError("header too large"),
        FileNotFoundError(errno.ENOENT, "No such file", "shard"),
        KeyError("r"),
        ZeroDivisionError("division"),
    ],
)
def test_whatever_a_submission_makes_libraries_raise(error: Exception):
    with pytest.raises(Forfeit, match=r"^x\.json cannot be read: .+") as raised, of_submission("x.json cannot be read"):
        raise error
    assert raised.value.__cause__ is error


def test_the_reason_is_one_short_plain_line():
    with pytest.raises(Forfeit) as raised, of_submission("x"):
        raise ValueError("a\nb\x1b[31m" * 1000)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) <= 300


def test_an_error_without_words_is_named():
    with pytest.raises(Forfeit, match="x: AssertionError"), of_submission("x"):
        raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OSError(errno.EMFILE, "Too many open files"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        SafetensorError("I/O error: Input/output error (os error 5)"),
        KeyboardInterrupt(),
    ],
)
def test_the_machines_trouble_passes(error: BaseException):
    with pytest.raises(type(error)) as raised, of_submission("x"):
        raise error
    assert raised.value is error


@pytest.mark.parametrize("said", ["No space left on device", "Input/output error (os error 5)", "Stale file handle"])
def test_a_submission_that_only_speaks_of_storage_stops_nothing(tmp_path: Path, said: str):
    """A model type of that name, say, which transformers repeats: the files themselves can be read."""
    (tmp_path / "config.json").write_text(said)
    with pytest.raises(Forfeit, match=r"^config\.json cannot be read: ") as raised:
        with of_submission("config.json cannot be read", tmp_path):
            raise ValueError(f"unknown model type `{said}`")
    assert said in str(raised.value)


def test_storage_that_a_library_only_speaks_of_is_the_machines_where_the_files_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("evaluation.submissions.faults.sha256_of", broken)
    with pytest.raises(SafetensorError), of_submission("x", tmp_path):
        raise SafetensorError("I/O error: Input/output error (os error 5)")


def test_a_folder_that_is_gone_is_the_machines(tmp_path: Path):
    with pytest.raises(ValueError, match="words"), of_submission("x", tmp_path / "gone"):
        raise ValueError("words")


def test_a_forfeit_passes_as_it_is():
    with pytest.raises(Forfeit, match=r"^own words$"), of_submission("x"):
        raise Forfeit("own words")
