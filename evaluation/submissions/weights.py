"""Weights on the disk: which files hold them, what their headers say, and their values, read in pieces.

An index decides which files a library opens, and a listing of the folder sees others: where the two do not agree,
what is looked at is not what is scored, so that is a `Forfeit`. Everything here is read by NumPy alone, so that the
process that looks at a submission needs no more than that.
"""

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import Forfeit
from cluster.text import plain
from evaluation.submissions.folder import Files, open_plain, parse_object, read_object

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""As safetensors writes them, and their bytes; 8 bits and fewer are no weights to go on training from."""
INTEGERS = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
MOST_HEADER = 16 * 2**20
MOST_INDEX = 16 * 2**20
PIECE = 4 * 2**20
"""Values that are held at once."""

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tensor:
    """What a header says of one tensor: `begin` counts from the start of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int

    @property
    def count(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)


def model_files(files: Files) -> list[Path]:
    """The files that hold a full model's weights: those of its index, or the one file. Forfeit if others lie there."""
    there = {name for name in files if name.endswith(".safetensors")}
    named = set(_index(files).values()) if INDEX in files else {WHOLE}
    if absent := sorted(named - there):
        by = f"{INDEX} names {absent[0]}, which is" if INDEX in files else f"{absent[0]} is"
        raise Forfeit(plain(f"{by} not there"))
    if others := sorted(there - named):
        raise Forfeit(plain(f"{others[0]} lies beside the model's weights and is none of them"))
    if WHOLE in named and len(named) > 1:  # which file is opened depends on the library
        raise Forfeit(f"{INDEX} names {WHOLE} beside other files")
    return [files[name] for name in sorted(named)]


def model_tensors(files: Files) -> dict[str, Tensor]:
    """The headers of a full model's weights. Forfeit where an index says otherwise."""
    chosen = {name: files[name] for name in files if files[name] in model_files(files)}
    tensors = read_headers(chosen.values())
    if INDEX in files:
        index = _index(files)
        for name, file in index.items():
            if name not in tensors or tensors[name].file != chosen[file]:
                raise Forfeit(plain(f"{file} lacks {name}, which {INDEX} lists there"))
        if unlisted := sorted(tensors.keys() - index.keys()):
            raise Forfeit(plain(f"{tensors[unlisted[0]].file.name} holds {unlisted[0]}, which {INDEX} does not list"))
    return tensors


def _index(files: Files) -> dict[str, str]:
    """Which file holds which tensor."""
    named = read_object(files[INDEX], MOST_INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(file, str) for file in named.values()):
        raise Forfeit(f"{INDEX} lists no weights")
    return named


def read_headers(files: Iterable[Path]) -> dict[str, Tensor]:
    """What the headers of these files say; no value is read."""
    tensors: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in _header(file).items():
            if name in tensors:
                raise Forfeit(plain(f"{name} is in {tensors[name].file.name} and in {file.name}"))
            tensors[name] = tensor
    return tensors


def _header(file: Path) -> dict[str, Tensor]:
    """One file's tensors. Forfeit unless they fill it without a gap and without sharing a byte."""
    with os.fdopen(open_plain(file), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise Forfeit(plain(f"{file.name} cannot be read: it is cut off, or no safetensors file"))
        if length > MOST_HEADER:
            raise Forfeit(plain(f"{file.name} cannot be read: its header claims {length:,} bytes"))
        header = parse_object(stream.read(length), file.name)
    header.pop("__metadata__", None)
    tensors: dict[str, Tensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name, value in header.items():
        begin, end, tensors[name] = _tensor(file, name, value, 8 + length)
        spans.append((begin, end, name))
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            how = "overlaps another" if begin < at else "leaves a gap before it"
            raise Forfeit(plain(f"{file.name} cannot be read: {name} {how}"))
        at = end
    if at != size - 8 - length:
        how = "is cut off" if at > size - 8 - length else "holds bytes that are no tensor's"
        raise Forfeit(plain(f"{file.name} cannot be read: it {how}"))
    return tensors


def _tensor(file: Path, name: str, value: Any, start: int) -> tuple[int, int, Tensor]:
    """Where it begins and ends behind the header, and what it is."""
    try:
        dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
        sizes = [*shape, begin, end]
        if not all(type(number) is int and 0 <= number < 2**48 for number in sizes):
            raise ValueError("a size that is none")
    except (KeyError, TypeError, ValueError) as error:
        raise Forfeit(plain(f"{file.name} cannot be read: what it says of {name} is no tensor")) from error
    bytes_of = (FLOATS | INTEGERS).get(dtype) if isinstance(dtype, str) else None
    if bytes_of is None:
        raise Forfeit(plain(f"{file.name}: {name} is stored as {dtype}, which no model trains on from"))
    if math.prod(shape) * bytes_of != end - begin:
        raise Forfeit(plain(f"{file.name} cannot be read: {name} has not the bytes that its shape needs"))
    return begin, end, Tensor(file, dtype, tuple(shape), start + begin)


def pieces(tensor: Tensor) -> Iterator[Float32s]:
    """A tensor of floats as float32, a piece after the other, without its shape."""
    with os.fdopen(open_plain(tensor.file), "rb", buffering=0) as stream:
        stream.seek(tensor.begin)
        for start in range(0, tensor.count, PIECE):
            yield _float32(_read(stream, tensor, min(PIECE, tensor.count - start)), tensor.dtype)


def _read(stream: Any, tensor: Tensor, count: int) -> bytes:
    wanted = count * FLOATS[tensor.dtype]
    data = bytearray()
    while len(data) < wanted:
        if not (part := stream.read(wanted - len(data))):
            raise Forfeit(plain(f"{tensor.file.name} cannot be read: it was cut off meanwhile"))
        data += part
    return bytes(data)


def _float32(data: bytes, dtype: str) -> Float32s:
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and that is no weight
        return np.frombuffer(data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32)


def as_stored(values: Float32s, dtype: str) -> Float32s:
    """The values as they would be read back from that dtype."""
    if dtype == "BF16":
        bits = values.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32) if dtype == "F16" else values
