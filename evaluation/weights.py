"""The weights of a folder: which files they are, what their headers say, and whether every value is a number.

An index decides which files a library opens, and a listing of the folder sees others: where the two do not agree,
what is looked at is not what is scored, so that is a `Forfeit`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import Forfeit
from cluster.text import plain
from evaluation.faults import of_submission

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
FLOATS = {"F64", "F32", "F16", "BF16"}
"""As safetensors writes them; 8 bits and fewer are no weights to go on training from."""
INTEGERS = {"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


@dataclass(frozen=True)
class Tensor:
    """What a header says of one tensor."""

    file: str
    dtype: str
    shape: list[int]


def model_files(folder: Path) -> list[Path]:
    """The files that hold a full model's weights: those of its index, or the one file. Forfeit if others lie there."""
    there = {file.name for file in folder.glob("*.safetensors") if file.is_file()}
    named = set(_index(folder).values()) if (folder / INDEX).exists() else {WHOLE}
    if absent := sorted(named - there):
        by = f"{INDEX} names {absent[0]}, which is" if (folder / INDEX).exists() else f"{absent[0]} is"
        raise Forfeit(plain(f"{by} not there"))
    if others := sorted(there - named):
        raise Forfeit(plain(f"{others[0]} lies beside the model's weights and is none of them"))
    if WHOLE in named and len(named) > 1:  # which file is opened depends on the library
        raise Forfeit(f"{INDEX} names {WHOLE} beside other files")
    return [folder / name for name in sorted(named)]


def model_tensors(folder: Path) -> dict[str, Tensor]:
    """The headers of a full model's weights. Forfeit where an index says otherwise."""
    tensors = read_headers(model_files(folder))
    if (folder / INDEX).exists():
        index = _index(folder)
        for name, file in index.items():
            if name not in tensors or tensors[name].file != file:
                raise Forfeit(plain(f"{file} lacks {name}, which {INDEX} lists there"))
        if unlisted := sorted(tensors.keys() - index.keys()):
            raise Forfeit(plain(f"{tensors[unlisted[0]].file} holds {unlisted[0]}, which {INDEX} does not list"))
    return tensors


def _index(folder: Path) -> dict[str, str]:
    """Which file holds which tensor."""
    with of_submission(f"{INDEX} cannot be read", folder):
        index = json.loads((folder / INDEX).read_bytes())
        files: dict[str, str] = dict(index["weight_map"])
        if not files or not all(isinstance(file, str) for file in files.values()):
            raise Forfeit(f"{INDEX} lists no weights")
    return files


def read_headers(files: Iterable[Path]) -> dict[str, Tensor]:
    """What the headers of these files say; no value is read."""
    from safetensors import safe_open

    tensors: dict[str, Tensor] = {}
    for file in files:
        with of_submission(f"{file.name} cannot be read", file), safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - safe_open is no dict
                if name in tensors:
                    raise Forfeit(plain(f"{name} is in {tensors[name].file} and in {file.name}"))
                part = opened.get_slice(name)
                tensors[name] = Tensor(file.name, str(part.get_dtype()), list(part.get_shape()))
    return tensors


def check_values(files: Iterable[Path]) -> None:
    """Look at every value of these files. Forfeit where one is not finite."""
    import torch
    from safetensors import safe_open

    for file in files:
        with of_submission(f"{file.name} cannot be read", file), safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                tensor = opened.get_tensor(name)
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise Forfeit(plain(f"{name} holds values that are not finite: training diverged"))
