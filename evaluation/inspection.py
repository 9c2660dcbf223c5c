"""Inspection: is a submission a whole, finite model that stands on its seed? Run before anything is scored.

A submission that fails is the competitor's own failure (`Forfeit`), said in words. What is scored is always
read with the lineage's own tokenizer and the tournament's own `max_tokens`, so a submission cannot change
either to make its rows easier.
"""

from pathlib import Path
from typing import Any, Literal

from cluster.errors import Forfeit
from cluster.text import plain
from evaluation.adapters import inspect_adapter
from evaluation.faults import of_submission
from evaluation.weights import FLOATS, INDEX, WHOLE, check_values, model_files, model_tensors, read_headers

Form = Literal["full", "adapter"]

MAY_DIFFER = {
    "_name_or_path", "transformers_version", "architectures", "dtype", "use_cache", "initializer_range",
    "bos_token_id", "eos_token_id", "pad_token_id", "output_attentions", "output_hidden_states",
    "tie_word_embeddings",
}  # fmt: skip
"""Keys of config.json, beside dropout, that do not change what the weights compute when they are scored, and whether
the output head is tied: merging an adapter may untie it."""
NAMED = 3
"""Missing weights that are named."""
PROGRAMS = {".py", ".bin", ".pt", ".pkl", ".pth"}


def inspect(folder: Path, form: Form, seed: Path) -> None:
    """Check the files of a submission against its seed; raise `Forfeit` with the reason if they do not hold.

    Checks that nothing but data lies there, that the weights are whole, can be read and are finite, that a full
    model is of the seed's architecture and leaves no weight to chance, and that an adapter can be merged.
    """
    _inspect_names(folder)
    if form == "full":
        _inspect_full(folder, seed)
    else:
        inspect_adapter(folder, seed)


def _inspect_names(folder: Path) -> None:
    for file in sorted(folder.rglob("*")):
        if not str(file.relative_to(folder)).isprintable():  # a control character, or bytes that are no UTF-8
            raise Forfeit(plain(f"holds a file of an odd name: {file.name!a}"))
        if file.suffix in PROGRAMS:
            raise Forfeit(plain(f"holds {file.name}: only safetensors and JSON are accepted, nothing that runs code"))


def _inspect_full(folder: Path, seed: Path) -> None:
    if (folder / "adapter_config.json").exists():
        # transformers would load the adapter's base, wherever that is, in the place of this model.
        raise Forfeit("holds adapter_config.json beside a full model's weights: hand in one or the other")
    _compare_configs(_config(folder), _seed_config(seed))
    tensors, theirs = model_tensors(folder), read_headers(sorted(seed.glob("*.safetensors")))
    for name, tensor in tensors.items():
        alike = name in theirs and theirs[name].dtype == tensor.dtype
        if tensor.dtype not in FLOATS and not alike:
            raise Forfeit(plain(f"{tensor.file}: {name} is stored as {tensor.dtype}, which no model trains on from"))
        if name in theirs and theirs[name].shape != tensor.shape:
            raise Forfeit(plain(f"{tensor.file}: {name} has shape {tensor.shape}, the seed's has {theirs[name].shape}"))
    _check_that_nothing_is_left_to_chance(folder)
    check_values(model_files(folder))


def _check_that_nothing_is_left_to_chance(folder: Path) -> None:
    """Load the model without its values: what the files lack would be drawn at random, with no more than a warning."""
    from transformers import AutoModelForCausalLM

    with of_submission("the model cannot be loaded", folder):
        _, found = AutoModelForCausalLM.from_pretrained(
            folder, device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True
        )
    if missing := sorted(found["missing_keys"]):
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        where = INDEX if (folder / INDEX).exists() else WHOLE
        raise Forfeit(plain(f"{where} lacks {', '.join(missing[:NAMED])}{more}: they would be drawn at random"))
    for name, shape, expected in sorted(found["mismatched_keys"], key=str):
        raise Forfeit(plain(f"{name} has shape {list(shape)}, config.json asks for {list(expected)}"))


def _compare_configs(config: Any, seed_config: Any) -> None:
    if config.model_type != seed_config.model_type:
        raise Forfeit(plain(f"is a {config.model_type} model, the seed is a {seed_config.model_type}"))
    ours, theirs = config.to_dict(), seed_config.to_dict()
    # Keys that the model's class does not know, such as a trainer's own notes, are read by nothing.
    known = type(seed_config)().to_dict().keys() | {"quantization_config"}
    for key in sorted(key for key in known - MAY_DIFFER if "drop" not in key):
        if ours.get(key) != theirs.get(key):
            raise Forfeit(
                f"config.json says {key}: {plain(repr(ours.get(key)), 100)}, the seed's says"
                f" {plain(repr(theirs.get(key)), 100)}"
            )


def _config(folder: Path) -> Any:
    """What config.json says, with transformers' defaults for what it leaves out. Forfeit if it is no config."""
    if not (folder / "config.json").is_file():
        raise Forfeit("config.json is missing")
    with of_submission("config.json cannot be read", folder):
        return _seed_config(folder)


def _seed_config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)
