"""What a seed asks of a submission that stands on it: its config, the names and shapes of its weights, its modules.

Found out once for a seed, in a process that may trust it, and passed to the one that looks at submissions.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.submissions.folder import BESIDE_WEIGHTS, CONFIG, Files, read_object
from evaluation.submissions.weights import INDEX, WHOLE, Tensor, model_tensors

Shapes = dict[str, tuple[int, ...]]
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

_found: dict[tuple[Any, ...], "Asked"] = {}


@dataclass(frozen=True)
class Asked:
    """`namings` are the two ways to name the weights: as the seed's own files do, and as its model's class does."""

    config: dict[str, Any]
    """The seed's config.json."""
    full: dict[str, Any]
    """The same with every default."""
    namings: tuple[Shapes, ...]
    tied: dict[str, str]
    """By the name of a weight: that of the weight that it is, too."""
    prefix: str
    """What names of the decoder's weights begin with in one naming, and not always in the other."""
    stored: dict[str, Tensor]
    """The seed's weights on the disk, by key."""
    modules: tuple[str, ...]

    def key(self, name: str) -> str:
        """What a weight is called in either naming."""
        return name.removeprefix(self.prefix)

    @property
    def most_bytes(self) -> int:
        """How large a submission may be: its weights in the widest dtype, and a tokenizer."""
        return BESIDE_WEIGHTS + 8 * max(sum(math.prod(shape) for shape in shapes.values()) for shapes in self.namings)


def asked_by(seed: Path) -> Asked:
    """What the model in `seed`, which is trusted, asks of submissions."""
    states = [(file.name, file.stat()) for file in sorted(seed.iterdir()) if file.suffix in (".safetensors", ".json")]
    key = (str(seed.resolve()), *((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in states))
    if key not in _found:
        _found.clear()
        _found[key] = _find_out(seed)
    return _found[key]


def weights_of(folder: Path) -> dict[str, Tensor]:
    """The weights of a model folder that is trusted: what else lies there is not looked at."""
    files: Files = {file.name: file.resolve() for file in folder.iterdir() if file.is_file()}
    named = {INDEX} if INDEX in files else set()
    if INDEX in files:
        named |= set(json.loads(files[INDEX].read_bytes())["weight_map"].values())
    else:
        named.add(WHOLE)
    return model_tensors({name: path for name, path in files.items() if name in named})


def _find_out(seed: Path) -> Asked:
    model = empty_model(seed)
    stored = weights_of(seed)
    prefix = f"{model.base_model_prefix}."
    named = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return Asked(
        config=read_object((seed / CONFIG).resolve()),
        full=json.loads(model.config.to_json_string(use_diff=False)),
        namings=({name: tensor.shape for name, tensor in stored.items()}, named),
        tied=dict(getattr(model, "all_tied_weights_keys", None) or {}),
        prefix=prefix,
        stored={name.removeprefix(prefix): tensor for name, tensor in stored.items()},
        modules=tuple(name for name, _ in model.named_modules() if name),
    )


def empty_model(seed: Path) -> Any:
    """The seed's model without its values, which takes no memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(seed, trust_remote_code=False)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def dtype_of(tensors: dict[str, Tensor]) -> str:
    """The dtype, as torch calls it, that most of these weights are stored in: what a model of them computes in."""
    stored = Counter(dict.fromkeys(DTYPES, 0))
    for tensor in tensors.values():
        stored[tensor.dtype] += tensor.count
    return DTYPES[max(DTYPES, key=lambda dtype: stored[dtype])]


def files_of(folder: Path) -> list[Path]:
    """The files that hold the weights of a trusted model folder."""
    return sorted({tensor.file for tensor in weights_of(folder).values()})
