"""An estimate of the memory that training a recipe takes, from the base's config alone.

Weights, gradients and optimizer state follow from the parameter count. Activations follow Korthikanti et al.
2022 ("Reducing activation recomputation"): 34 bytes per token, layer and hidden unit in 16 bit where
attention scores are not stored; twice that in float32; 2 bytes with every layer recomputed.
"""

import json
from pathlib import Path

from cluster.records import Record
from competitors.sft import SftRecipe
from orchestrator import models

OPTIMIZER_BYTES = {"adafactor": 0.1, "sgd": 0.0, "adagrad": 4.0, "rmsprop": 4.0, "lion_32bit": 4.0}
"""Bytes of state per trained parameter; AdamW, the default, keeps two float32 moments."""
ADAMW_BYTES = 8.0
RUNTIME_GB = 0.6
"""A process with torch and transformers, before it loads anything."""


class BaseShape(Record):
    """What the estimate needs to know of a base model."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int


def describe_base(spec: str, config_folder: Path) -> BaseShape | None:
    """The shape of a base that is on this machine; None for one that is not, or that says too little."""
    folder = models.locate(spec, config_folder)
    if folder is None:
        return None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    try:
        hidden, layers, vocabulary = config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]
        intermediate = config["intermediate_size"]
    except KeyError:  # an architecture with other names
        return None
    return BaseShape(
        parameters=_count_parameters(folder),
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        vocabulary=vocabulary,
    )


def _count_parameters(folder: Path) -> int:
    """Stored parameters, read from the headers of the safetensors files."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for size in tensor["shape"]:
                    count *= size
                total += count
    return total


def estimate_gb(recipe: SftRecipe, base: BaseShape, max_tokens: int, on_gpu: bool) -> float:
    """Peak memory of one worker in GB (2**30 bytes)."""
    compute = 2 if on_gpu and recipe.dtype in ("auto", "bfloat16", "float16") else 4
    state = OPTIMIZER_BYTES.get(recipe.optimizer, 2.0 if "8bit" in recipe.optimizer else ADAMW_BYTES)
    if recipe.adapter is None:
        trained, frozen = base.parameters, 0
    else:
        # Every linear layer of a block: four of attention, three of the feed-forward part.
        per_layer = recipe.adapter.rank * (4 * 2 * base.hidden + 3 * (base.hidden + base.intermediate))
        trained, frozen = per_layer * base.layers, base.parameters
    weights = trained * (4 + 4 + state) + frozen * compute
    tokens = recipe.batch_size * max_tokens
    per_unit = 2.0 if recipe.gradient_checkpointing else 34.0
    activations = tokens * base.layers * base.hidden * per_unit * compute / 2
    head = min(tokens, 4096) * base.vocabulary * 4.0
    return (weights + activations + head) / 2**30 + RUNTIME_GB
