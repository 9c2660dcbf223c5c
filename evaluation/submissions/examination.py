"""Looking at a submission's files: are they those of a whole, finite model that its seed asks for?

A pure function of what lies on the disk and of what the seed asks; it loads neither torch nor transformers, and is run
in a process of its own (see apart.py). On the way, every value is read once, so it also says what the values are, by a
hash that knows neither files nor dtypes, and how far they are from the seed's.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cluster.errors import Forfeit
from cluster.text import plain
from evaluation.submissions.adapter_config import rebuilt
from evaluation.submissions.asked import Asked, Shapes
from evaluation.submissions.folder import ADAPTER_CONFIG, CONFIG, Files, plain_files, read_object
from evaluation.submissions.model_config import compare_configs
from evaluation.submissions.weights import ADAPTER, FLOATS, Tensor, as_stored, model_tensors, pieces, read_headers

Form = Literal["full", "adapter"]
NEAR = 2e-4
"""Of a submission that moved its seed's weights by less than this share of their length it is said so."""
PEFTS, BASE_LAYER = "base_model.model.", ".base_layer."
"""What PEFT puts before and into the names of a model's own weights."""
NAMED = 3
"""Missing weights that are named."""
LORA_A, LORA_B = re.compile(r"\.lora_(embedding_)?A(\.weight)?$"), r".lora_\1B\2"


@dataclass(frozen=True)
class Findings:
    """What a submission is. `content` is a hash of its values, `distance` how far they are from the seed's, relative
    to the length of the seed's own; None where that cannot be told."""

    content: str
    distance: float | None


def examine(folder: Path, form: Form, asked: Asked, hub_links: bool = False) -> Findings:
    """What lies in `folder`. Forfeit, with the reason in words, if it is not what the seed asks for."""
    files = plain_files(folder, asked.most_bytes, hub_links)
    if form == "adapter":
        return _examine_adapter(files, asked)
    if ADAPTER_CONFIG in files or ADAPTER in files:
        raise Forfeit("holds an adapter beside a full model's weights: hand in one or the other")
    if CONFIG not in files:
        raise Forfeit("config.json is missing")
    compare_configs(read_object(files[CONFIG]), asked.config, asked.full)
    tensors = model_tensors(files)
    _check_names(tensors, asked)
    _check_dtypes(tensors, asked)
    _check_tied(tensors, asked)
    return _measured(tensors, asked)


def _check_names(tensors: Mapping[str, Tensor], asked: Asked) -> None:
    """Every weight of the seed and no other, in one of the two namings, in its shape."""
    tied = {asked.key(name) for name in asked.tied}
    ours = {name for name in tensors if asked.key(name) not in tied}
    wanted = [{name for name in shapes if asked.key(name) not in tied} for shapes in asked.namings]
    nearest = min(range(len(wanted)), key=lambda index: len(wanted[index] ^ ours))
    if missing := sorted(wanted[nearest] - ours):
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise Forfeit(plain(f"lacks {', '.join(missing[:NAMED])}{more}: they would be drawn at random"))
    if others := sorted(ours - wanted[nearest]):
        raise Forfeit(plain(f"{tensors[others[0]].file.name} holds {others[0]}, which the seed has not"))
    by_key: dict[str, str] = {}
    for name in tensors:
        if (other := by_key.setdefault(asked.key(name), name)) != name:
            raise Forfeit(plain(f"holds {other} and {name}, which are one weight"))
    shapes: Shapes = {asked.key(name): shape for naming in asked.namings for name, shape in naming.items()}
    for name, tensor in tensors.items():
        key = asked.key(name)
        shape = shapes.get(key, shapes.get(asked.key(asked.tied.get(name, ""))))
        if tensor.shape != shape:
            raise Forfeit(plain(f"{tensor.file.name}: {name} has shape {tensor.shape}, the seed's has {shape}"))


def _check_dtypes(tensors: Mapping[str, Tensor], asked: Asked) -> None:
    for name, tensor in tensors.items():
        theirs = asked.stored.get(asked.key(name))
        if tensor.dtype not in FLOATS and (theirs is None or theirs.dtype != tensor.dtype):
            raise Forfeit(
                plain(f"{tensor.file.name}: {name} is stored as {tensor.dtype}, which no model trains on from")
            )


def _check_tied(tensors: Mapping[str, Tensor], asked: Asked) -> None:
    """Where the seed has one weight under two names, so has the submission, or it says the same under both."""
    by_key = {asked.key(name): tensor for name, tensor in tensors.items()}
    for name, other in asked.tied.items():
        one, two = by_key.get(asked.key(name)), by_key.get(asked.key(other))
        if one is not None and two is not None and not _alike(one, two):
            raise Forfeit(plain(f"{name} and {other} are one weight in the seed, and two here"))


def same_values(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether all weights of two models, by key, are the same but for rounding to the dtype of the first."""
    return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in sorted(one))


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype not in FLOATS or other.dtype not in FLOATS:
        return one.shape == other.shape and one.dtype == other.dtype
    return all(
        np.array_equal(ours, as_stored(theirs, one.dtype))
        for ours, theirs in zip_longest(pieces(one), pieces(other), fillvalue=np.empty(0, np.float32))
    )


def _measured(tensors: Mapping[str, Tensor], asked: Asked) -> Findings:
    """Read every value once. Forfeit where one is not finite."""
    digest, moved, length = hashlib.sha256(), 0.0, 0.0
    tied = {asked.key(name) for name in asked.tied}
    for name in sorted(tensors, key=asked.key):
        tensor, key = tensors[name], asked.key(name)
        if tensor.dtype not in FLOATS:
            continue
        seeds = asked.stored.get(key)
        comparable = seeds is not None and seeds.dtype in FLOATS and seeds.shape == tensor.shape and key not in tied
        theirs = pieces(seeds) if comparable and seeds is not None else iter(())
        if key not in tied:
            digest.update(f"{key}\0{tensor.shape}\0".encode())
        for ours in pieces(tensor):
            _refuse_not_finite(name, ours)
            if key not in tied:
                digest.update((ours + np.float32(0)).tobytes())  # there are two zeros
            if (their := next(theirs, None)) is not None:
                moved += _square(ours - as_stored(their, tensor.dtype))
                length += _square(their)
    return Findings(digest.hexdigest(), math.sqrt(moved / length) if length else None)


def _refuse_not_finite(name: str, values: Any) -> None:
    if not np.isfinite(values).all():
        raise Forfeit(plain(f"{name} holds values that are not finite in float32: training diverged"))


def _square(values: Any) -> float:
    wide = values.astype(np.float64)
    return float(wide @ wide)


def _examine_adapter(files: Files, asked: Asked) -> Findings:
    """An adapter's config and values. Whether it has the weights that its config promises, a trial says."""
    for name in (ADAPTER_CONFIG, ADAPTER):
        if name not in files:
            raise Forfeit(f"{name} is missing")
    if others := sorted(name for name in files if name.endswith(".safetensors") and name != ADAPTER):
        raise Forfeit(plain(f"{others[0]} lies beside the adapter's weights and is none of them"))
    settings = rebuilt(read_object(files[ADAPTER_CONFIG]), asked.modules)
    tensors = read_headers([files[ADAPTER]])
    if not tensors:
        raise Forfeit("the adapter has no weights")
    _check_base_weights(tensors, settings, asked)
    digest = hashlib.sha256(repr(sorted(settings.items(), key=str)).encode())
    for name, tensor in sorted(tensors.items()):
        if tensor.dtype not in FLOATS:
            raise Forfeit(plain(f"{ADAPTER}: {name} is stored as {tensor.dtype}, which no model trains on from"))
        digest.update(f"{name}\0{tensor.shape}\0".encode())
        for values in pieces(tensor):
            _refuse_not_finite(name, values)
            digest.update((values + np.float32(0)).tobytes())
    return Findings(digest.hexdigest(), _reach(settings, tensors, asked))


def _check_base_weights(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], asked: Asked) -> None:
    """PEFT stores the seed's embeddings beside an adapter on them: as they are, since they are not loaded."""
    replaced = tuple(f".{name}.weight" for name in settings.get("modules_to_save") or ())
    for name, tensor in tensors.items():
        base = name.removeprefix(PEFTS).replace(BASE_LAYER, ".")
        theirs = asked.stored.get(asked.key(base))
        if theirs is not None and not name.endswith(replaced) and not _alike(tensor, theirs):
            raise Forfeit(plain(f"the adapter holds {base} of the seed, with other values"))


def _reach(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], asked: Asked) -> float | None:
    """How far an adapter moves the weights that it changes, relative to their length. None where that is not simple."""
    if settings["peft_type"] == "IA3" and all(".ia3_l" in name for name in tensors):
        values = np.concatenate([piece for tensor in tensors.values() for piece in pieces(tensor)])
        return float(np.sqrt(_square(values - 1) / len(values)))
    moved, length = 0.0, 0.0
    for name, first in tensors.items():
        if not LORA_A.search(name):
            continue
        second = tensors.get(LORA_A.sub(LORA_B, name))
        module = LORA_A.sub("", name).removeprefix(PEFTS)
        weight = asked.stored.get(asked.key(f"{module}.weight"))
        if second is None or weight is None or len(first.shape) != 2 or len(second.shape) != 2:
            return None
        if first.shape[0] != second.shape[1] or weight.dtype not in FLOATS:
            return None
        a, b = _whole(first), _whole(second)
        moved += _scale(settings, module, first.shape[0]) ** 2 * float(np.sum((a @ a.T) * (b.T @ b)))
        length += sum(_square(piece) for piece in pieces(weight))
    own = [name for name in tensors if asked.key(name.removeprefix(PEFTS).replace(BASE_LAYER, ".")) not in asked.stored]
    is_all = all(".lora_A" in name or ".lora_B" in name or ".lora_embedding_" in name for name in own)
    return math.sqrt(max(0.0, moved) / length) if length and is_all else None


def _whole(tensor: Tensor) -> Any:
    return np.concatenate(list(pieces(tensor))).reshape(tensor.shape).astype(np.float64)


def _scale(settings: Mapping[str, Any], module: str, rank: int) -> float:
    alphas: Mapping[str, float] = settings.get("alpha_pattern") or {}
    named = (alpha for end, alpha in alphas.items() if module == end or module.endswith(f".{end}"))
    alpha = next(named, settings.get("lora_alpha", 8.0))
    return float(alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank))
