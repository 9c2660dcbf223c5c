"""What a base model is made of, read from its config and the headers of its weights: nothing is loaded."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from cluster.records import Record
from orchestrator.planning import model_sources
from orchestrator.planning.known_shapes import KNOWN, Known

BUILTIN_VOCABULARY = 1024
"""An upper bound: the tokenizers of the built-in bases come about with them."""


class BaseShape(Record):
    """The sizes of a base model. `tensors` are its stored parameters by name, with their shapes."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_size: int
    """Width of a layer's keys, and of its values."""
    vocabulary: int
    stored_bytes: int
    """Bytes of the weights as they are stored."""
    tensors: dict[str, tuple[int, ...]]
    context: int | None = None
    """The longest row that it was made for, in tokens, where its config says so."""

    @property
    def parameters(self) -> int:
        """Stored parameters."""
        return sum(size_of(shape) for shape in self.tensors.values())

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """(out, in) features of the linear layers by module name: all matrices but embeddings and head."""
        apart = ("embed", "wte", "wpe", "lm_head")
        return {
            module_of(name): (shape[0], shape[1])
            for name, shape in self.tensors.items()
            if len(shape) == 2 and not any(word in name for word in apart)
        }


def size_of(shape: tuple[int, ...]) -> int:
    """Numbers in a tensor of that shape."""
    count = 1
    for length in shape:
        count *= length
    return count


def module_of(parameter: str) -> str:
    """The module that a parameter belongs to."""
    return parameter.rpartition(".")[0]


def describe_base(spec: str, config_folder: Path) -> BaseShape | None:
    """The shape of a base that is built in, on this machine or in the hub's cache, or known by its name; None for
    another, or one that says too little."""
    if spec.startswith(model_sources.BUILTIN):
        return _builtin(spec.removeprefix(model_sources.BUILTIN))
    folder = model_sources.locate(spec, config_folder) or model_sources.cached(spec)
    if folder is None:
        return _of_sizes(KNOWN[spec]) if spec in KNOWN else None
    return describe_folder(folder)


def describe_folder(folder: Path) -> BaseShape | None:
    """The shape of the model in `folder`: its tensors' where its weights are there, else those of a Llama of its sizes.

    None where there is no config.json, or it says too little. UserError, naming the file, for one that is damaged.
    """
    file = folder / "config.json"
    if not file.is_file():
        return None
    with _readable(file):
        config = json.loads(file.read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it holds no keys and values")
        return _described(folder, config)


def _described(folder: Path, config: dict[str, Any]) -> BaseShape | None:
    config = config.get("text_config") or config
    layers = _first(config, "num_hidden_layers", "n_layer", "num_layers")
    hidden = _first(config, "hidden_size", "n_embd", "d_model")
    heads = _first(config, "num_attention_heads", "n_head", "num_heads")
    vocabulary = _first(config, "vocab_size")
    if not (layers and hidden and heads and vocabulary):  # an architecture with other names
        return None
    intermediate = _first(config, "intermediate_size", "n_inner", "ffn_dim", "d_ff") or 4 * hidden
    key_value = (config.get("head_dim") or hidden // heads) * (config.get("num_key_value_heads") or heads)
    tensors, stored = _headers(folder)
    if not tensors:
        tensors = llama(layers, hidden, intermediate, key_value, vocabulary, config.get("tie_word_embeddings", True))
        stored = 2 * sum(size_of(shape) for shape in tensors.values())
    return BaseShape(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        key_value_size=key_value,
        vocabulary=vocabulary,
        stored_bytes=stored,
        tensors=tensors,
        context=_first(config, "max_position_embeddings", "n_positions", "n_ctx") or None,
    )


def _first(config: dict[str, Any], *keys: str) -> int:
    """The first of these keys that is set; 0 if none is."""
    return next((int(config[key]) for key in keys if config.get(key)), 0)


def _headers(folder: Path) -> tuple[dict[str, tuple[int, ...]], int]:
    """Names and shapes of all tensors in a folder's safetensors files, and their bytes."""
    tensors: dict[str, tuple[int, ...]] = {}
    stored = 0
    for file in sorted(folder.glob("*.safetensors")):
        with _readable(file), file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            left = file.stat().st_size - 8 - length
            if left < 0:
                raise ValueError("it is cut off, or no safetensors file")
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            for name, tensor in header.items():
                tensors[name] = tuple(tensor["shape"])
                start, end = tensor["data_offsets"]
                stored += end - start
                if end > left:
                    raise ValueError("it is cut off")
    return tensors, stored


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Say as a UserError, naming the file of a model, what is wrong with what the block reads of it."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise model_sources.damaged(file, error) from error


def _builtin(name: str) -> BaseShape | None:
    from competitors.builtin.bases import BUILTIN_BASES, CONTEXT_TOKENS

    if name not in BUILTIN_BASES:
        return None
    base = BUILTIN_BASES[name]
    sizes = (base.layers, base.hidden, base.intermediate, base.heads, base.key_value_heads)
    return _of_sizes(Known(*sizes, vocabulary=BUILTIN_VOCABULARY, context=CONTEXT_TOKENS), bytes_each=4)


def _of_sizes(of: Known, bytes_each: int = 2) -> BaseShape:
    """As if it were read from its files; so many bytes of each parameter are stored."""
    key_value = of.hidden // of.heads * of.key_value_heads
    tensors = llama(of.layers, of.hidden, of.intermediate, key_value, of.vocabulary, of.tied)
    return BaseShape(
        layers=of.layers,
        hidden=of.hidden,
        intermediate=of.intermediate,
        heads=of.heads,
        key_value_size=key_value,
        vocabulary=of.vocabulary,
        stored_bytes=bytes_each * sum(size_of(one) for one in tensors.values()),
        tensors=tensors,
        context=of.context,
    )


def llama(
    layers: int, hidden: int, intermediate: int, key_value: int, vocabulary: int, tied: bool
) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama of these sizes."""
    block = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (key_value, hidden),
        "self_attn.v_proj": (key_value, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        tensors |= {f"model.layers.{layer}.{module}.weight": shape for module, shape in block.items()}
    tensors["model.norm.weight"] = (hidden,)
    return tensors if tied else tensors | {"lm_head.weight": (vocabulary, hidden)}
