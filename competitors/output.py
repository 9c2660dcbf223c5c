"""What lies in an entry's output folder: which model it is, and how what a program left becomes a submission."""

import json
import re
from pathlib import Path
from typing import Any, Literal

from cluster.store import LOCAL
from competitors.untrusted import MAX_JSON_BYTES, refuse_broken_json, refuse_odd_files

Form = Literal["full", "adapter"]


def model_form(folder: Path) -> Form | None:
    """What kind of model lies in `folder`: a PEFT adapter, a full model, or None when neither is complete."""
    if (folder / "adapter_config.json").is_file() and (folder / "adapter_model.safetensors").is_file():
        return "adapter"
    weights = (folder / "model.safetensors").is_file() or (folder / "model.safetensors.index.json").is_file()
    return "full" if weights and (folder / "config.json").is_file() else None


SUBMISSION = re.compile(r".*\.(safetensors|json|model|txt|jinja)")
CODE = re.compile(r".*\.(py|bin|pt|pkl|pth)")
"""What runs code when it is loaded stays where it is, for inspection to reject the submission."""
TRAINER_STATE = re.compile(r"training_args\.bin|(optimizer|scheduler|scaler)\.pt|rng_state.*\.pth")
"""What transformers' Trainer leaves beside its models, and nobody loads."""


def settle_output(output_dir: Path) -> Form | None:
    """Leave the submission, and nothing but it, at the top of `output_dir`; return its form, or None.

    Without a model there, the newest complete `checkpoint-<number>` takes its place; so it does where the model was
    cut off, as it is when its program is killed while it saves. Forfeit when there is anything but plain files: what
    a program has left is never followed out of its folder.
    """
    if not output_dir.is_dir():
        return None
    refuse_odd_files(output_dir)
    there = [p for p in [*checkpoints(output_dir), output_dir] if model_form(p) is not None]
    if not there:
        return None
    # Where nothing is whole, inspection says of the newest why.
    newest = next((p for p in reversed(there) if is_whole(p)), there[-1])
    if newest != output_dir:
        chosen = output_dir.with_name(f".{output_dir.name}.chosen")
        LOCAL.move(newest, chosen)
        LOCAL.move(chosen, output_dir)
    for item in sorted(output_dir.iterdir()):
        is_wanted = SUBMISSION.fullmatch(item.name) or CODE.fullmatch(item.name)
        if item.is_dir() or TRAINER_STATE.fullmatch(item.name) or not is_wanted:
            LOCAL.remove(item)
    refuse_broken_json(output_dir)
    return model_form(output_dir)


def is_whole(folder: Path) -> bool:
    """Whether the weights in `folder` are all there, as far as index and headers tell: no value is read."""
    files = [file for file in sorted(folder.glob("*.safetensors")) if file.is_file()]
    index = folder / "model.safetensors.index.json"
    try:
        named = _json(index, 0, index.stat().st_size)["weight_map"].values() if index.is_file() else []
        return {file.name for file in files}.issuperset(named) and all(map(_is_whole_file, files))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False  # not as safetensors or transformers write them


def _is_whole_file(file: Path) -> bool:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    tensors = [value for name, value in _json(file, 8, length).items() if name != "__metadata__"]
    end = max((tensor["data_offsets"][1] for tensor in tensors), default=0)
    return bool(file.stat().st_size == 8 + length + end)


def _json(file: Path, start: int, length: int) -> Any:
    if length > MAX_JSON_BYTES:
        raise ValueError("too long to be an index or a header")
    with file.open("rb") as stream:
        stream.seek(start)
        return json.loads(stream.read(length))


def checkpoints(output_dir: Path) -> list[Path]:
    """The folders `checkpoint-<number>`, by number."""
    found = [(re.fullmatch(r"checkpoint-([0-9]+)", p.name), p) for p in output_dir.glob("checkpoint-*") if p.is_dir()]
    return [p for _, p in sorted((int(match[1]), p) for match, p in found if match)]
