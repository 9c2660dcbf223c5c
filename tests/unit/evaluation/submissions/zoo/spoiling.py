"""What the zoo is made of: ways to write what no library would."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

WHOLE, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"

Spoil = Callable[[Path], None]
Animal = tuple[Spoil, str]
"""How a good submission is spoilt, and a regular expression for the reason."""


@dataclass(frozen=True)
class Places:
    """Folders that a submission may not lead to: its seed's, and another entry's."""

    seed: Path
    other: Path


def configured(**changes: Any) -> Spoil:
    """config.json with other values."""
    return lambda folder: edit_json(folder / "config.json", **changes)


def adapted(**changes: Any) -> Spoil:
    """adapter_config.json with other values."""
    return lambda folder: edit_json(folder / "adapter_config.json", **changes)


def edit_json(file: Path, **changes: Any) -> None:
    """Other values for some keys; None takes a key away."""
    value = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: one for key, one in value.items() if one is not None}))


def written(name: str, content: bytes | str) -> Spoil:
    """A file of that content."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data) and None


def weighted(change: Callable[[dict[str, Any]], Any], file: str = WHOLE) -> Spoil:
    """Weights that were changed in place, written by the library itself."""

    def spoil(folder: Path) -> None:
        weights = load_file(folder / file)
        change(weights)
        save_file(weights, folder / file, metadata={"format": "pt"})

    return spoil


def headed(change: Callable[[dict[str, Any], bytes], bytes | None], file: str = WHOLE) -> Spoil:
    """A header that was changed in place, before data that may be another."""

    def spoil(folder: Path) -> None:
        header, data = split(folder / file)
        join(folder / file, header, data if (other := change(header, data)) is None else other)

    return spoil


def split(file: Path) -> tuple[dict[str, Any], bytes]:
    """A file's header and what follows it."""
    content = file.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8:end]), content[end:]


def join(file: Path, header: dict[str, Any] | str, data: bytes) -> None:
    """A safetensors file of that header, however odd."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def sharded(change: Callable[[dict[str, str], Path], Any] = lambda index, folder: None) -> Spoil:
    """The weights in two files and an index that was changed in place."""

    def spoil(folder: Path) -> None:
        weights = load_file(folder / WHOLE)
        (folder / WHOLE).unlink()
        names = sorted(weights)
        parts = {"model-1.safetensors": names[:9], "model-2.safetensors": names[9:]}
        for file, held in parts.items():
            save_file({name: weights[name] for name in held}, folder / file, metadata={"format": "pt"})
        index = {name: file for file, held in parts.items() for name in held}
        change(index, folder)
        (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))

    return spoil
