"""Inspection: is a submission a whole, finite model that stands on its seed? Run before anything is scored.

A submission that fails is the competitor's own failure (`Forfeit`), said in words. What is scored is always
read with the lineage's own tokenizer and the tournament's own `max_tokens`, so a submission cannot change
either to make its rows easier.
"""

from pathlib import Path
from typing import Any, Literal

from cluster.errors import Forfeit

Form = Literal["full", "adapter"]

MAY_DIFFER = {
    "_name_or_path", "transformers_version", "architectures", "dtype", "use_cache", "initializer_range",
    "bos_token_id", "eos_token_id", "pad_token_id", "output_attentions", "output_hidden_states",
    "tie_word_embeddings",
}  # fmt: skip
"""Keys of config.json, beside dropout, that do not change what the weights compute when they are scored, and whether
the output head is tied: merging an adapter may untie it."""


def inspect(folder: Path, form: Form, seed: Path) -> None:
    """Check the files of a submission against its seed; raise `Forfeit` with the reason if they do not hold.

    Checks that the weights can be read, are finite, that a full model has the seed's architecture, names and shapes,
    and that nothing but data lies there.
    """
    programs = [f.name for f in folder.rglob("*") if f.suffix in {".py", ".bin", ".pt", ".pkl", ".pth"}]
    if programs:
        raise Forfeit(f"holds {programs[0]}: only safetensors and JSON are accepted, nothing that runs code")
    shapes = _read_weights(folder)
    if form == "full":
        _compare_with_seed(folder, seed, shapes)
    elif not shapes:
        raise Forfeit("the adapter has no weights")


def _read_weights(folder: Path) -> dict[str, list[int]]:
    """Names and shapes of all tensors, having looked at every value."""
    import torch
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - safe_open is no dict
                    tensor = tensors.get_tensor(name)
                    shapes[name] = list(tensor.shape)
                    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                        raise Forfeit(f"{name} holds values that are not finite: training diverged")
        except SafetensorError as error:
            raise Forfeit(f"{file.name} cannot be read: {error}") from error
    return shapes


def _compare_with_seed(folder: Path, seed: Path, shapes: dict[str, list[int]]) -> None:
    config, seed_config = _config(folder), _config(seed)
    if config.model_type != seed_config.model_type:
        raise Forfeit(f"is a {config.model_type} model, the seed is a {seed_config.model_type}")
    ours, theirs = config.to_dict(), seed_config.to_dict()
    # Keys that the model's class does not know, such as a trainer's own notes, are read by nothing.
    known = type(seed_config)().to_dict().keys() | {"quantization_config"}
    for key in sorted(key for key in known - MAY_DIFFER if "drop" not in key):
        if ours.get(key) != theirs.get(key):
            raise Forfeit(f"config.json says {key}: {ours.get(key)!r}, the seed's says {theirs.get(key)!r}")
    for name, shape in _shapes(seed).items():
        # A tied output head may be stored on one side and left out on the other.
        if name in shapes and shapes[name] != shape:
            raise Forfeit(f"{name} has shape {shapes[name]}, the seed's has {shape}")
        if name not in shapes and not name.endswith("lm_head.weight"):
            raise Forfeit(f"{name} is missing")


def _config(folder: Path) -> Any:
    """What config.json says, with transformers' defaults for what it leaves out. Forfeit if it is no config."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        raise Forfeit(f"config.json cannot be read: {' '.join(str(error).split())}") from error


def _shapes(folder: Path) -> dict[str, list[int]]:
    from safetensors import safe_open

    shapes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            shapes |= {name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return shapes
